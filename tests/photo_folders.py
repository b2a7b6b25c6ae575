"""What the tests of `prepare` share: folders of drawn photos, a detector that says what it was told, reading back."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from faceclip.faces.detect.base import Detection
from faceclip.train.prepare import crops, photos, shard_writer
from faceclip.train.prepare.crops import Filter

LOOSE = Filter(min_side=100, resolution=0, min_face=40)


def picture(width: int = 160, height: int = 120, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def put(folder: Path, name: str, text: str | None = "a person", image: Image.Image | None = None, **options) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    (image or picture()).save(path, **options)
    if text is not None:
        path.with_suffix(".txt").write_text(text, encoding="utf-8")
    return path


def detection(x: float = 30, y: float = 20, size: float = 64, score: float = 0.9, turn: float = 0.0) -> Detection:
    """A face of `size` px; turn moves the nose to the side, in eye distances."""
    eye = size * 0.4
    middle, top = x + size / 2, y + size * 0.4
    points = (
        (middle - eye / 2, top),
        (middle + eye / 2, top),
        (middle + turn * eye, top + eye * 0.6),
        (middle - eye * 0.4, top + eye * 1.1),
        (middle + eye * 0.4, top + eye * 1.1),
    )
    return Detection((x, y, x + size, y + size), score, points)


class Scripted:
    """A detector that gives what it was told; called without faces it gives one."""

    name, provider, notice = "scripted", "CPU", None

    def __init__(self, *found: Detection):
        self.found = found or (detection(),)

    def detect(self, pixels, smallest=0.0):
        assert pixels.dtype == np.uint8 and pixels.ndim == 3
        return list(self.found)


def one(folder: Path, detector=None, wanted: Filter = LOOSE):
    """Sample and reasons for the only photo of a folder."""
    (photo,) = photos.find([folder]).photos
    sample, rejects = crops.prepare_photo(photo, detector or Scripted(), wanted)
    return sample, [reject.reason for reject in rejects]


def contents(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(out.iterdir()) if path.is_file()}


def rejected(out: Path) -> dict[tuple[str, str], str]:
    with open(out / shard_writer.REJECTS, encoding="utf-8", newline="") as file:
        return {(row["photo"], row["face"]): row["reason"] for row in csv.DictReader(file)}


def read_back(out: Path) -> list[dict]:
    webdataset = pytest.importorskip("webdataset")
    return list(webdataset.WebDataset(sorted(map(str, out.glob("*.tar"))), shardshuffle=False))
