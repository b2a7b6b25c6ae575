"""The pictures that the examples open with: cartoon people that come along, and a photo that scikit-image brings."""

import importlib.util
import shutil
from collections.abc import Iterator
from pathlib import Path

from .models import FOLDER

PHOTO = "astronaut.png"  # NASA, public domain; scikit-image comes with insightface


def cartoons() -> list[Path]:
    """The cartoon people's pictures; those named `*_face.png` are aligned crops of 448 px."""
    return sorted(FOLDER.glob("cartoon_*.png"))


def place_examples(folder: Path) -> list[str]:
    """Copy the examples' pictures into ComfyUI's input folder; returns the names of those that were not there.

    A picture of that name is left alone, whatever it shows. Raises OSError.
    """
    placed = []
    for picture in (*cartoons(), *_photo()):
        target = folder / picture.name
        if not target.exists():
            shutil.copyfile(picture, target)
            placed.append(target.name)
    return placed


def _photo() -> Iterator[Path]:
    # Found, not imported: that would take a second of every start.
    found = importlib.util.find_spec("skimage")
    for folder in found.submodule_search_locations or () if found else ():
        path = Path(folder) / "data" / PHOTO
        if path.is_file():
            yield path
