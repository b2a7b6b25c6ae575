"""What a safetensors file says of itself, held against its bytes before anything is done with it. Needs no torch."""

import json
import os
from dataclasses import dataclass, field

from ..errors import shown

LONGEST = 100 * 2**20  # bytes of a header; the published UNet's has 0.2 MB
LONGEST_KEY = 500  # characters of a weight's name
MOST_KEYS = 100_000
_BITS = {  # of one number
    **dict.fromkeys(("F64", "I64", "U64"), 64),
    **dict.fromkeys(("F32", "I32", "U32"), 32),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 16),
    **dict.fromkeys(("F8_E4M3", "F8_E5M2", "I8", "U8", "BOOL"), 8),
    "C64": 64,
}


class Damage(ValueError):
    """What is wrong with a file, as words that follow its name: "is truncated: 5 of 10 bytes"."""


@dataclass(frozen=True)
class Entry:
    """One weight: its kind of number (BF16, ...) and its shape."""

    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Header:
    """metadata: text by name. tensors: in the file's order. length: bytes before the weights begin."""

    metadata: dict[str, str] = field(default_factory=dict)
    tensors: dict[str, Entry] = field(default_factory=dict)
    length: int = 0


def begins_like_one(path: str | os.PathLike) -> bool:
    """Whether the file begins as safetensors files do, whatever follows."""
    with open(path, "rb") as file:
        return file.read(9)[8:] == b"{"


def header_text(path: str | os.PathLike) -> bytes:
    """The JSON text that the file begins with. Damage where it has none, or claims more than its bytes."""
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or file.read(1) != b"{":
            raise Damage("is no model file, or its beginning is damaged")
        if length > size - 8:
            raise Damage(f"is truncated or damaged: its header can't be read, in {size} bytes")
        if length > LONGEST:
            raise Damage(f"has a header of {length} bytes, wanted at most {LONGEST}")
        return b"{" + file.read(length - 1) if length else b""


def read_header(path: str | os.PathLike, any_dtype: bool = False) -> Header:
    """The header, whole and true to the file's size. Damage where it is not; OSError as the system raises it.

    any_dtype: whether kinds of numbers that nothing here can use (4-bit ones, ...) are let pass, their sizes unchecked.
    """
    text = header_text(path)
    try:
        table = json.loads(text)
    except (ValueError, RecursionError) as error:  # RecursionError: brackets in brackets
        raise Damage("is truncated or damaged: its header is no JSON") from error
    metadata = table.pop("__metadata__", None) or {}
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise Damage("is damaged: what its header tells (`__metadata__`) is not all text")
    if len(table) > MOST_KEYS:
        raise Damage(f"names {len(table)} weights, wanted at most {MOST_KEYS}")
    tensors, spans = {}, []
    for key, value in table.items():
        tensors[key], span = _entry(key, value, any_dtype)
        spans.append(span)
    _check_spans(spans, os.path.getsize(path) - 8 - len(text), 8 + len(text))
    return Header(metadata, tensors, 8 + len(text))


def _entry(key: str, value: object, any_dtype: bool) -> tuple[Entry, tuple[int, int]]:
    if len(key) > LONGEST_KEY:
        raise Damage(f"has a weight's name of {len(key)} characters, wanted at most {LONGEST_KEY}: {shown(key, 60)}")
    if not isinstance(value, dict) or not {"dtype", "shape", "data_offsets"} <= value.keys():
        raise Damage(f"is damaged: its header does not say what {shown(key)} is")
    dtype, shape, span = value["dtype"], value["shape"], value["data_offsets"]
    if not (_are_counts(shape) and _are_counts(span) and len(span) == 2 and span[0] <= span[1]):
        raise Damage(f"is damaged: {shown(key)} has the shape {shown(shape, 60)} at {shown(span, 60)}")
    if any_dtype and isinstance(dtype, str) and dtype not in _BITS:
        return Entry(dtype, tuple(shape)), (span[0], span[1])
    if not isinstance(dtype, str) or dtype not in _BITS:
        raise Damage(
            f"stores {shown(key)} as {shown(dtype, 60)}, which cannot be used: plain floating point weights are "
            "wanted, not quantised ones"
        )
    bits = _BITS[dtype]
    for length in shape:
        bits *= length
    if bits != 8 * (span[1] - span[0]):
        raise Damage(f"is damaged: {shown(key)} of {dtype} {shown(shape, 60)} does not take {span[1] - span[0]} bytes")
    return Entry(dtype, tuple(shape)), (span[0], span[1])


def _are_counts(value: object) -> bool:
    return isinstance(value, list) and all(type(one) is int and 0 <= one < 2**63 for one in value)


def _check_spans(spans: list[tuple[int, int]], there: int, length: int) -> None:
    """The weights lie one behind the other, and the file ends with the last."""
    end = max((span[1] for span in spans), default=0)
    if there < end:
        raise Damage(f"is truncated: {length + there} of {length + end} bytes")
    if there > end:
        raise Damage(f"is {there - end} bytes too long")
    place = 0
    for begin, stop in sorted(spans):
        if begin != place:
            raise Damage("is damaged: its weights lie over each other, or leave a gap")
        place = stop
