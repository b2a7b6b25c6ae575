"""Photos and saved identities of many jobs: looked at before anything is made, each once however many rows name it."""

import functools
import hashlib
import io
import warnings
from pathlib import Path

from ..errors import CheckpointError, InputError, shown
from ..files import remote
from ..files.header import Damage, read_header
from ..files.picture import FORMATS
from ..identity.header import check_header
from .cell import UPLOADS

_REMEMBERED = 20_000  # files; what a long table names again much later is read again


def digest(path: str | Path) -> str:
    """20 hex digits over the content of a file."""
    return hashlib.sha256(remote.read(path)).hexdigest()[:20]


def upload_name(path: str | Path) -> str:
    """The server's name of a photo, after its content. Raises InputError where it is missing or no picture."""
    return _looked_at(path, _stamped(path))


def identity_digest(path: str | Path) -> str:
    """The digest of a saved identity. Raises InputError where it is missing, CheckpointError for another file."""
    return _identity(path, _stamped(path))


def _stamped(path: str | Path) -> tuple[str, ...]:
    stamp = remote.stamp(path)
    if stamp is None:
        raise InputError(f"{shown(path)} given, but there is no such file")
    return stamp


@functools.lru_cache(maxsize=_REMEMBERED)
def _looked_at(path: str | Path, stamp: tuple[str, ...]) -> str:
    from PIL import Image

    data = remote.read(path)
    try:
        # What kind of file it is and how large: unpacking them all would take longer than it is worth.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            Image.init()
            Image.open(io.BytesIO(data), formats=[kind for kind in FORMATS if kind in Image.OPEN])
    except Exception as error:  # a damaged file can make a decoder raise anything
        raise InputError(f"{shown(path)} given, which is no picture (it begins with {data[:16]!r})") from error
    return f"{UPLOADS}/{hashlib.sha256(data).hexdigest()[:20]}{remote.suffix(path)}"


@functools.lru_cache(maxsize=_REMEMBERED)
def _identity(path: str | Path, stamp: tuple[str, ...]) -> str:
    if isinstance(path, Path):
        try:
            metadata = read_header(path).metadata
        except Damage as error:
            raise CheckpointError(f"{shown(path.name)} is no saved identity ({shown(error)})") from error
        check_header(path.name, metadata)
    return digest(path)
