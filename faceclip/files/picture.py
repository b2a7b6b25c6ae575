"""Opening picture files: what they are and how large they say they are is looked at before they are unpacked."""

import io
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..errors import InputError, shown

if TYPE_CHECKING:
    from PIL.Image import Image

# What photos come in. Pillow knows more, among them PostScript, which it hands to another program to run.
FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "BMP", "DIB", "TIFF", "GIF", "AVIF")
# A file may have so many pixels whatever its size (a phone's 12 megapixels), and more by its bytes: a photo has about
# one byte in four pixels, and a file that has one in hundreds unpacks to memory and to nothing else.
_ALWAYS, _PER_BYTE, _AT_MOST = 12_500_000, 16, 200_000_000
_TILE_SIZE_TAGS = (322, 323)  # of TIFF


def open_picture(
    data: bytes,
    name: str = "the picture",
    at_least: tuple[int, int] | None = None,
    formats: Sequence[str] = FORMATS,
) -> "Image":
    """The first picture of a file, unpacked, in its own mode, not turned.

    name: for messages. at_least: width and height that are enough; a JPEG is then unpacked at a half, a quarter or an
    eighth of its size where that is as large, which takes less time. formats: that may be read, by
    Pillow's names. Raises InputError for what is no picture, damaged, or larger than its bytes can fill.
    """
    from PIL import Image, UnidentifiedImageError

    name = shown(name)
    Image.init()  # some kinds are known no earlier, and no build knows all
    known = [kind for kind in formats if kind in Image.OPEN]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit here is another
            picture = Image.open(io.BytesIO(data), formats=known)
        _check_size(picture, len(data), name)
        if at_least is not None:
            picture.draft(None, at_least)
        picture.load()
    except InputError:
        raise
    except Image.DecompressionBombError as error:
        raise InputError(f"{name} is too large to unpack ({shown(error)})") from error
    except MemoryError:
        raise
    except Exception as error:  # a damaged file can make a decoder raise anything
        unknown = isinstance(error, UnidentifiedImageError)
        reason = f"it begins with {data[:16]!r}" if unknown else shown(error) or type(error).__name__
        raise InputError(f"{name} is no whole picture: it is damaged, or no picture at all ({reason})") from error
    return picture


def _check_size(picture: "Image", size: int, name: str) -> None:
    width, height = picture.size
    # A tile is unpacked whole, however little of it belongs to the picture.
    tile = [int(getattr(picture, "tag_v2", {}).get(tag, 0)) for tag in _TILE_SIZE_TAGS]
    pixels, most = max(width * height, tile[0] * tile[1]), min(_AT_MOST, max(_ALWAYS, _PER_BYTE * size))
    if pixels > most:
        raise InputError(
            f"{name} is {width} x {height} px and would unpack to {pixels / 1e6:.0f} million pixels out of {size:,} "
            f"bytes, at most {most / 1e6:.0f} million are wanted. Save it smaller"
        )


def upright_rgb(picture: "Image") -> "Image":
    """Turned as its EXIF data says, in RGB; what is transparent becomes white, and 16 bits of grey become 8."""
    import numpy as np
    from PIL import Image, ImageOps

    ImageOps.exif_transpose(picture, in_place=True)
    if picture.mode == "RGB":
        return picture
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, picture).convert("RGB")
    if picture.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8)).convert("RGB")
    return picture.convert("RGB")
