"""Reading torch's `.pt` files: looked through before torch builds anything, so that a small one cannot grow large.

`weights_only=True` runs no code, but it builds whatever tensors the file asks for: sparse ones, ones without values,
views that spread a few bytes over gigabytes. Here a file may ask for plain tensors out of its own bytes.
"""

import contextlib
import gc
import io
import os
import pickle
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, cast

import torch

from ..errors import CheckpointError, shown
from .plain_pickle import PlainUnpickler, Value

_LONGEST_PICKLE = 256 * 2**20  # bytes of a file's list of contents; the published UNet's has 0.2 MB
_LEGACY_PICKLES = 5  # of torch's format before 1.6: magic number, version, system, contents, keys
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C

# Opcodes of which torch writes none: they build objects in other ways than by calling what a name stands for.
_BUILDERS = (pickle.STACK_GLOBAL, pickle.INST, pickle.OBJ, pickle.NEWOBJ_EX, pickle.EXT1, pickle.EXT2, pickle.EXT4)
# Bytes of a number in each kind of storage.
_ITEM_SIZES = {
    f"{kind}Storage": size
    for size, kinds in (
        (1, ("Untyped", "Byte", "Char", "Bool", "QInt8", "QUInt8", "QUInt4x2", "QUInt2x4")),
        (2, ("Half", "BFloat16", "Short")),
        (4, ("Float", "Int", "QInt32")),
        (8, ("Double", "Long", "ComplexFloat")),
        (16, ("ComplexDouble",)),
    )
    for kind in kinds
}

# What a file of plain tensors asks for. Types and dtypes are no functions that a file could call with a size.
_PLAIN = re.compile(
    r"(torch\._utils _rebuild_(tensor|tensor_v2|tensor_v3|parameter|parameter_with_state))"
    r"|(torch\.nn\.parameter Parameter)|(torch\.storage (UntypedStorage|TypedStorage))|(torch (\w+Storage|Size|device))"
    r"|(collections (OrderedDict|Counter|defaultdict))|((builtins|__builtin__) (set|complex|dict|list))"
)
_ODD = (  # the function that a file asks for -> what its tensors are
    ("_rebuild_sparse", "sparse tensors"),
    ("_rebuild_nested", "nested tensors"),
    ("_rebuild_meta", "tensors without values (of the device meta)"),
    ("_rebuild_qtensor", "quantised tensors"),
    ("_rebuild_wrapper_subclass", "tensors of a class of their own"),
    ("_rebuild_from_type", "tensors of a class of their own"),
    ("_rebuild_device_tensor", "tensors of another device's own kind"),
    ("_get_layout", "sparse tensors"),
)


def read_torch(path: Path, data: bytes | None) -> object:
    """What torch.save wrote: a state dict, or what a trainer put around one.

    data: the file's bytes, or None for a large file, whose tensors stay in it. Raises CheckpointError for a file that
    is damaged, unsafe, or asks for more than its bytes hold.
    """
    try:
        with _without_collecting():
            with open(path, "rb") if data is None else io.BytesIO(data) as file:
                look_through(path, file)
            source = path if data is None else io.BytesIO(data)
            mapped = data is None and zipfile.is_zipfile(path)
            return torch.load(source, map_location="cpu", weights_only=True, mmap=mapped)
    except CheckpointError:
        raise
    except Exception as error:  # a damaged file can raise anything
        words = str(error)
        if "TorchScript" in words or (isinstance(error, pickle.UnpicklingError) and "GLOBAL" in words):
            raise _objects(path, "") from error
        raise CheckpointError(
            f"{shown(path.name)} ({size_of(path)}) cannot be read as a checkpoint ({_reason(path, error)}). "
            "It is truncated, damaged or no checkpoint at all; download it again."
        ) from error


@contextlib.contextmanager
def _without_collecting() -> Iterator[None]:
    """Python looks through all that there is again and again while a pickle makes a million lists: half of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def size_of(path: Path) -> str:
    """A file's size in words."""
    return f"{path.stat().st_size:,} bytes"


def first_line(error: Exception) -> str:
    """The beginning of what another package says."""
    return shown((str(error).strip().splitlines() or [type(error).__name__])[0].rstrip("."))


def _reason(path: Path, error: Exception) -> str:
    if isinstance(error, pickle.UnpicklingError):
        return "its pickle is damaged"  # torch's own text advises to load it unsafely
    with open(path, "rb") as file:
        is_zip = file.read(2) == b"PK"
    try:
        if is_zip and not zipfile.is_zipfile(path):
            return "its end is missing"
    except zipfile.BadZipFile:  # of an end that names other files beside this one
        return "its end is damaged"
    return first_line(error)


def look_through(path: Path, file: BinaryIO) -> None:
    """Raise CheckpointError where what torch.save wrote asks for more than plain tensors out of its own bytes.

    path: for messages. Anything may be raised where the file is damaged.
    """
    if not zipfile.is_zipfile(file):
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        for number in range(_LEGACY_PICKLES):
            reader = _Reader(path, file)
            if reader.load() != _LEGACY_MAGIC and number == 0:
                raise ValueError("it does not begin as torch's files do")
            if sum(reader.storages.values()) > size:
                raise ValueError("it names more bytes of weights than it has")
        return
    file.seek(0)
    contents, sizes = _contents(file)
    reader = _Reader(path, io.BytesIO(contents))
    reader.load()
    for key, wanted in reader.storages.items():
        if sizes.get(key) != wanted:
            # Some releases of torch read on behind the part.
            raise ValueError(f"it names {wanted} bytes of weights where {sizes.get(key, 0)} are")


