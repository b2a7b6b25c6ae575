"""Pictures of a grid on disk: each is there whole, or not at all."""

import io
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

import numpy as np

from ..errors import InputError, shown
from ..files import whole
from ..files.picture import open_picture
from .cell import Cell

AnyCell = TypeVar("AnyCell", bound=Cell)
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


class Store:
    """A folder of pictures named after their cells' keys."""

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        whole.clear(self.folder)

    def path(self, key: str) -> Path | None:
        """The picture's file, or None where it is missing."""
        for suffix in SUFFIXES:
            path = self.folder / (key + suffix)
            if path.is_file():
                return path
        return None

    def missing(self, cells: Iterable[AnyCell]) -> list[AnyCell]:
        """The cells without a picture, each key once."""
        return [cell for cell in {cell.key: cell for cell in cells}.values() if self.path(cell.key) is None]

    def is_begun(self) -> bool:
        """Whether a picture is there already."""
        return any(path.suffix in SUFFIXES for path in self.folder.iterdir())

    def put(self, key: str, data: bytes) -> Path:
        """Keep the bytes of a picture file, as PNG where they are of a kind without a known ending.

        Raises InputError where they are no whole picture.
        """
        picture = open_picture(data, f"the picture of cell {key}")
        suffix = {"PNG": ".png", "JPEG": ".jpg", "WEBP": ".webp"}.get(picture.format or "")
        if suffix is None:
            buffer, suffix = io.BytesIO(), ".png"
            picture.save(buffer, "PNG")
            data = buffer.getvalue()
        path = self.folder / (key + suffix)
        whole.write(path, data)
        for other in SUFFIXES:
            if other != suffix:
                (self.folder / (key + other)).unlink(missing_ok=True)
        return path


def read_picture(source: Path | bytes) -> np.ndarray:
    """A picture file as uint8 [H, W, 3], RGB, turned upright as its EXIF data says. Raises InputError."""
    from PIL import ImageOps

    data = source if isinstance(source, bytes) else Path(source).read_bytes()
    name = str(source) if isinstance(source, Path) else "the picture"
    picture = open_picture(data, name)
    try:
        ImageOps.exif_transpose(picture, in_place=True)
        return np.array(picture if picture.mode == "RGB" else picture.convert("RGB"))
    except Exception as error:  # EXIF data can be damaged too
        raise InputError(f"{shown(name)} is damaged ({shown(error)})") from error
