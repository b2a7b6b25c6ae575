"""The photo the host tests upload: scikit-image's `astronaut` (NASA, public domain), 512 x 512, as PNG files."""

import io

from faceclip.faces.align import align

# Left eye, right eye, nose, left and right mouth corner, in pixels, as YuNet finds them.
LANDMARKS = ((200.1, 101.8), (247.1, 102.6), (220.4, 124.5), (198.6, 142.8), (239.7, 143.6))


def astronaut_png() -> bytes:
    """The photo as it is."""
    return _png(_astronaut())


def astronaut_face_png() -> bytes:
    """The face, aligned to 448 x 448."""
    return _png((align(_astronaut().astype("float32") / 255.0, LANDMARKS) * 255.0).round().astype("uint8"))


def _astronaut():
    from skimage import data

    return data.astronaut()


def _png(pixels) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()
