"""What a person needs to choose a face by eye: each picture, made small, and what was found in it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from ..errors import InputError
from .face import FaceDetail
from .pictures import Pictures, size_of
from .quality import measure_one

if TYPE_CHECKING:
    from .detect.base import Detection

LONGEST_SIDE = 1024  # px, of a picture to choose from


def parse_choice(text: str, pictures: int) -> list[int] | None:
    """Face indices from a text such as "0, 2, 1": one for all pictures, or one each; None where it is empty.

    Raises InputError for anything else, and for a number of indices that fits another set of pictures.
    """
    words = text.replace(",", " ").split()
    if not all(word.isascii() and word.isdigit() for word in words):
        raise InputError(
            f"The chosen faces are {text!r:.60}; wanted whole numbers from 0, such as 0, 2, 1, or nothing."
        )
    indices = [int(word) for word in words]
    if len(indices) not in (0, 1, pictures):
        raise InputError(
            f"Faces were chosen for {len(indices)} pictures ({text:.60}), but {pictures} came in. Press Find faces and "
            "choose again, or set input_faces_index for all of them."
        )
    return indices * pictures if len(indices) == 1 else indices or None


def small_pictures(pictures: Pictures, longest_side: int = LONGEST_SIDE) -> list[torch.Tensor]:
    """Each picture as float32 [1, H, W, 3], no side longer than longest_side px."""
    return [_shrink(picture[None], longest_side) for picture in pictures]


def describe_choices(
    pictures: Pictures, found: Sequence[Sequence["Detection"]], chosen: Sequence[int]
) -> list[dict[str, object]]:
    """For each picture its size in px, the index chosen, and its faces in the order of `found`.

    A face is {"box": x, y, width, height as parts of the picture, "score", "size": width, height in px, "warnings": in
    plain words, as of `FaceQuality`}.
    """
    described = []
    for number, (picture, faces, index) in enumerate(zip(pictures, found, chosen, strict=True)):
        width, height = size_of(picture)
        shown = []
        for face in faces:
            x0, y0, x1, y1 = face.box
            detail = FaceDetail(number, face.box, face.score, face.landmarks, (width, height), len(faces) - 1)
            shown.append(
                {
                    "box": [x0 / width, y0 / height, (x1 - x0) / width, (y1 - y0) / height],
                    "score": face.score,
                    "size": [round(x1 - x0), round(y1 - y0)],
                    "warnings": list(measure_one(pictures, detail).warnings),
                }
            )
        described.append({"width": width, "height": height, "chosen": index, "faces": shown})
    return described


def _shrink(picture: torch.Tensor, longest_side: int) -> torch.Tensor:
    height, width = picture.shape[1:3]
    scale = longest_side / max(height, width)
    if scale >= 1:
        return picture
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    small = torch.nn.functional.interpolate(picture.permute(0, 3, 1, 2), size=size, mode="area")  # BHWC -> BCHW
    return small.permute(0, 2, 3, 1)
