"""A picture for the user of what was detected: boxes, landmarks and each face's index."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..errors import InputError
from .align import CROP_SIZE, crop_outline, face_matrix
from .face import each_index
from .pictures import Pictures, to_bytes

if TYPE_CHECKING:
    from .detect.base import Detection

LONGEST_SIDE = 1600  # px
_CHOSEN = (50, 255, 75)
_OTHER = (255, 190, 25)
_LANDMARKS = ((255, 50, 50), (50, 130, 255), (255, 255, 50), (255, 100, 230), (50, 230, 255))


def draw_preview(
    images: torch.Tensor | Sequence[torch.Tensor] | Pictures,
    found: Sequence[Sequence["Detection"]],
    index: int | Sequence[int] | None = None,
    margin: float = 1.0,
) -> torch.Tensor | list[torch.Tensor]:
    """Draw what `detect_faces` found. images: what `Pictures` takes, never changed. index: one for all, or one each.

    Returns a new float32 [B, H, W, 3], no side longer than 1600 px: a screen shows no more, and 12 megapixels take as
    long to write as the faces to find. Where the pictures differ in size it is a list of [H, W, 3]. Each face gets
    its box, its landmarks and "index score". Face `index` is green, with a thin line round the square that becomes the
    crop; the others are orange.
    """
    pictures = Pictures(images)
    if len(found) != len(pictures):
        raise InputError(f"There are {len(pictures)} pictures, but detections for {len(found)}.")
    chosen = [None] * len(pictures) if index is None else each_index(index, len(pictures))
    drawn = []
    for picture, faces, number in zip(pictures, found, chosen, strict=True):
        drawn.append(torch.from_numpy(_draw(to_bytes(picture), faces, number, margin)))
    return torch.stack(drawn) if len({one.shape for one in drawn}) == 1 else drawn


def _draw(picture: np.ndarray, faces: Sequence["Detection"], index: int | None, margin: float) -> np.ndarray:
    import cv2

    shrink = min(1.0, LONGEST_SIDE / max(picture.shape[:2]))
    canvas = picture  # of 8 bits: OpenCV 5 writes text on no others
    if shrink < 1:
        height, width = (max(1, round(side * shrink)) for side in picture.shape[:2])
        canvas = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
    line = max(1, round(max(canvas.shape[:2]) / 400))
    for number, face in enumerate(faces):
        chosen = number == index
        colour = _CHOSEN if chosen else _OTHER
        x0, y0, x1, y1 = (round(v * shrink) for v in face.box)
        cv2.rectangle(canvas, (x0, y0), (x1, y1), colour, line * (2 if chosen else 1))
        if chosen:
            outline = crop_outline(face_matrix(face.landmarks, CROP_SIZE, margin), CROP_SIZE) * shrink
            cv2.polylines(canvas, [np.round(outline).astype(np.int32)], True, colour, line, cv2.LINE_AA)
        for (x, y), point_colour in zip(face.landmarks, _LANDMARKS, strict=True):
            cv2.circle(canvas, (round(x * shrink), round(y * shrink)), line * 2, point_colour, -1, cv2.LINE_AA)
        _label(canvas, f"{number} {face.score:.2f}", (x0, y0), colour, line)
    return canvas.astype(np.float32) / 255


def _label(canvas: np.ndarray, text: str, corner: tuple[int, int], colour: tuple[int, int, int], line: int) -> None:
    import cv2

    scale = 0.45 * line
    (width, height), base = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, line)
    x = min(max(0, corner[0]), max(0, canvas.shape[1] - width))
    y = min(max(height + base, corner[1]), canvas.shape[0] - base)
    cv2.rectangle(canvas, (x, y - height - base), (x + width, y + base), colour, -1)
    cv2.putText(canvas, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, scale, (0, 0, 0), line, cv2.LINE_AA)
