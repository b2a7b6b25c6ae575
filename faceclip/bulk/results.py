"""What `make` leaves: each picture with a JSON file beside it, which is written last and says that it is there."""

import dataclasses
import io
import json
import threading
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..files import remote
from ..files.picture import open_picture
from .cell import Made, Planned

RUN = "make.json"  # what the whole run was made with; no picture is called so, each has its seed or key in its name
_AT_ONCE = 256  # pictures looked for at a time
_SUFFIXES = {"PNG": ".png", "JPEG": ".jpg", "WEBP": ".webp"}


@dataclasses.dataclass(frozen=True)
class Entry:
    """A picture that was made, as its JSON says. picture: its file below the folder, None where it was not kept."""

    name: str
    picture: str | None
    facts: Mapping[str, Any]

    @property
    def likeness(self) -> float | None:
        return self.facts.get("likeness")


class Results:
    """The output folder. Safe to use from several threads, for different pictures."""

    def __init__(self, folder: str | Path):
        self.folder = remote.Folder(folder)

    def run(self) -> dict[str, Any]:
        """What an earlier run into this folder was made with; {} where there was none."""
        data = self.folder.read([RUN]).get(RUN)
        return _table(data) or {} if data is not None else {}

    def begin(self, facts: Mapping[str, Any]) -> None:
        """Remember what the pictures are made with."""
        self.folder.write(RUN, _text(facts))

    def keep(self, one: Planned, made: Made, about: Mapping[str, Any]) -> Entry:
        """A picture, and then its JSON."""
        data, suffix = made.data, _SUFFIXES.get(made.kind)
        if suffix is None:
            buffer, suffix = io.BytesIO(), ".png"
            open_picture(data, f"the picture of {one.place}").save(buffer, "PNG")
            data = buffer.getvalue()
        facts = {
            **one.facts,
            "likeness": made.likeness,
            "picture": one.name.rpartition("/")[2] + suffix,
            "key": one.key,
            "width": made.size[0],
            "height": made.size[1],
            "seconds": round(made.seconds, 3),
            "server": made.server,
            **about,
        }
        self.folder.write(one.name + suffix, data)
        self.folder.write(f"{one.name}.json", _text(facts))
        return Entry(one.name, one.name + suffix, facts)

    def sort_out(self, entry: Entry) -> Entry:
        """Take away the picture of one that is not among the likest; its JSON stays, so that it is not made again."""
        file = entry.facts.get("picture") or entry.facts.get("sorted_out")
        facts = {**entry.facts, "picture": None, "sorted_out": file}
        if entry.picture:
            self.folder.write(f"{entry.name}.json", _text(facts))
        self.folder.remove(_beside(entry.name, str(file)))  # also where one was killed between the two
        return Entry(entry.name, None, facts)

    def look(self, planned: Iterable[Planned]) -> Iterator[tuple[Planned, Entry | None]]:
        """Each planned picture, with what is there of it. One whose file somebody took away is not there."""
        source = iter(planned)
        while part := list(islice(source, _AT_ONCE)):
            found = self.folder.read([f"{one.name}.json" for one in part])
            for one in part:
                yield one, self._entry(one, found.get(f"{one.name}.json"))

    def _entry(self, one: Planned, data: bytes | None) -> Entry | None:
        facts = _table(data) if data is not None else None
        if not facts or facts.get("key") != one.key:
            return None
        picture = facts.get("picture")
        if not isinstance(picture, str):
            return Entry(one.name, None, facts)
        file = _beside(one.name, picture)
        # An object store was asked for the JSON, which it has got after the picture; asking twice takes twice as long.
        if isinstance(self.folder.where, Path) and not self.folder.has(file):
            return None
        return Entry(one.name, file, facts)


def _beside(name: str, file: str) -> str:
    return "/".join([*name.split("/")[:-1], file.replace("\\", "/").rpartition("/")[2]])


def _table(data: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _text(facts: Mapping[str, Any]) -> bytes:
    return (json.dumps(facts, ensure_ascii=False, indent=1) + "\n").encode("utf-8", "replace")


class Best:
    """Of each row's seeds, the `count` likest stay. A row is sorted out as soon as all of its seeds are made."""

    def __init__(self, results: Results, count: int):
        if count < 1:
            raise InputError(f"--best is {count}, wanted at least 1.")
        self._results, self._count = results, count
        self._rows: dict[int, tuple[list[int], list[Entry]]] = {}
        self._lock = threading.Lock()

    def add(self, one: Planned, entry: Entry | None) -> list[Entry]:
        """One more of its row is done, or failed (None). Returns the row's entries once all are, else none."""
        with self._lock:
            left, entries = self._rows.setdefault(one.group, ([one.of], []))
            left[0] -= 1
            if entry is not None:
                entries.append(entry)
            if left[0]:
                return []
            del self._rows[one.group]
        return self._sort(entries)

    def finish(self) -> Iterator[Entry]:
        """The entries of rows some of whose pictures other rows have made already."""
        rows, self._rows = self._rows, {}
        for _, entries in rows.values():
            yield from self._sort(entries)

    def _sort(self, entries: list[Entry]) -> list[Entry]:
        ranked = sorted(entries, key=lambda one: (-(-2.0 if one.likeness is None else one.likeness), one.name))
        kept, others = ranked[: self._count], ranked[self._count :]
        return [*kept, *(self._results.sort_out(one) for one in others)]
