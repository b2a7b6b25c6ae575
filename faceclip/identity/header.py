"""What a saved identity's header says, and the names it may have. Needs no torch, so that the doctor can use it."""

import json
import math
import re
import unicodedata
from collections.abc import Mapping

from ..errors import CheckpointError, InputError, shown

KIND = "faceclip_identity"
VERSION = 1
SUFFIX = ".safetensors"
RESERVED = {"con", "prn", "aux", "nul", *(f"{kind}{i}" for kind in ("com", "lpt") for i in range(1, 10))}
_SIGNS = "-_+(). '"
_LONGEST, _LONGEST_BYTES = 100, 200  # file systems take 255 bytes; a counter and the ending come on top
# Letters and marks by their class that show nothing: two names with and without them look the same.
_INVISIBLE = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]")


def check_name(name: str) -> str:
    """A file name without its ending that can't leave its folder on any system; raises InputError.

    Compatibility forms are resolved first (NFKC), so that look-alikes of `/`, `.` and letters count as what they look
    like. Letters of all languages with their marks, digits, spaces and -_+().' are allowed.
    """
    clean = unicodedata.normalize("NFKC", name).strip() if isinstance(name, str) else ""
    clean = clean.removesuffix(SUFFIX)
    fits = 0 < len(clean) <= _LONGEST and len(clean.encode("utf-8", "replace")) <= _LONGEST_BYTES
    classes = [unicodedata.category(sign)[0] for sign in clean]  # L letters, M the marks many scripts write vowels with
    known = all(sign in _SIGNS or kind in "LMN" for sign, kind in zip(clean, classes, strict=True))
    known = known and classes[:1] != ["M"] and not _INVISIBLE.search(clean)
    if not (fits and known) or clean.startswith(".") or clean.endswith((".", " ")) or ".." in clean:
        raise InputError(
            f"The name {shown(repr(name))} cannot be used for an identity. Wanted: 1 to {_LONGEST} letters "
            f"({_LONGEST_BYTES} bytes), digits, spaces or -_+().' without folders, not starting or ending with a dot."
        )
    if clean.split(".")[0].lower().strip() in RESERVED:
        raise InputError(f"The name {name!r} is reserved by Windows. Choose another.")
    return clean


def check_header(name: str, metadata: Mapping[str, str]) -> tuple[float, ...]:
    """The references' shares, from the metadata of a saved identity. name: the file's, for messages.

    Raises CheckpointError for a file of another kind, of another format version, or with a damaged header.
    """
    if metadata.get("kind") != KIND:
        raise CheckpointError(f"{name} is no saved identity. Choose a file made by Save Identity.")
    if metadata.get("version") != str(VERSION):
        raise CheckpointError(
            f"{name} has format version {shown(metadata.get('version'))}, this pack reads {VERSION}. "
            f"It was made by {shown(metadata.get('created_by', 'an unknown version'))}; update ComfyUI-FaceCLIP."
        )
    try:
        shares = tuple(float(share) for share in json.loads(metadata["shares"]))
        if not 0 < len(metadata["encoder"]) <= _LONGEST_BYTES:
            raise ValueError("it does not say which encoder read it")
    except (KeyError, ValueError, TypeError, ArithmeticError, RecursionError) as error:
        raise CheckpointError(f"{name} is damaged ({shown(error)}). Save the identity again.") from error
    if not shares or not math.isclose(sum(shares), 1, abs_tol=1e-6) or min(shares) <= 0:
        raise CheckpointError(f"{name} is damaged (shares {shown(shares)} do not sum to 1). Save the identity again.")
    return shares
