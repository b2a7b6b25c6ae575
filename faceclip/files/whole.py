"""A file or a folder on disk that is there whole or not at all, whoever else writes there and whenever one is killed.

What is being written lies beside its place under a name of its own, `.NAME.MACHINE+RANDOM.faceclip-partial`: hidden,
with no ending that a list of models shows. Its writer holds a lock on it as long as it lives, so what a killed one left
is known by its free lock, and the next write into the folder removes it. Needs the standard library only.
"""

import contextlib
import hashlib
import os
import platform
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, cast

try:
    import fcntl
except ImportError:  # Windows, where nobody can remove a file that another process has open
    fcntl = None

_NAME = re.compile(r"\..+\.([0-9a-f]{8})[0-9a-f]{16}\.faceclip-partial", re.DOTALL)
_LONGEST = 180  # bytes of the target's name that the partial one repeats; file systems take 255 in all
_A_DAY = 24 * 3600


@contextlib.contextmanager
def writing(path: str | os.PathLike, replace: bool = True) -> Iterator[BinaryIO]:
    """A binary file to write to, flushed to the disk and put at `path` in one step when the block ends.

    After an error in the block, Ctrl-C included, nothing changes. replace: whether a file at `path` may be replaced;
    if not, FileExistsError is raised where the name was taken meanwhile. OSError as the system raises it.
    """
    path = Path(path)
    clear(path.parent)
    with _partial(path, _new_file) as (partial, handle), open(cast(int, handle), "wb") as file:
        yield file
        settle(file)
        if os.name == "nt":
            file.close()  # an open file cannot be renamed there
        (os.replace if replace else _take)(partial, path)
    settle_folder(path.parent)


def write(path: str | os.PathLike, data: bytes, replace: bool = True) -> None:
    """The file `path` with these bytes, as `writing` puts it there."""
    with writing(path, replace) as file:
        file.write(data)


@contextlib.contextmanager
def writing_folder(path: str | os.PathLike) -> Iterator[Path]:
    """An empty folder to fill, which takes the place of the one at `path`, if there is one, when the block ends.

    After an error in the block nothing changes. Between two renames `path` can be missing; it is never half there.
    """
    path = Path(path)
    clear(path.parent)
    with _partial(path, _new_folder) as (partial, handle):
        try:
            yield partial
            move_folder(partial, path)
        finally:
            if handle is not None:
                os.close(handle)


def move(source: Path, target: Path) -> None:
    """Put a finished file, whose bytes are on the disk, in its place on the same disk, over what is there."""
    os.replace(source, target)
    settle_folder(target.parent)


def move_folder(source: Path, target: Path) -> None:
    """Put a finished folder in its place on the same disk, instead of what is there."""
    settle_folder(source)
    remove_folder(target)
    os.replace(source, target)
    settle_folder(target.parent)


def remove_folder(path: Path) -> None:
    """Remove a folder, if it is there, so that nobody sees it with half of its files."""
    if os.path.lexists(path):
        hidden = path.with_name(_partial_name(path.name))
        os.replace(path, hidden)
        shutil.rmtree(hidden, ignore_errors=True)  # what stays is not seen, and the next `clear` takes it


def settle(file: BinaryIO) -> None:
    """Wait until all that was written is on the disk."""
    file.flush()
    os.fsync(file.fileno())


def clear(folder: str | os.PathLike) -> None:
    """Remove from the folder itself what killed writers left; what others are writing stays."""
    try:
        names = [name for name in os.listdir(folder) if _NAME.fullmatch(name)]
    except OSError:
        return
    for name in names:
        with contextlib.suppress(OSError):
            _remove_abandoned(Path(folder) / name)


@contextlib.contextmanager
def _partial(path: Path, make) -> Iterator[tuple[Path, int | None]]:
    """A new partial file or folder of ours beside `path`, and its handle; gone at the end unless it was renamed."""
    while True:
        partial = path.with_name(_partial_name(path.name))
        handle = make(partial)
        # Between its making and its locking, `clear` of another process may have taken it for a left over one.
        if handle is None or (_lock(handle) is not False and partial.exists()):
            break
        os.close(handle)
    try:
        yield partial, handle
    finally:
        with contextlib.suppress(OSError):
            _remove(partial)


def _partial_name(name: str) -> str:
    # No process id: two containers that share a folder can have the same.
    name = name.encode("utf-8", "ignore")[:_LONGEST].decode("utf-8", "ignore")
    return f".{name}.{_machine()}{secrets.token_hex(8)}.faceclip-partial"


def _new_file(path: Path) -> int:
    return os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | getattr(os, "O_BINARY", 0), 0o666)


def _new_folder(path: Path) -> int | None:
    path.mkdir(parents=True)
    return os.open(path, os.O_RDONLY) if fcntl else None


def _take(partial: Path, path: Path) -> None:
    """Give the partial file a name that is free, in one step. Raises FileExistsError where it is not."""
    if os.name == "nt":
        os.rename(partial, path)  # never replaces there
        return
    try:
        os.link(partial, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links: an empty file holds the name for a moment
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        try:
            os.replace(partial, path)
        except BaseException:
            path.unlink()
            raise


def _remove_abandoned(path: Path) -> None:
    match = _NAME.fullmatch(path.name)
    if fcntl and match and match[1] == _machine():
        kind = os.O_RDONLY if path.is_dir() else os.O_RDWR
        handle = os.open(path, kind | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            if (locked := _lock(handle)) is not None:
                if locked:
                    _remove(path)  # while the lock is ours: its writer may just have made it
                return
        finally:
            os.close(handle)
    # Locks do not tell: they do not reach from one machine to another on every file system, and some have none.
    if time.time() - path.lstat().st_mtime > _A_DAY:
        _remove(path)


def _lock(handle: int) -> bool | None:
    """True if the lock is ours now, False if another's, None where there are no locks."""
    if not fcntl:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def settle_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk."""
    if os.name == "nt":  # folders cannot be opened there
        return
    with contextlib.suppress(OSError):  # nor flushed on every file system
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@lru_cache(maxsize=1)
def _machine() -> str:
    """Eight hexadecimal digits, the same for all processes whose locks are surely seen by each other."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            name = file.read()
    except OSError:
        name = platform.node()
    return hashlib.sha256(name.encode()).hexdigest()[:8]
