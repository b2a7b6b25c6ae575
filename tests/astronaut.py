"""The face in scikit-image's photo `astronaut` (NASA, public domain), as the host tests upload it."""

import io

from faceclip.faces.align import align

# Left eye, right eye, nose, left and right mouth corner, in pixels of the 512 x 512 photo, as YuNet finds them.
LANDMARKS = ((200.1, 101.8), (247.1, 102.6), (220.4, 124.5), (198.6, 142.8), (239.7, 143.6))


def astronaut_face_png() -> bytes:
    """The face, aligned to 448 x 448, as a PNG file."""
    from PIL import Image
    from skimage import data

    crop = align(data.astronaut().astype("float32") / 255.0, LANDMARKS)
    buffer = io.BytesIO()
    Image.fromarray((crop * 255.0).round().astype("uint8")).save(buffer, "PNG")
    return buffer.getvalue()
