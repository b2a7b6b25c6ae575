"""The photo the demo and the host tests use, and where a face detector may lie on this machine."""

import io
import os
from pathlib import Path

from .server_errors import SetupError

YUNET_PATTERN = "face_detection_yunet*.onnx"

# Left eye, right eye, nose, left and right mouth corner of scikit-image's 512 x 512 `astronaut`, in pixels,
# as YuNet finds them; with them the demo needs no detector.
ASTRONAUT_LANDMARKS = ((200.1, 101.8), (247.1, 102.6), (220.4, 124.5), (198.6, 142.8), (239.7, 143.6))


def astronaut_png() -> bytes:
    """The photo of an astronaut that comes with scikit-image (NASA, public domain), 512 x 512, as a PNG file."""
    return _png(_astronaut())


def astronaut_face_png() -> bytes:
    """The astronaut's face, aligned to 448 x 448 by known landmarks, as a PNG file."""
    from ..faces.align import align

    crop = align(_astronaut().astype("float32") / 255.0, ASTRONAUT_LANDMARKS)
    return _png((crop * 255.0).round().astype("uint8"))


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


def _astronaut():
    try:
        from skimage import data
    except ImportError as error:
        raise SetupError(
            "scikit-image, whose photo the demo uses, is not installed; it comes with insightface: "
            "pip install -r requirements.txt"
        ) from error
    return data.astronaut()


def _png(pixels) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()
