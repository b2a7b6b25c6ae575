"""Reading TOML and JSON: training runs, the recipe of the small model and benchmarks are written in it."""

import json
import re
from pathlib import Path
from typing import Any

from ..errors import DependencyError, InputError, shown

_LARGEST = 8 * 2**20  # bytes
_LONGEST_KEY = 50
# Reading a key takes time by the square of its parts.
_LONG_KEY = re.compile(rf"(?:[\w\"'-]+[ \t]*\.[ \t]*){{{_LONGEST_KEY}}}")


def read_toml(path: Path) -> dict:
    """A TOML file's tables. Raises InputError where it cannot be read, DependencyError without a reader for it."""
    try:
        import tomllib
    except ImportError:  # Python 3.10
        try:
            import tomli as tomllib  # pyright: ignore[reportMissingImports] - not on the Python that checks
        except ImportError as error:
            raise DependencyError(
                'Reading TOML needs tomli on Python 3.10, which the extras "train" and "eval" bring: '
                "`python -m pip install tomli`."
            ) from error
    text = read_text(path)
    if _LONG_KEY.search(text):
        raise InputError(f"{shown(path)}: a key of more than {_LONGEST_KEY} parts, which no table here has")
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{shown(path)}: not a TOML file ({shown(error)})") from error


def read_json(path: Path) -> Any:
    """What a JSON file holds. Raises InputError where it cannot be read."""
    try:
        return json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{shown(path)}: not a JSON file ({shown(error)})") from error


def read_text(path: Path) -> str:
    """A file of text, of a length that people and their programs write. Raises InputError."""
    try:
        if path.exists() and not path.is_file():  # a pipe has no end
            raise InputError(f"{shown(path)}: no file, but a folder, a pipe or the like")
        if path.stat().st_size > _LARGEST:
            raise InputError(f"{shown(path)}: has {path.stat().st_size} bytes, at most {_LARGEST} wanted")
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{shown(path)}: cannot be read ({error.strerror or error})") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{shown(path)}: not UTF-8 text ({shown(error)})") from error
