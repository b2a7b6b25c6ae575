"""The figures as a table: a row for each picture, then for each identity, each prompt and all."""

import csv
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import for_sheet
from ..files import whole
from .measure import Row
from .metrics import FACES

_LEADING = ("kind", "identity", "prompt", "seed", "picture", "problem")
_COUNTS = ("pictures", "missing", "without_face")


@dataclass(frozen=True)
class Summary:
    """Means over some pictures. kind: identity, prompt or all; values: column -> mean over the pictures that are there.

    without_face: how many pictures show none, None where no faces were looked for.
    """

    kind: str
    name: str
    pictures: int
    missing: int
    without_face: int | None
    values: dict[str, float]


def columns(rows: Sequence[Row]) -> list[str]:
    """The columns with values, in order of first appearance."""
    return list(dict.fromkeys(name for row in rows for name in row.values))


def summarise(rows: Sequence[Row], whole: dict[str, float] | None = None) -> list[Summary]:
    """Each identity, each prompt, each case if there are any, then all; whole: figures of all together (fid, kid)."""
    found = []
    groups: tuple[tuple[str, Callable[[Row], str]], ...] = (
        ("identity", lambda row: row.cell.identity.name),
        ("prompt", lambda row: row.cell.prompt.name),
        *([("case", lambda row: row.cell.case)] if any(row.cell.case for row in rows) else []),
    )
    for kind, name_of in groups:
        for name in dict.fromkeys(map(name_of, rows)):
            found.append(_summary(kind, name, [row for row in rows if name_of(row) == name]))
    everything = _summary("all", "", rows)
    everything.values.update(whole or {})
    return [*found, everything]


def _summary(kind: str, name: str, rows: Sequence[Row]) -> Summary:
    there = [row for row in rows if row.picture is not None]
    values = {}
    for column in columns(there):
        known = [row.values[column] for row in there if column in row.values]
        values[column] = math.fsum(known) / len(known)
    looked = [row for row in there if FACES in row.values]
    faceless = sum(row.values[FACES] == 0 for row in looked) if looked else None
    return Summary(kind, name, len(there), len(rows) - len(there), faceless, values)


def write_csv(path: Path, rows: Sequence[Row], summaries: Sequence[Summary]) -> None:
    """results.csv; picture paths are relative to its folder."""
    names = list(dict.fromkeys([*columns(rows), *(name for one in summaries for name in one.values)]))
    buffer = io.StringIO()
    cases = ["case"] if any(row.cell.case for row in rows) else []
    table = csv.DictWriter(buffer, [*_LEADING, *cases, *names, *_COUNTS, "text"], restval="", lineterminator="\n")
    table.writeheader()
    for row in rows:
        cell = row.cell
        table.writerow(
            {
                "kind": "picture",
                "identity": for_sheet(cell.identity.name),
                "prompt": for_sheet(cell.prompt.name),
                "seed": cell.seed,
                "picture": row.picture.relative_to(path.parent).as_posix() if row.picture else "",
                "problem": for_sheet(row.problem),
                "text": for_sheet(cell.prompt.text),
                **({"case": for_sheet(cell.case)} if cases else {}),
                **{name: _number(value) for name, value in row.values.items()},
            }
        )
    for one in summaries:
        counts = {"pictures": one.pictures, "missing": one.missing}
        if one.without_face is not None:
            counts["without_face"] = one.without_face
        name = {one.kind: for_sheet(one.name)} if one.kind in (*_LEADING, *cases) else {}
        table.writerow({"kind": one.kind, **name, **counts, **{key: _number(v) for key, v in one.values.items()}})
    whole.write(path, buffer.getvalue().encode("utf-8"))


def _number(value: float) -> str:
    return f"{value:.6g}"
