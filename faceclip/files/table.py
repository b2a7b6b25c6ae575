"""Tables out of TOML and JSON files, checked by pydantic: an error says where, what was seen and what is wanted.

A table is a pydantic dataclass (`@dataclass(frozen=True, config=TABLE)`) with fields of the kinds below. What it checks
itself, in `__post_init__` or a validator, raises ValueError with the end of the sentence: "0 given, at least 1 wanted".
"""

import difflib
import os
import types
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Strict,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
)

from ..errors import InputError, shown

Table = TypeVar("Table")

_LONGEST = 1000  # characters of a message
TABLE = ConfigDict(extra="forbid", allow_inf_nan=False)


def _text(value: str) -> str:
    if not value.strip():
        raise ValueError(f"{value!r} given, a text wanted")
    return value


def _texts(value: Any) -> Any:
    if not isinstance(value, list | tuple) or not all(isinstance(entry, str) for entry in value):
        raise ValueError(f"{value!r} given, a list of texts wanted")
    return tuple(value)


def _one_or_more(value: Any) -> Any:
    if not isinstance(value, str | list | tuple):
        raise ValueError(f"{value!r} given, a text or a list of texts wanted")
    return (value,) if isinstance(value, str) else value


def _local(value: Any, info: ValidationInfo) -> Path:
    if not isinstance(value, str | Path):
        raise ValueError(f"{value!r} given, a path, as a text wanted")
    try:
        return (info.context or {}).get("base", Path()) / Path(value).expanduser()
    except RuntimeError as error:  # "~somebody" who is not here
        raise ValueError(f"{value!r} given, whose home is not known; a path, as a text wanted") from error


def _there(path: Path) -> Path:
    if not os.path.exists(path):  # unlike Path.exists, no error for an impossible name
        raise ValueError(f"{path} given, but there is no such file")
    return path


def _a_file(path: Path) -> Path:
    if os.path.isdir(path):
        raise ValueError(f"{path} given, a file and not a folder wanted")
    return _there(path)


Whole = Annotated[int, Strict()]
Number = Annotated[float, Strict()]  # whole numbers too
Flag = Annotated[bool, Strict()]
Text = Annotated[str, Strict(), AfterValidator(_text)]
ListOfTexts = BeforeValidator(_texts)  # for a tuple whose entries are checked further
Texts = Annotated[tuple[str, ...], ListOfTexts]
LocalPath = Annotated[Path, BeforeValidator(_local)]  # relative to the `base` of `check`
LocalFile = Annotated[LocalPath, AfterValidator(_a_file)]
FileOrFolder = Annotated[LocalPath, AfterValidator(_there)]
OneOrMore = BeforeValidator(_one_or_more)  # one entry may stand without a list around it

_WANTED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "string_type": "a text",
    "tuple_type": "a list",
    "dict_type": "a table",
    "dataclass_type": "a table",
}
_BOUNDS = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than", "multiple_of": "a multiple of"}
_KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", Path: "a path, as a text"}


def check(cls: type[Table], values: Any, place: str, base: Path = Path()) -> Table:
    """A table of this class. base: what relative paths in it start at. place: what errors begin with, such as "[run]".

    Raises InputError for the first thing that is wrong; a field that is not known comes before one that is missing.
    """
    try:
        return TypeAdapter(cls).validate_python(values, context={"base": base})
    except ValidationError as error:
        found = min(error.errors(), key=lambda one: one["type"] != "unexpected_keyword_argument")
        where = _where(cls, found["loc"])
        head = f"{place} {where}" if where else place
        between = " " if not where and found["type"] == "value_error" else ": "  # a sentence about several fields
        raise InputError(shown(head.removesuffix(":") + between + _what(cls, found), _LONGEST)) from None


def unknown(name: str, known: Sequence[str], show: str = "{!r}") -> str:
    """What to say of a name that is none of those known. show: how the one that was meant is written."""
    near = difflib.get_close_matches(name, known, 1)
    return f"did you mean {show.format(near[0])}?" if near else f"known are {', '.join(known)}"


def _where(cls: type, place: Sequence[str | int]) -> str:
    """Such as `prompts[1].text`. The value itself, which errors show, tells the entry of a list of plain values."""
    if place and isinstance(place[-1], int) and not is_dataclass(_hint(cls, place)):
        place = place[:-1]
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in place)
    return "".join(parts).removeprefix(".")


def _what(cls: type, found: Any) -> str:
    kind, seen, more = found["type"], found["input"], found.get("ctx", {})
    if kind == "unexpected_keyword_argument":
        table, name = _hint(cls, found["loc"][:-1]), found["loc"][-1]
        return f"the table has no field {name!r}; {unknown(name, [field.name for field in fields(table)])}"
    if kind == "missing":
        return f"missing, {_kind(_hint(cls, found['loc']))} wanted"
    if kind == "value_error":
        return str(more["error"])
    if kind == "too_short":
        return "an empty list given, at least one entry wanted"
    if kind == "literal_error":
        return f"{seen!r} given, {_kind(_hint(cls, found['loc']))} wanted"
    for name, words in _BOUNDS.items():
        if name in more:
            bound = more[name]
            pair = (float(seen), f"{bound:g}") if isinstance(bound, float) else (seen, bound)
            return f"{pair[0]} given, {words} {pair[1]} wanted"
    return f"{seen!r} given, {_WANTED.get(kind) or found['msg']} wanted"


def _hint(cls: Any, place: Sequence[str | int]) -> Any:
    """The type of what stands at this place of a table, without its annotations; Any where that is open."""
    for part in place:
        if isinstance(part, int):
            cls = next(iter(get_args(cls)), Any)
        else:
            cls = _plain(get_type_hints(cls).get(part, Any)) if is_dataclass(cls) else Any
    return cls


def _plain(hint: Any) -> Any:
    """The type without `| None`."""
    if isinstance(hint, types.UnionType) or get_origin(hint) is Annotated:
        return next(option for option in get_args(hint) if option is not types.NoneType)
    return hint


def _kind(hint: Any) -> str:
    origin, options = get_origin(hint), get_args(hint)
    if origin is Literal:
        return f"one of {', '.join(options)}"
    if origin is tuple:
        return "a list of texts" if options[0] is str else "a list"
    return "a table" if is_dataclass(hint) else _KINDS.get(hint, "a value")
