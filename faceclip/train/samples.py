"""From a shard's sample (see faceclip.train.prepare) to what the two stages train on; pictures travel as bytes."""

import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from ..errors import InputError, shown
from ..faces.align import CROP_SIZE
from ..files.picture import open_picture
from ..model.config import ENCODER_SIZE
from ..model.prompt import tokenize
from .buckets import bucket, cut
from .data import as_tensor
from .diffusion import time_ids
from .face_cells import face_cells

_REDUCED = (1, 2, 4, 8)  # what a JPEG's size may be divided by as it is unpacked


@dataclass(frozen=True)
class AlignmentSample:
    """Decoder for stage A: picture uint8 [3, R, R] (the whole picture, fitted into a black square as CLIP's padding
    would), face uint8 [3, 112, 112], ids and joint_ids int64 [77], person int64 (the same for the same person, -1 for
    one not known). resolution: R, what the vision towers read. paired: share of samples whose face is from another
    photo of the person, where there is one."""

    resolution: int = 224
    paired: float = 0.0

    def __call__(self, sample: dict[str, Any], random: np.random.Generator) -> dict[str, Any]:
        picture, about = _picture(sample, (2 * self.resolution, 2 * self.resolution)), _about(sample)
        caption = about["caption"]
        number, face = _face(sample, about, self.paired, random)
        return {
            "picture": as_tensor(_fit(picture, self.resolution)),
            "face": face,
            "person": _person(about, number),
            "ids": torch.tensor(tokenize(caption, False)[0].ids),
            "joint_ids": torch.tensor(tokenize(caption, True)[0].ids),
        }


