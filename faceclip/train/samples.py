"""From a shard's sample (see faceclip.train.prepare) to what the two stages train on."""

import json
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..errors import InputError
from ..faces.align import CROP_SIZE
from ..files.picture import open_picture
from ..model.prompt import tokenize
from .diffusion import time_ids
from .face_cells import face_cells


@dataclass(frozen=True)
class AlignmentSample:
    """Decoder for stage A: picture float [3, R, R] (the whole picture, fitted into a black square as CLIP's padding
    would), face float [3, 448, 448], ids and joint_ids int64 [77]. resolution: R, what the vision towers read."""

    resolution: int = 224

    def __call__(self, sample: dict[str, Any], random: np.random.Generator) -> dict[str, torch.Tensor]:
        picture, about = _picture(sample), _about(sample)
        caption = about["caption"]
        return {
            "picture": _tensor(_fit(picture, self.resolution)),
            "face": _tensor(_face(sample, random)[1]),
            "ids": torch.tensor(tokenize(caption, False)[0].ids),
            "joint_ids": torch.tensor(tokenize(caption, True)[0].ids),
        }


@dataclass(frozen=True)
class DiffusionSample:
    """Decoder for stage B: picture float [3, R, R], the short side scaled to R and a random part cut out, with SDXL's
    time_ids [6] of that cut; face float [3, 448, 448]; caption. Smaller pictures are left out. face_cells: also where
    that face is, [1, R / 8, R / 8] (faceclip.train.face_cells)."""

    resolution: int = 1024
    face_cells: bool = False

    def __call__(self, sample: dict[str, Any], random: np.random.Generator) -> dict[str, Any] | None:
        picture, about = _picture(sample), _about(sample)
        size, side = picture.size, self.resolution
        if min(size) < side:
            return None
        scale = side / min(size)
        width, height = (max(side, round(length * scale)) for length in size)
        left, top = int(random.integers(width - side + 1)), int(random.integers(height - side + 1))
        scaled = picture.resize((width, height), _lanczos()) if scale < 1 else picture
        number, face = _face(sample, random)
        made = {
            "picture": _tensor(scaled.crop((left, top, left + side, top + side))),
            "face": _tensor(face),
            "caption": about["caption"],
            "time_ids": time_ids((size[1], size[0]), (top, left), (side, side)),
        }
        if self.face_cells:
            landmarks = (_landmarks(about, number) + 0.5) * (width / size[0], height / size[1]) - 0.5
            made["face_cells"] = face_cells(landmarks - (left, top), side)
        return made


def _picture(sample: dict[str, Any]):
    data = next((sample[ending] for ending in ("jpg", "jpeg", "png", "webp") if ending in sample), None)
    if data is None:
        raise InputError(f"it has no picture (jpg, png or webp), only {', '.join(sorted(sample))}")
    return _open(data)


def _face(sample: dict[str, Any], random: np.random.Generator):
    """One of the sample's faces: its number, and its crop."""
    faces = sorted(int(found[1]) for key in sample if (found := re.fullmatch(r"face(\d+)\.png", key)))
    if not faces:
        raise InputError("it has no face (face0.png)")
    number = faces[int(random.integers(len(faces)))]
    face = _open(sample[f"face{number}.png"])
    if face.size != (CROP_SIZE, CROP_SIZE):
        raise InputError(f"its face is {face.size[0]} x {face.size[1]} px, wanted {CROP_SIZE} x {CROP_SIZE}")
    return number, face


def _landmarks(about: dict, number: int) -> np.ndarray:
    try:
        landmarks = np.array(about["faces"][number]["landmarks"], dtype=np.float64)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise InputError(f"its json has no landmarks of face {number}, which face_weight needs") from error
    if landmarks.shape != (5, 2) or not np.isfinite(landmarks).all():
        raise InputError(f"its landmarks of face {number} have the shape {landmarks.shape}, wanted (5, 2), finite")
    return landmarks


def _about(sample: dict[str, Any]) -> dict:
    about = json.loads(sample["json"])
    if not isinstance(about.get("caption"), str):
        raise InputError("its json has no caption")
    return about


def _open(data: bytes):
    return open_picture(data, "its picture").convert("RGB")


def _fit(picture, side: int):
    from PIL import ImageOps

    return ImageOps.pad(picture, (side, side), _lanczos())


def _lanczos():
    from PIL import Image

    return Image.Resampling.LANCZOS


def _tensor(picture) -> torch.Tensor:
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 255  # HWC -> CHW
