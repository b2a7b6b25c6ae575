"""Jobs as a table: a CSV file or JSON lines, one row for each picture or each few seeds of one.

    photo,prompt,seeds,settings.steps
    ada.jpg,a chef in a kitchen,4,30

Read row by row, as often as it is gone through, so that a million rows need no more memory than ten. A row has a
`prompt`, and `photo`, `references` (several photos of one person, in CSV with ";" between them) or `identity` (a file
made by Save Identity, which the servers have as well). It may have `name`, `negative`, `seed`, `seeds` (how many,
counted up from `seed`), `width`, `height`, `size` (864x1152), `strength`, `workflow`, and any "node.input" of the
workflow. Paths are relative to the table's file.
"""

import csv
import dataclasses
import functools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field
from pydantic.dataclasses import dataclass as table

from ..errors import FaceCLIPError, InputError, shown
from ..files import remote
from ..files.table import TABLE, Number, OneOrMore, Text, Whole, check
from .cell import Planned, key_of
from .graph import REFERENCE_INPUTS, Graph
from .grid import Seed, Settings, Side, graph_of
from .names import fill
from .photos import identity_digest, upload_name
from .problems import Problems

SUFFIXES = (".csv", ".jsonl", ".ndjson")
TEMPLATE = "{name}_{seed}"
MOST_SEEDS = 10_000
_LONGEST_LINE = 2**20  # characters
_PARTS = ";"  # between the references in a cell of a CSV file


def _size(value: Any) -> Any:
    found = re.fullmatch(r"(\d+)\s*[xX\u00d7]\s*(\d+)", value.strip()) if isinstance(value, str) else None
    if not found:
        raise ValueError(f"{value!r} given, width x height such as 864x1152 wanted")
    return int(found[1]), int(found[2])


@table(frozen=True, config=TABLE)
class Row:
    """The fields of a row, but for the node.inputs."""

    prompt: Text
    name: Text = ""
    photo: Text = ""
    references: Annotated[tuple[Text, ...], Field(min_length=1, max_length=len(REFERENCE_INPUTS)), OneOrMore] = ()
    identity: Text = ""
    negative: str | None = None
    seed: Seed = 0
    seeds: Annotated[Whole, Field(ge=1, le=MOST_SEEDS)] = 1
    width: Side | None = None
    height: Side | None = None
    size: Annotated[tuple[Side, Side], BeforeValidator(_size)] | None = None
    strength: Annotated[Number, Field(ge=0.0, le=2.0)] | None = None
    workflow: Text = ""

    def __post_init__(self):
        if sum(map(bool, (self.photo, self.references, self.identity))) != 1:
            raise ValueError("photo, references or identity: one of the three is wanted")
        if self.size and (self.width or self.height):
            raise ValueError("size, or width and height: one of the two is wanted")


_FIELDS = tuple(field.name for field in dataclasses.fields(Row))
_NUMBERS = {"seed": int, "seeds": int, "width": int, "height": int, "strength": float}