@dataclass(frozen=True)
class DiffusionSample:
    """Decoder for stage B: picture uint8 [3, h, w], scaled to fill its bucket (faceclip.train.buckets) and cut to it
    around the face that is given, with SDXL's time_ids [6] of that cut; face uint8 [3, 112, 112]; caption.

    face_cells: also where that face is, [1, h / 8, w / 8] (faceclip.train.face_cells). paired: as AlignmentSample's.
    flip: half of the samples mirrored, picture and face. Left out and counted: photos
    that do not fill their bucket ("small"), and faces that no cut holds ("face").
    """

    resolution: int = 1024
    face_cells: bool = False
    shapes: bool = True
    paired: float = 0.0
    flip: bool = False
    reasons = ("small", "face")

    def group(self, sample: dict[str, Any]) -> tuple[int, int]:
        """Width and height of the picture, the same throughout a batch. LeftOut."""
        return bucket(_size(_about(sample)), self.resolution, self.shapes)

    def __call__(self, sample: dict[str, Any], random: np.random.Generator) -> dict[str, Any]:
        about = _about(sample)
        number, face = _face(sample, about, self.paired, random)
        box = _numbers(about, number, "box", (4,))
        size = _size(about)
        target = bucket(size, self.resolution, self.shapes)
        scale = max(target[0] / size[0], target[1] / size[1])
        width, height = (max(round(length * scale), side) for length, side in zip(size, target, strict=True))
        stretch = np.array((width / size[0], height / size[1]))
        left, top = cut((width, height), target, (box + 0.5) * np.tile(stretch, 2), random)
        picture = _picture(sample, (width, height))
        if picture.size not in {(-(-size[0] // k), -(-size[1] // k)) for k in _REDUCED}:
            raise InputError(f"its json tells a picture of {size} px, but it has {picture.size}")
        scaled = picture.resize((width, height), _lanczos()) if picture.size != (width, height) else picture
        part = as_tensor(scaled.crop((left, top, left + target[0], top + target[1])))
        flipped = self.flip and random.random() < 0.5
        if flipped:
            part, face = part.flip(-1), face.flip(-1)
        made = {
            "picture": part,
            "face": face,
            "caption": about["caption"],
            # Of the mirrored photo, where it is mirrored.
            "time_ids": time_ids(
                (size[1], size[0]), (top, width - target[0] - left if flipped else left), (target[1], target[0])
            ),
        }
        if self.face_cells:
            landmarks = (_numbers(about, number, "landmarks", (5, 2)) + 0.5) * stretch - 0.5
            cells = face_cells(landmarks - (left, top), target)
            made["face_cells"] = cells.flip(-1) if flipped else cells
        return made


def _picture(sample: dict[str, Any], at_least: tuple[int, int]):
    """at_least: width and height that are enough; a large JPEG is then a small one of itself."""
    data = next((sample[ending] for ending in ("jpg", "jpeg", "png", "webp") if ending in sample), None)
    if data is None:
        raise InputError(f"it has no picture (jpg, png or webp), only {', '.join(sorted(sample))}")
    return _open(data, at_least)


def _face(sample: dict[str, Any], about: dict, paired: float, random: np.random.Generator) -> tuple[int, torch.Tensor]:
    """The number of one of the sample's faces, and a crop uint8 [3, 112, 112], as the face encoder would scale it: the
    face itself, or with the probability `paired` the same person on another photo."""
    faces = sorted(int(found[1]) for key in sample if (found := re.fullmatch(r"face(\d+)\.png", key)))
    if not faces:
        raise InputError("it has no face (face0.png)")
    number = faces[int(random.integers(len(faces)))]
    crops = [f"face{number}.png"]
    if paired:
        if "person" not in _face_about(about, number):
            raise InputError("its json knows no people, which paired needs: write the shards with prepare --person")
        others = sorted(key for key in sample if key.startswith(f"face{number}.other"))
        if others and random.random() < paired:
            crops = others
    return number, _crop(sample[crops[int(random.integers(len(crops)))]])


def _face_about(about: dict, number: int) -> dict:
    """What the json tells of a face; nothing where it does not."""
    faces = about.get("faces")
    found = faces[number] if isinstance(faces, list) and number < len(faces) else None
    return found if isinstance(found, dict) else {}


def _person(about: dict, number: int) -> int:
    name = _face_about(about, number).get("person")
    return -1 if name is None else int.from_bytes(hashlib.blake2b(str(name).encode(), digest_size=7).digest(), "big")


def _crop(data: bytes) -> torch.Tensor:
    face = _open(data)
    if face.size != (CROP_SIZE, CROP_SIZE):
        raise InputError(f"its face is {face.size[0]} x {face.size[1]} px, wanted {CROP_SIZE} x {CROP_SIZE}")
    floats = as_tensor(face)[None].float()
    small = F.interpolate(floats, size=(ENCODER_SIZE, ENCODER_SIZE), mode="bilinear", align_corners=False)
    return small[0].round().to(torch.uint8)


def _numbers(about: dict, number: int, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Landmarks or box of a face, in px of the photo."""
    try:
        found = np.array(about["faces"][number][name], dtype=np.float64)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise InputError(f"its json has no {name} of face {number}") from error
    if found.shape != shape or not np.isfinite(found).all():
        raise InputError(f"its {name} of face {number} has the shape {found.shape}, wanted {shape}, finite")
    return found


def _size(about: dict) -> tuple[int, int]:
    size = about.get("size")
    if not isinstance(size, list) or len(size) != 2 or not all(type(side) is int and side > 0 for side in size):
        raise InputError(f"its json has the size {shown(size)}, width and height in px are wanted")
    return size[0], size[1]


def _about(sample: dict[str, Any]) -> dict:
    about = json.loads(sample["json"])
    if not isinstance(about.get("caption"), str):
        raise InputError("its json has no caption")
    return about


def _open(data: bytes, at_least: tuple[int, int] | None = None):
    return open_picture(data, "its picture", at_least).convert("RGB")


def _fit(picture, side: int):
    from PIL import ImageOps

    return ImageOps.pad(picture, (side, side), _lanczos())


def _lanczos():
    from PIL import Image

    return Image.Resampling.LANCZOS
