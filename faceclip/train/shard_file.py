"""The members of one shard, a tar file: read here or behind a URL, and never more of it than its bytes can hold."""

import bz2
import gzip
import io
import lzma
import re
import tarfile
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, cast

from ..errors import DependencyError, InputError, shown

COMMAND = "pipe:"
# A compressed shard may unpack to this many bytes, and to so many times what was read of it; photos hardly shrink.
_ALWAYS, _RATIO = 64 * 2**20, 32
_LONGEST_PAX = 16 * 2**10  # bytes of a member's further attributes; reading them takes time by their square
_META = re.compile(r"__[^/]*__($|/)")  # webdataset's own notes


def as_path(name: str) -> str:
    """A file's name that cannot be taken for a command or a URL."""
    return f"./{name}" if ":" in name.partition("/")[0] and not re.match(r"[A-Za-z]:[\\/]", name) else name


def members(url: str, stop: Callable[[Exception], bool]) -> Iterator[dict[str, Any]]:
    """Name and bytes of each file in a shard, in its order, as webdataset's `group_by_keys` takes them.

    url: a path, a URL, or a command that stands in the run file. Ends at what is broken, after `stop` was told why.
    """
    try:
        with _open(url) as file, tarfile.open(fileobj=_unpacked(file), mode="r|", tarinfo=_Member) as shard:
            for member in shard:
                cast(Any, shard).members = []  # it would keep them all
                if not member.isreg() or _META.match(member.name):
                    continue
                if member.issparse():
                    raise ValueError(f"{member.name} is a file with holes")
                content = cast(BinaryIO, shard.extractfile(member))  # a regular file has some
                yield {"fname": member.name, "data": content.read(), "__url__": url}
    except Exception as error:  # a damaged file can make tarfile raise anything
        stop(error)


def _open(url: str) -> BinaryIO:
    if url.startswith(COMMAND):
        from webdataset.gopen import gopen

        return cast(BinaryIO, gopen(url, "rb"))
    if "://" not in url:
        return open(url, "rb")
    return cast(BinaryIO, storage(url).open(url, "rb"))


def storage(url: str) -> Any:
    """The file system of fsspec that a URL is of: s3://, gs://, hf://, https:// and many more.

    DependencyError where its package is missing, which the message names.
    """
    import fsspec

    scheme = url.partition("://")[0]
    try:
        return fsspec.filesystem(scheme)
    except ImportError as error:  # such as s3fs for s3://; fsspec's message says which
        raise DependencyError(f"{scheme}:// needs a package of its own ({error}).") from error
    except ValueError as error:
        raise InputError(f"{url}: fsspec knows no {scheme}:// ({shown(error)})") from error


def _unpacked(file: BinaryIO) -> BinaryIO:
    return cast(BinaryIO, _Unpacked(file))  # as much of a file as tarfile wants


class _Member(tarfile.TarInfo):
    def _proc_pax(self, shard: tarfile.TarFile) -> tarfile.TarInfo:
        if self.size > _LONGEST_PAX:
            raise tarfile.ReadError(f"a member has {self.size} bytes of attributes")
        return cast(Any, super())._proc_pax(shard)


class _Counting(io.RawIOBase):
    """A file that knows how much of it was read."""

    def __init__(self, file: BinaryIO):
        self._file, self.done = file, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        self.done += len(data)
        return len(data)


class _Unpacked:
    """A shard's bytes, unpacked where it is compressed. ValueError where they grow out of all proportion."""

    def __init__(self, file: BinaryIO):
        self._raw = _Counting(file)
        packed, self._done = io.BufferedReader(self._raw), 0
        head = packed.peek(6)[:6]
        if head.startswith(b"\x1f\x8b"):
            self._file = gzip.GzipFile(fileobj=packed)
        elif head.startswith(b"BZh"):
            self._file = bz2.BZ2File(packed)
        elif head.startswith((b"\xfd7zXZ", b"\x5d\0\0")):
            self._file = lzma.LZMAFile(packed)
        else:
            self._file = packed

    def read(self, size: int) -> bytes:
        data = self._file.read(size)
        self._done += len(data)
        if self._done > _ALWAYS + _RATIO * self._raw.done:
            raise ValueError(f"its first {self._raw.done} bytes unpack to more than {self._done}, which no photos do")
        return data
