"""Reading a training checkpoint's parts without running what its files say.

torch keeps the index of the parts (`.metadata`) as a pickle and its reader runs it; what is no tensor (a learning rate)
it unpickles likewise. Here the index is read into plain values, each of which is held against what torch writes there,
and only then becomes torch's own index; and everything else is read with `weights_only=True`.
"""

import io
import os
from dataclasses import fields
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch.distributed.checkpoint import FileSystemReader
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.metadata import (
    BytesStorageMetadata,
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    StorageMeta,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import LoadPlan, LoadPlanner, ReadItem
from torch.futures import Future

from ..errors import CheckpointError, shown
from ..files.plain_pickle import PlainUnpickler, Value
from ..files.torch_file import look_through

_LARGEST = 256 * 2**20  # bytes of an index; one of the published sizes has about 2 MB


def read_index(path: Path) -> Metadata:
    """torch's index of a checkpoint's parts. Raises CheckpointError where it is damaged, or more than that."""
    try:
        with open(path, "rb") as file:
            data = file.read(_LARGEST + 1)
        if len(data) > _LARGEST:
            raise ValueError("it is too long")
        return _index(data)
    except Exception as error:  # a damaged pickle can make its reader raise anything
        raise CheckpointError(
            f"{path} is no list of a training checkpoint's parts ({shown(error) or type(error).__name__}). It is "
            "damaged or was tampered with; nothing in it was run. Remove the folder to go on from the one before."
        ) from error


def _index(data: bytes) -> Metadata:
    index = _fields(PlainUnpickler(io.BytesIO(data)).load(), Metadata)
    index["state_dict_metadata"] = {
        _text(key): _entry(value) for key, value in _of(dict, index["state_dict_metadata"]).items()
    }
    index["storage_data"] = {
        MetadataIndex(**_place(key)): _part(value) for key, value in _of(dict, index["storage_data"]).items()
    }
    index["storage_meta"], index["planner_data"] = StorageMeta(), None  # of the writer; a reader has its own
    return Metadata(**index)


def _of(kind: type | tuple[type, ...], value: Any) -> Any:
    if not isinstance(value, kind) or isinstance(value, bool):
        raise ValueError(f"there is {shown(type(value).__name__)} where {kind} belongs")
    return value


def _text(value: Any) -> str:
    return _of(str, value)


def _called(value: Any, *names: str) -> str:
    """The name of the class that a value was of, one of `names`, without its module."""
    is_class = isinstance(value, type) and issubclass(value, Value)
    name = value.name if is_class or isinstance(value, Value) else type(value).__name__
    if not any(name == wanted or name.endswith(f".{wanted}") for wanted in names):
        raise ValueError(f"there is {shown(name)} where {names[0]} belongs")
    return name.rpartition(".")[2]


def _fields(value: Any, kind: type) -> dict[str, Any]:
    """The fields of a dataclass of torch's, as far as this torch knows them."""
    _called(value, kind.__name__)
    known = {field.name for field in fields(kind)}
    return {key: one for key, one in _of(dict, value.state or {}).items() if key in known}


def _size(value: Any) -> torch.Size:
    _called(value, "Size")
    (numbers,) = value.arguments
    return torch.Size([_of(int, number) for number in numbers])


def _entry(value: Any) -> TensorStorageMetadata | BytesStorageMetadata:
    if _called(value, "TensorStorageMetadata", "BytesStorageMetadata") == "BytesStorageMetadata":
        return BytesStorageMetadata()
    entry = _fields(value, TensorStorageMetadata)
    _called(entry["properties"], "TensorProperties")
    number = getattr(entry["properties"].state[0], "name", "")
    dtype = vars(torch).get(number.removeprefix("torch."))
    if not isinstance(dtype, torch.dtype):
        raise ValueError(f"there is {shown(number)} where a kind of number belongs")
    chunks = [
        ChunkStorageMetadata(**{key: _size(one) for key, one in _fields(chunk, ChunkStorageMetadata).items()})
        for chunk in _of(list, entry["chunks"])
    ]
    return TensorStorageMetadata(TensorProperties(dtype), _size(entry["size"]), chunks)


def _place(value: Any) -> dict[str, Any]:
    place = _fields(value, MetadataIndex)
    offset, index = place.get("offset"), place.get("index")
    return {
        "fqn": _text(place["fqn"]),
        "offset": None if offset is None else _size(offset),
        "index": None if index is None else _of(int, index),
    }


def _part(value: Any) -> _StorageInfo:
    part = _fields(value, _StorageInfo)
    name = _text(part["relative_path"])
    if part.get("transform_descriptors") or Path(name).name != name or name in ("", ".."):
        raise ValueError(f"it names the file {shown(name)}, which is none of a checkpoint's own")
    return _StorageInfo(name, _of(int, part["offset"]), _of(int, part["length"]))


class _Part(io.RawIOBase):
    """So many bytes of a file as a file of their own. (torch's own view does not read as far as its end.)"""

    def __init__(self, file: BinaryIO, begin: int, length: int):
        self._file, self._begin, self._length, self._here = file, begin, length, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._here = max((0, self._here, self._length)[whence] + offset, 0)
        return self._here

    def readinto(self, buffer: Any) -> int:
        self._file.seek(self._begin + self._here)
        data = self._file.read(max(min(len(buffer), self._length - self._here), 0))
        buffer[: len(data)] = data
        self._here += len(data)
        return len(data)


class Reader(FileSystemReader):
    """torch's reader of a checkpoint's parts, with an index that is read and not run."""

    def read_metadata(self, *_: Any, **__: Any) -> Metadata:
        index = read_index(Path(self.path) / ".metadata")
        index.storage_meta = StorageMeta(load_id=getattr(self, "load_id", None))
        return index

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Future[None]:
        """torch's, after each part that is wanted was looked through; raises CheckpointError."""
        for item in plan.items:
            part = self.storage_data[item.storage_index]
            path = Path(self.path) / part.relative_path
            with open(path, "rb") as file:
                look_through(path, io.BufferedReader(_Part(file, part.offset, part.length)))
        return super().read_data(plan, planner)


class Planner(DefaultLoadPlanner):
    """torch's planner, which reads what is no tensor as it reads tensors: nothing in it is run."""

    def load_bytes(self, read_item: ReadItem, value: io.BytesIO) -> None:
        torch.load(value, weights_only=True)  # raises for what is more than plain values and tensors
        value.seek(0)
        super().load_bytes(read_item, value)