class Rows:
    """A table of jobs. path: the file, or its address. settings: what is the same for all rows. judge: who tells the
    likeness of each picture, if that is wanted."""

    def __init__(
        self, path: str | Path, settings: Settings | None = None, template: str = TEMPLATE, judge: str | None = None
    ):
        self.path, self.template, self.judge = path, template, judge
        self.name = str(path).replace("\\", "/").rpartition("/")[2]
        self._settings = settings or Settings()
        self._base = remote.parent(path)
        self._graph = functools.lru_cache(maxsize=64)(self._read_graph)

    def planned(self, problem: Problems) -> Iterator[Planned]:
        """The pictures of all rows, in order. What is wrong with a row is told to `problem`, and the row left out."""
        for number, values in self._read(problem):
            place = f"{self.name}, row {number}"
            try:
                if isinstance(values, str):
                    raise InputError(values)
                yield from self._plan(number, place, values)
            except FaceCLIPError as error:
                problem(f"{place}: {str(error).removeprefix(place).lstrip(': ')}")

    def _read(self, problem: Problems) -> Iterator[tuple[int, dict[str, Any] | str]]:
        """Row number, as a spreadsheet or an editor counts it, and its values; or what is wrong with it as a text."""
        try:
            with remote.reading(self.path) as file:
                if remote.suffix(self.path) == ".csv":
                    yield from self._read_csv(file)
                else:
                    yield from _read_lines(file)
        except (UnicodeDecodeError, csv.Error, OSError) as error:
            problem(f"{self.name}: cannot be read further ({shown(error)}); UTF-8 text wanted")

    def _read_csv(self, file: Any) -> Iterator[tuple[int, dict[str, Any] | str]]:
        reader = csv.reader(file, strict=True)
        heads = [head.strip() for head in next(reader, [])]
        unknown = [head for head in heads if head not in _FIELDS and "." not in head]
        twice = {head for head in heads if heads.count(head) > 1}
        if unknown or twice or not heads:
            words = [f"no field {shown(repr(head))}" for head in unknown] + [
                f"{head!r} twice" for head in sorted(twice)
            ]
            raise InputError(
                f"{self.name}, row 1: {', '.join(words) or 'empty'}; the names of the columns are wanted: "
                f"{', '.join(_FIELDS)}, or node.input"
            )
        for number, cells in enumerate(reader, 2):
            if not any(cells):
                continue
            if len(cells) > len(heads):
                yield number, f"{len(cells)} cells, but {len(heads)} columns; a text with a comma stands between quotes"
            else:
                yield number, {head: cell for head, cell in zip(heads, cells, strict=False) if cell != ""}

    def _read_graph(self, workflow: str) -> tuple[Graph, frozenset[str]]:
        settings = self._settings
        if workflow:
            path = remote.place(workflow, self._base)
            if not isinstance(path, Path) or not path.is_file():
                raise InputError(f"workflow: {shown(path)} given, but there is no such file here")
            settings = dataclasses.replace(settings, workflow=path)
        graph = graph_of(settings, self.name, "settings")
        return graph, frozenset(f"{node}.{name}" for node, one in graph.prompt.items() for name in one["inputs"])

    def _plan(self, number: int, place: str, values: dict[str, Any]) -> Iterator[Planned]:
        own = {name: value for name, value in values.items() if "." not in name}
        if remote.suffix(self.path) == ".csv":
            own = {name: _from_text(name, value) for name, value in own.items()}
        row = check(Row, own, place)
        graph, slots = self._graph(row.workflow)
        changes = self._changes(row, graph, values, slots)
        photos = [remote.place(one, self._base) for one in ((row.photo,) if row.photo else row.references)]
        uploads = {_about("photo" if row.photo else "references", upload_name, one): one for one in photos}
        identity = remote.place(row.identity, self._base) if row.identity else None
        content = _about("identity", identity_digest, identity) if identity else None
        file = str(identity).replace("\\", "/").rpartition("/")[2] if identity else None
        api = graph.build(row.prompt, row.seed, tuple(uploads), file, place, changes)
        person = file or str(photos[0]).replace("\\", "/").rpartition("/")[2]
        facts = {
            "prompt": row.prompt,
            "negative": row.negative,
            "identity": {
                "from": [file] if file else [str(one) for one in photos],
                "digests": [content] if content else [name.rpartition("/")[2].split(".")[0] for name in uploads],
            },
            "row": number,
            "jobs": self.name,
        }
        for seed in range(row.seed, row.seed + row.seeds):
            made = api if seed == row.seed else graph.with_seed(api, seed)
            key = key_of(made, content)
            named = {
                "name": row.name or f"{number:06}",
                "row": number,
                "seed": seed,
                "identity": person.rpartition(".")[0] or person,
                "prompt": row.prompt,
                "case": "",
                "key": key,
            }
            made = graph.with_likeness(made, self.judge, place) if self.judge else made
            name = fill(self.template, named)
            yield Planned(seed, key, made, uploads, name, place, number, row.seeds, {**facts, "seed": seed})

    def _changes(self, row: Row, graph: Graph, values: dict[str, Any], known: frozenset[str]) -> dict[str, Any]:
        width, height = row.size or (row.width, row.height)
        given = {"width": width, "height": height, "negative": row.negative, "strength": row.strength}
        changes = {}
        for field, value in given.items():
            slots = getattr(graph.slots, field)
            if value is None:
                continue
            if field == "strength":  # most workflows leave the input at its default, and out
                slots = [slot for slot in slots if slot.partition(".")[0] in graph.prompt]
            if not slots:
                raise InputError(f"{field}: {graph.name} has no {', '.join(getattr(graph.slots, field))}")
            if field != "strength":
                graph.check_slots(slots, field)
            changes.update(dict.fromkeys(slots, value))
        for slot in (name for name in values if "." in name):
            if slot not in known:
                graph.check_slots([slot], slot)
            node, _, name = slot.partition(".")
            changes[slot] = _like(values[slot], graph.prompt[node]["inputs"][name], slot)
        return changes


def _read_lines(file: Any) -> Iterator[tuple[int, dict[str, Any] | str]]:
    for number, line in enumerate(iter(lambda: file.readline(_LONGEST_LINE), ""), 1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield number, f"no JSON ({shown(error)})"
            continue
        yield number, values if isinstance(values, dict) else f"{shown(repr(values))} given, a table wanted"


def _from_text(name: str, text: str) -> Any:
    """The cell of a CSV file as what the field holds; what cannot be is left for the check to name."""
    if name == "references":
        return [part.strip() for part in text.split(_PARTS) if part.strip()]
    try:
        return _NUMBERS[name](text) if name in _NUMBERS else text
    except ValueError:
        return text


def _like(value: Any, present: Any, slot: str) -> Any:
    """A value for an input of the workflow, of the kind that stands there now. Raises InputError."""
    if isinstance(present, list):
        raise InputError(f"{slot}: comes from another node there, so no value can be given")
    if isinstance(present, str):
        if not isinstance(value, str):
            raise InputError(f"{slot}: {value!r} given, a text wanted")
        return value
    if isinstance(value, str):
        try:
            value = json.loads(value.lower() if value.lower() in ("true", "false") else value)
        except ValueError:
            value = str(value)
    if isinstance(present, bool) != isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(
            f"{slot}: {value!r} given, {'true or false' if isinstance(present, bool) else 'a number'} wanted"
        )
    return value


def _about(field: str, look: Any, path: Any) -> str:
    """What `look` says of a file; its errors name the field."""
    try:
        return look(path)
    except FaceCLIPError as error:
        raise InputError(f"{field}: {error}") from error
