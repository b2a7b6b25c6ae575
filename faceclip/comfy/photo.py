"""Where a face detector may lie on this machine."""

import os
from pathlib import Path

from .server_errors import SetupError

YUNET_PATTERN = "face_detection_yunet*.onnx"


def find_yunet(folders: tuple[Path, ...] = ()) -> Path | None:
    """A YuNet file on this machine: FACECLIP_YUNET, else in `folders`, else None.

    Raises SetupError if FACECLIP_YUNET names no file.
    """
    named = os.environ.get("FACECLIP_YUNET")
    if named:
        if not Path(named).is_file():
            raise SetupError(f"FACECLIP_YUNET is {named}, which is no file; name the .onnx file, or unset it.")
        return Path(named)
    found = (path for folder in folders for path in sorted(folder.glob(YUNET_PATTERN)))
    return next(found, None)
