"""Files and folders by path or by address: here, or through fsspec in s3://, gs://, hf:// and whatever else it knows.

What is here is written whole or not at all (`whole`); an object store keeps an object whole by itself.
"""

import contextlib
import functools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from ..errors import DependencyError, InputError, shown
from . import whole

_PROBLEMS = (OSError, ValueError, RuntimeError)  # what the file systems behind fsspec raise


def place(path: str | Path, base: str | Path = "") -> str | Path:
    """A path, or an address that is none of this machine's files. base: where a relative path starts."""
    text = str(path)
    if "://" not in text:
        if "://" not in str(base):
            return Path(base) / Path(text).expanduser()
        if not os.path.isabs(text):
            return f"{str(base).rstrip('/')}/{text}"
        return Path(text)
    if text.startswith(("file://", "local://")):
        return Path(text.partition("://")[2])
    return text


def parent(path: str | Path) -> str | Path:
    """The folder that a file is in."""
    return path.parent if isinstance(path, Path) else path.rpartition("/")[0]


def suffix(path: str | Path) -> str:
    """The ending of a file's name, such as ".png", in small letters."""
    return os.path.splitext(str(path))[1].lower()


def stamp(path: str | Path) -> tuple[str, ...] | None:
    """Tells a file from what it was before it changed, without reading it; None where there is no such file."""
    if isinstance(path, Path):
        try:
            found = path.stat()
        except (OSError, ValueError):
            return None
        return (str(path), str(found.st_size), str(found.st_mtime_ns)) if path.is_file() else None
    with _told(path):
        system, inner = _system(path)
        return (path, str(system.ukey(inner))) if system.isfile(inner) else None


def read(path: str | Path) -> bytes:
    """The bytes of a file. Raises InputError where it cannot be read."""
    with _told(path):
        if isinstance(path, Path):
            return path.read_bytes()
        system, inner = _system(path)
        return system.cat_file(inner)


@contextlib.contextmanager
def reading(path: str | Path) -> Iterator[IO[str]]:
    """A file of text, to be read line by line. Raises InputError where it cannot be opened."""
    with contextlib.ExitStack() as stack:
        with _told(path):
            if isinstance(path, Path):
                file = stack.enter_context(open(path, encoding="utf-8-sig", newline=""))
            else:
                system, inner = _system(path)
                file = stack.enter_context(system.open(inner, "r", encoding="utf-8-sig", newline=""))
        yield file


class Folder:
    """A folder to write into, by path or address. names: relative, with `/` between folders."""

    def __init__(self, where: str | Path):
        self.where = place(where)
        with _told(self.where):
            if isinstance(self.where, Path):
                self.where = self.where.absolute()
                self.where.mkdir(parents=True, exist_ok=True)
            else:
                self._system, self._root = _system(self.where)
                self._system.makedirs(self._root, exist_ok=True)

    def write(self, name: str, data: bytes) -> None:
        """The file with these bytes, whole or not at all."""
        with _told(f"{self.where}/{name}"):
            if isinstance(self.where, Path):
                path = self.where / name
                path.parent.mkdir(parents=True, exist_ok=True)
                whole.write(path, data)
            else:
                self._system.makedirs(f"{self._root}/{name}".rpartition("/")[0], exist_ok=True)
                self._system.pipe_file(f"{self._root}/{name}", data)

    def read(self, names: Sequence[str]) -> dict[str, bytes]:
        """The bytes of those files that are there; an object store is asked for all of them at once."""
        if not isinstance(self.where, Path):
            inner = {f"{self._root}/{name}": name for name in names}
            with _told(self.where):
                found = self._system.cat(list(inner), on_error="omit") if inner else {}
            return {inner[self._key(key, inner)]: data for key, data in found.items()}
        found = {}
        for name in names:
            with contextlib.suppress(FileNotFoundError), _told(f"{self.where}/{name}", missing=True):
                found[name] = (self.where / name).read_bytes()
        return found

    def has(self, name: str) -> bool:
        """Whether a file is there."""
        with _told(f"{self.where}/{name}"):
            if isinstance(self.where, Path):
                return (self.where / name).is_file()
            return self._system.isfile(f"{self._root}/{name}")

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        with contextlib.suppress(FileNotFoundError), _told(f"{self.where}/{name}", missing=True):
            if isinstance(self.where, Path):
                (self.where / name).unlink()
            else:
                self._system.rm_file(f"{self._root}/{name}")

    @staticmethod
    def _key(key: str, known: dict[str, str]) -> str:
        return key if key in known else key.lstrip("/")


@functools.lru_cache(maxsize=64)
def _of_protocol(protocol: str) -> Any:
    try:
        import fsspec
    except ImportError as error:
        raise DependencyError(f"{protocol}:// needs fsspec: `python -m pip install fsspec`.") from error
    try:
        return fsspec.filesystem(protocol)
    except ImportError as error:  # fsspec's own words name the package that is missing
        raise DependencyError(f"{protocol}:// cannot be used: {error}") from error
    except ValueError as error:
        raise InputError(
            f"{protocol}:// is no address that fsspec knows ({shown(error)}); s3://, gs://, hf://"
        ) from error


def _system(address: str) -> tuple[Any, str]:
    system = _of_protocol(address.partition("://")[0])
    return system, system._strip_protocol(address)


@contextlib.contextmanager
def _told(path: object, missing: bool = False) -> Iterator[None]:
    """Errors of a file system name the file. missing: FileNotFoundError goes through, for who expects it."""
    try:
        yield
    except (InputError, DependencyError):
        raise
    except FileNotFoundError as error:
        if missing:
            raise
        raise InputError(f"{shown(path)}: there is no such file") from error
    except _PROBLEMS as error:
        raise InputError(f"{shown(path)}: {shown(getattr(error, 'strerror', None) or error)}") from error
