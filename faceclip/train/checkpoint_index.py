"""Reading a training checkpoint's parts without running what its files say.

torch keeps the index of the parts (`.metadata`) as a pickle and its reader runs it; what is no tensor (a learning rate)
it unpickles likewise. Here the index is read into plain values, each of which is held against what torch writes there,
and only then becomes torch's own index; and everything else is read with `weights_only=True`.
"""

import io
import pickle
from dataclasses import fields
from pathlib import Path
from typing import Any, ClassVar

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
from torch.distributed.checkpoint.planner import ReadItem

from ..errors import CheckpointError, shown

_LARGEST = 256 * 2**20  # bytes of an index; one of the published sizes has about 2 MB


class _Value:
    """What a pickle makes of a class: nothing but its name, what it is called with, and its state."""

    name: ClassVar[str] = ""
    arguments: tuple[Any, ...] = ()
    state: Any = None

    def __new__(cls, *arguments: Any) -> "_Value":
        self = object.__new__(cls)
        self.arguments = arguments
        return self

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _PlainUnpickler(pickle._Unpickler):
    """Builds numbers, texts, lists, tables and _Value; a class that it meets is not looked up.

    It is the one written in Python: the one in C keeps a table as long as the largest number that a pickle names.
    """

    def find_class(self, module: str, name: str) -> type[_Value]:
        return type("_Value", (_Value,), {"name": f"{module}.{name}"})

    def get_extension(self, code: int) -> None:
        raise pickle.UnpicklingError("it names a class by number")

    def no_bytes(self) -> None:
        raise pickle.UnpicklingError("it holds bytes to be changed")  # room for as many as it says is made at once

    dispatch: ClassVar[dict[int, Any]] = {**pickle._Unpickler.dispatch, pickle.BYTEARRAY8[0]: no_bytes}

    def persistent_load(self, pid: Any) -> None:
        raise pickle.UnpicklingError("it names something outside")


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
    index = _fields(_PlainUnpickler(io.BytesIO(data)).load(), Metadata)
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
    is_class = isinstance(value, type) and issubclass(value, _Value)
    name = value.name if is_class or isinstance(value, _Value) else type(value).__name__
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


class Reader(FileSystemReader):
    """torch's reader of a checkpoint's parts, with an index that is read and not run."""

    def read_metadata(self, *_: Any, **__: Any) -> Metadata:
        index = read_index(Path(self.path) / ".metadata")
        index.storage_meta = StorageMeta(load_id=getattr(self, "load_id", None))
        return index


class Planner(DefaultLoadPlanner):
    """torch's planner, which reads what is no tensor as it reads tensors: nothing in it is run."""

    def load_bytes(self, read_item: ReadItem, value: io.BytesIO) -> None:
        torch.load(value, weights_only=True)  # raises for what is more than plain values and tensors
        value.seek(0)
        super().load_bytes(read_item, value)
