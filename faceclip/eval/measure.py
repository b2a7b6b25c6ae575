"""Measuring all pictures of a grid; what was measured once is remembered."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..bulk.grid import Grid, GridCell
from ..bulk.store import Store, read_picture
from .metrics import Metric


@dataclass(frozen=True)
class Row:
    """A cell with its picture (None: missing, and why) and its values by column."""

    cell: GridCell
    picture: Path | None
    problem: str = ""
    values: dict[str, float] = field(default_factory=dict)


class Memory:
    """Values by what they depend on: picture, metric, model, reference. One line per value, added as they come."""

    def __init__(self, path: Path):
        self._path = path
        self._known: dict[str, dict[str, float]] = {}
        lines = path.read_text("utf-8").splitlines() if path.is_file() else []
        for line in lines:
            try:
                entry = json.loads(line)
                self._known[entry["of"]] = entry["values"]
            except (ValueError, KeyError, TypeError):
                continue  # the last line of a run that was killed

    def get(self, of: str) -> dict[str, float] | None:
        return self._known.get(of)

    def put(self, of: str, values: dict[str, float]) -> None:
        self._known[of] = values
        with open(self._path, "a", encoding="utf-8") as file:
            # The line break comes first: a line cut short by a kill spoils no other.
            file.write("\n" + json.dumps({"of": of, "values": values}))


def measure_grid(
    grid: Grid,
    store: Store,
    metrics: Sequence[Metric],
    memory: Memory,
    problems: dict[str, str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Row]:
    """A row for each cell, in the grid's order. problems: key -> why a picture is missing."""
    rows = []
    for number, cell in enumerate(grid.cells):
        path = store.path(cell.key)
        if path is None:
            rows.append(Row(cell, None, (problems or {}).get(cell.key, "not made yet")))
        else:
            rows.append(Row(cell, path, "", _measure(cell, path, metrics, memory)))
        if progress and metrics:
            progress(number + 1, len(grid.cells))
    return rows


def _measure(cell: GridCell, path: Path, metrics: Sequence[Metric], memory: Memory) -> dict[str, float]:
    data = path.read_bytes()
    content = hashlib.sha256(data).hexdigest()
    picture, values = None, {}
    for metric in metrics:
        of = hashlib.sha256(f"{content}\n{metric.signature(cell)}".encode()).hexdigest()
        found = memory.get(of)
        if found is None:
            picture = read_picture(data) if picture is None else picture
            found = metric.measure(cell, picture)
            memory.put(of, found)
        values.update(found)
    return values
