"""Reading a table of a benchmark file: every error names the file, the field, the value seen and the value wanted."""

from collections.abc import Iterable
from pathlib import Path

from ..errors import InputError


class Fields:
    """One table of a file.

    file: the file that holds it; relative paths in it start at its folder. place: the table's name in the file, "" for
    the whole. known: the fields it may have, None for any. Every method raises InputError.
    """

    def __init__(self, table: object, file: Path, place: str = "", known: Iterable[str] | None = None):
        self.table, self.file, self.place = table, file, place
        if not isinstance(table, dict):
            raise InputError(f"{file.name}: {place or 'the file'} is {table!r}, wanted a table.")
        if known is not None:
            known = tuple(known)
            for field in table:
                if field not in known:
                    raise InputError(f"{self.name(field)} is not a known field. Known here: {', '.join(known)}.")

    def __contains__(self, field: str) -> bool:
        return field in self.table

    def name(self, field: str) -> str:
        """How errors name a field, such as `bench.toml: settings.width`."""
        return f"{self.file.name}: {self.place}{'.' if self.place else ''}{field}"

    def wrong(self, field: str, wanted: str, value: object = None) -> InputError:
        """The error for a field that is missing or not what is wanted; value: the part of it that is wrong."""
        seen = self.table.get(field) if value is None else value
        return InputError(f"{self.name(field)} is {'missing' if seen is None else repr(seen)}, wanted {wanted}.")

    def text(self, field: str, default: str | None = None) -> str:
        value = self.table.get(field, default)
        if not isinstance(value, str) or not value.strip():
            raise self.wrong(field, "a text")
        return value

    def number(self, field: str, low: int, high: int) -> int | None:
        """A whole number from low to high; None where the field is not there."""
        value = self.table.get(field)
        if value is not None and not (_is_whole(value) and low <= value <= high):
            raise self.wrong(field, f"a whole number from {low} to {high}")
        return value

    def numbers(self, field: str, low: int, high: int) -> tuple[int, ...]:
        """A list of different whole numbers, at least one."""
        values = self.table.get(field)
        if not isinstance(values, list) or not values:
            raise self.wrong(field, f"a list of whole numbers from {low} to {high}")
        for value in values:
            if not (_is_whole(value) and low <= value <= high):
                raise self.wrong(field, f"whole numbers from {low} to {high}", value)
        if len(set(values)) < len(values):
            raise self.wrong(field, "each number once")
        return tuple(values)

    def texts(self, field: str) -> tuple[str, ...]:
        """A text, or a list of at least one."""
        values = self.table.get(field)
        values = [values] if isinstance(values, str) else values
        if not isinstance(values, list) or not values or not all(isinstance(v, str) and v.strip() for v in values):
            raise self.wrong(field, "a text or a list of texts")
        return tuple(values)

    def items(self, field: str) -> list:
        value = self.table.get(field)
        if not isinstance(value, list) or not value:
            raise self.wrong(field, "a list with at least one entry")
        return value

    def paths(self, field: str) -> tuple[Path, ...]:
        """A file name, or a list of at least one; the files must be there."""
        return tuple(self._path(field, name) for name in self.texts(field))

    def path(self, field: str, default: Path | None = None) -> Path:
        return default if default is not None and field not in self else self._path(field, self.text(field))

    def _path(self, field: str, name: str) -> Path:
        path = (self.file.parent / Path(name).expanduser()).absolute()
        if not path.is_file():
            raise InputError(f"{self.name(field)} is {name!r}, but there is no file {path}.")
        return path


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
