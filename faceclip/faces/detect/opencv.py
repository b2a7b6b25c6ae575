"""OpenCV's own networks: its import, and files that it is trusted with.

OpenCV's reader of ONNX dies with its whole process on some damaged files, so it gets bytes whose SHA-256 is known.
"""

import hashlib
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from ...errors import CheckpointError, DependencyError, ModelNotFoundError, shown
from ...install.published import PublishedFile

_LARGEST = 64 * 2**20  # bytes


def import_cv2(needed: str) -> ModuleType:
    """OpenCV, which must have the class `needed`. DependencyError with what mends it otherwise."""
    try:
        import cv2
    except Exception as error:  # a broken binary raises more than ImportError
        raise DependencyError(
            f"Face detection needs OpenCV, which cannot be imported ({error}). Run: python -m pip install opencv-python"
        ) from error
    if not hasattr(cv2, needed):
        raise DependencyError(
            f"OpenCV {cv2.__version__} has no {needed}; 4.8 or newer is wanted. "
            "Run: python -m pip install --upgrade opencv-python"
        )
    return cv2


def read_trusted(
    path: Path, wanted: PublishedFile, what: str, trusted: Callable[[str], bool], otherwise: str = ""
) -> bytes:
    """The bytes of a network's file. what: "YuNet face detector". trusted(SHA-256) decides whether OpenCV may open it.

    ModelNotFoundError if it is not there, CheckpointError if it cannot be read or is not trusted; `otherwise` ends that
    message.
    """
    if not path.is_file():
        raise ModelNotFoundError(f"There is no file {path}. {wanted.source}")
    try:
        if (size := path.stat().st_size) > _LARGEST:
            raise CheckpointError(
                f"{path} has {size} bytes and is no {what}: {wanted.name} has {wanted.size}. Delete it and get it "
                f"again. {wanted.source}"
            )
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}. Check its rights.") from error
    digest = hashlib.sha256(data).hexdigest()
    if not trusted(digest):
        raise CheckpointError(
            f"{path} is not the published {what}: it is damaged, not fully downloaded or another model "
            f"({len(data)} bytes, SHA-256 {digest[:12]}...; {wanted.name} has {wanted.size}). It was not opened, since "
            f"a damaged one can end all of ComfyUI. Delete it and get it again. {wanted.source}{otherwise}"
        )
    return data


def open_network(create: Callable[..., Any], data: bytes, *settings: Any) -> Any:
    """One of OpenCV's networks out of a file's bytes. create: that of its class; settings: what comes behind the file.

    Bytes, not the path: OpenCV cannot open paths outside the code page on Windows.
    """
    model, none = np.frombuffer(data, dtype=np.uint8), np.empty(0, dtype=np.uint8)
    try:
        return create("onnx", model, none, *settings)
    except TypeError:  # an older OpenCV, which takes paths only
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "network.onnx"
            path.write_bytes(data)
            return create(str(path), "", *settings)


def first_line(error: BaseException) -> str:
    """What OpenCV says, in a line."""
    return shown((str(error).strip().splitlines() or [type(error).__name__])[0])