def _contents(file: BinaryIO) -> tuple[bytes, dict[str, int]]:
    """The list of contents in a zip file whose parts lie in it as they are, each once; and the storages' sizes by name.

    ValueError for another.
    """
    end = file.seek(0, os.SEEK_END)
    with zipfile.ZipFile(file) as archive:
        parts = archive.infolist()
        if any(part.filename.endswith("/constants.pkl") for part in parts):
            raise ValueError("TorchScript")
        for part in parts:
            if part.compress_type != zipfile.ZIP_STORED or part.file_size != part.compress_size:
                raise ValueError("its parts are compressed, which torch's never are")
        if sum(part.file_size for part in parts) > end or len({part.filename for part in parts}) < len(parts):
            raise ValueError("its parts lie over each other")
        contents = [part for part in parts if part.filename.endswith("/data.pkl")]
        if len(contents) != 1 or contents[0].file_size > _LONGEST_PICKLE:
            raise ValueError("it has no list of contents" if not contents else "its list of contents is too long")
        place = contents[0].filename.removesuffix(".pkl") + "/"
        sizes = {part.filename.removeprefix(place): part.file_size for part in parts if part.filename.startswith(place)}
        return archive.read(contents[0]), sizes


class _Reader(PlainUnpickler):
    """Reads the next pickle in a file, which may ask for nothing but plain tensors. storages: name -> bytes of each."""

    def __init__(self, path: Path, file: BinaryIO):
        super().__init__(cast(BinaryIO, _Bounded(file)))
        self.path, self.storages = path, dict[str, int]()

    def find_class(self, module: str, name: str) -> type[Value]:
        _check_name(self.path, f"{module} {name}")
        return super().find_class(module, name)

    def persistent_load(self, pid: Any) -> Value:
        kind, storage, key, _, count = pid[:5]
        if kind != "storage" or not isinstance(key, str) or type(count) is not int:
            raise ValueError("it names something else than its weights")
        itemsize = _ITEM_SIZES.get(storage.name.rpartition(".")[2])
        if itemsize is None or self.storages.setdefault(key, count * itemsize) != count * itemsize:
            raise ValueError("it names the same weights as several kinds of numbers")
        return Value()

    def refused(self) -> None:
        raise _objects(self.path, "")

    dispatch: ClassVar[dict[int, Any]] = {
        **PlainUnpickler.dispatch,
        **dict.fromkeys((code[0] for code in _BUILDERS), refused),
    }


class _Bounded:
    """A file for a pickle's reader, which asks for as many bytes as a pickle says, be it more than there are."""

    def __init__(self, file: BinaryIO):
        self._file = file
        here = file.tell()
        self._left = file.seek(0, os.SEEK_END) - here
        file.seek(here)
        self._left = min(self._left, _LONGEST_PICKLE)

    def read(self, size: int) -> bytes:
        return self._taken(self._file.read(min(size, self._left)))

    def readline(self) -> bytes:
        return self._taken(self._file.readline(self._left))

    def tell(self) -> int:
        return self._file.tell()

    def _taken(self, data: bytes) -> bytes:
        self._left -= len(data)
        return data


def _check_name(path: Path, name: str) -> None:
    module, _, last = name.partition(" ")
    if _PLAIN.fullmatch(name) or (module == "torch" and isinstance(vars(torch).get(last), torch.dtype)):
        return
    for function, words in _ODD:
        if module.startswith("torch") and last.startswith(function):
            raise CheckpointError(
                f"{shown(path.name)} holds {words} ({shown(name.replace(' ', '.'))}). Wanted: plain floating point "
                "weights. Save them dense, on the CPU and not quantised, where the file comes from, or choose the "
                "original."
            )
    raise _objects(path, f" ({shown(name.replace(' ', '.'))})")


def _objects(path: Path, which: str) -> CheckpointError:
    return CheckpointError(
        f"{shown(path.name)} holds pickled Python objects{which}, not just weights, and loading it would run code from "
        "the file; it is refused. Save only the state dict (`torch.save(model.state_dict(), ...)`) where the file "
        "comes from, or use a .safetensors file."
    )


def check_tensors(state: dict[str, torch.Tensor], path: Path) -> None:
    """Raise CheckpointError unless the tensors are dense and take no more room than the file has for them.

    A view can spread the bytes of a small file over any size: one number over a matrix, or one matrix under a thousand
    names. Both face encoders may be one and the same, so twice the file's size is fine.
    """
    odd = [key for key, value in state.items() if _form(value)]
    if odd:
        words = _form(state[odd[0]])
        raise CheckpointError(
            f"{shown(path.name)} holds {words} tensors: {len(odd)}, such as {shown(odd[0])}. Wanted: plain, dense "
            "weights. Save them so where the file comes from, or choose the original."
        )
    size = sum(value.numel() * value.element_size() for value in state.values())
    if size > 2 * path.stat().st_size:
        raise CheckpointError(
            f"{shown(path.name)} ({size_of(path)}) names {size:,} bytes of weights, many times what lies in it: they "
            "are views of a few bytes (`expand`). Save them whole (`.contiguous()`) where the file comes from."
        )


def _form(value: torch.Tensor) -> str:
    if value.is_nested:
        return "nested"
    if value.layout != torch.strided:
        return "sparse"
    if value.is_meta:
        return "empty (meta)"
    if value.is_quantized:
        return "quantised"
    spread = any(step == 0 and length > 1 for step, length in zip(value.stride(), value.shape, strict=True))
    return "expanded (stride 0)" if spread else ""
