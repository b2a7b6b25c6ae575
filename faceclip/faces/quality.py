"""How good a reference is, told before sampling: what was measured on each face, and what will hurt the likeness.

Every threshold comes from `python -m benchmarks.quality`: eight faces on three real photos, as they are, blurred and
shrunk. It measures the pictures; how much likeness each step costs needs a face recogniser and was not measured.
"""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import ArrayLike

from ..errors import InputError
from .align import align
from .face import Face, FaceDetail, each_index, lacks_face
from .pictures import Pictures

if TYPE_CHECKING:
    from .detect.base import Detection

log = logging.getLogger(__name__)

_SIZE = 112  # the size of the template, and so the detail that face recognition is trained on
# The part of the 112 px crop that lies inside the face: rows, then columns.
_INSIDE = (slice(28, 104), slice(20, 92))
# How far the nose's tip stands out before the eyes, in eye distances, on the mean of the 68-point 3D heads that
# insightface ships (meanshape_68.pkl): 0.534.
_NOSE_DEPTH = 0.53
_FLAT = 1e-6  # variance of a crop that shows nothing

# Sharpness of the eight faces: 0.10 to 0.30 as they are, 0.058 and more with a blur of 0.5 px (of the 112 px crop),
# 0.020 to 0.045 with 1 px, 0.019 and less with 1.5 px.
SOFT = 0.05
BLURRED = 0.02
# Of the eight, shrunk to a width of 50 px, six are above SOFT; four, barely, at 35 px; none at 25 px.
SMALL = 50
# Two heads are seen to be turned: down to a width of 50 px one gives 33 to 35 degrees, the other, nearly in profile,
# 45 to 58. The other six give at most 22.
TURNED = 27
SIDEWAYS = 40
# With YuNet no face of the table scores less, however small or blurred (the lowest is 0.78). InsightFace was not
# measured.
UNSURE = 0.75


@dataclass(frozen=True)
class FaceQuality:
    """What was measured on one aligned face.

    picture: index in the batch. score: the detector's, 0 to 1. size: width, height of its box in px of the picture.
    eye_distance: px of the picture. sharpness: see `sharpness`. yaw: degrees, see `yaw`. others: further faces found.
    """

    picture: int
    score: float
    size: tuple[float, float]
    eye_distance: float
    sharpness: float
    yaw: float
    others: int

    @property
    def warnings(self) -> tuple[str, ...]:
        """In plain words, what will make the likeness suffer; empty for a good reference."""
        found = []
        if min(self.size) < SMALL:
            found.append(
                f"the face is only {int(min(self.size))} px wide, too few to show who it is; use a photo with the face "
                f"at least {SMALL} px wide, better 112"
            )
        if self.sharpness < BLURRED:
            found.append("the face is blurred; use a sharp photo")
        elif self.sharpness < SOFT:
            found.append("the face is soft, without fine detail; a sharper or larger photo gives a better likeness")
        if abs(self.yaw) >= SIDEWAYS:
            found.append("the head is seen from the side, so half of the face is missing; use a photo from the front")
        elif abs(self.yaw) >= TURNED:
            found.append("the head is turned away; a photo from the front gives a better likeness")
        if self.score < UNSURE:
            found.append("the detector is not sure that this is a face; is it covered, cut off or upside down?")
        return tuple(found)


def sharpness(crop: np.ndarray) -> float:
    """Fine detail of an aligned face: variance of the Laplacian over the variance of the grey values, in the face.

    crop: float32 [112, 112, 3], aligned with margin 1. Neither brightness nor contrast changes it.
    """
    import cv2

    grey = cv2.cvtColor(np.ascontiguousarray(crop, dtype=np.float32), cv2.COLOR_RGB2GRAY)
    if grey.shape != (_SIZE, _SIZE):
        raise InputError(f"Sharpness is measured on a crop of {_SIZE} x {_SIZE} px; this one has {grey.shape}.")
    contrast = float(grey[_INSIDE].var())
    return float(cv2.Laplacian(grey, cv2.CV_32F)[_INSIDE].var()) / contrast if contrast > _FLAT else 0.0


def yaw(landmarks: ArrayLike) -> float:
    """About how far the head is turned, in degrees; negative is to the left of the picture. landmarks: [5, 2] px.

    The nose's tip moves along the line of the eyes as the tangent of the angle. An estimate: noses differ, and
    landmarks do too (see TURNED).
    """
    points = np.asarray(landmarks, dtype=np.float64)
    eyes = points[1] - points[0]
    length = float(np.hypot(*eyes))
    if length == 0:
        return 90.0
    offset = float((points[2] - points[:2].mean(axis=0)) @ eyes) / length**2
    return math.degrees(math.atan(offset / _NOSE_DEPTH))


def measure(images: torch.Tensor | Sequence[torch.Tensor] | Pictures, face: Face) -> tuple[FaceQuality | None, ...]:
    """One FaceQuality for each crop of `face`; None for a crop that no detector placed.

    images: what `Pictures` takes, the pictures that `face` was cut from.
    """
    pictures = Pictures(images)
    return tuple(None if one is None else measure_one(pictures, one) for one in face.details)


def report(
    images: torch.Tensor | Sequence[torch.Tensor] | Pictures,
    face: Face,
    index: int | Sequence[int] = 0,
    found: Sequence[Sequence["Detection"]] = (),
) -> str:
    """What became of each picture, with what was measured and warnings in plain words: text of several lines.

    images: what `Pictures` takes, the pictures that `align_faces` was given. face: what it returned for them. index:
    the face index chosen, one for all or one each. found: all faces of each picture, to say why one was skipped.
    Warnings are logged too.
    """
    pictures = Pictures(images)
    indices = each_index(index, len(pictures))
    measured = measure(pictures, face)
    taken = {one.picture: one for one in measured if one is not None}
    # Skipped pictures have no crop at all, whole ones have a crop without details.
    whole = len(measured) == len(pictures) and None in measured
    lines = []
    for picture in range(len(pictures)):
        one = taken.get(picture)
        if one is None:
            outcome = "the whole picture is used: poor likeness" if whole else "skipped"
            seen = f"picture {picture + 1}: no face"
            if found and found[picture]:
                seen = lacks_face(picture, found[picture], indices[picture])
            lines.append(f"{seen}, {outcome}")
            continue
        lines.append(f"picture {picture + 1}: {_describe(one, indices[picture])}")
        for warning in one.warnings:
            lines.append(f"  ! {warning}")
            log.warning("Picture %d: %s.", picture + 1, warning)
    if len(taken) == len(pictures) and not any(one.warnings for one in taken.values()):
        lines.append("Good to use." if len(pictures) == 1 else "All faces are good to use.")
    return "\n".join(lines)


def measure_one(pictures: Pictures, detail: FaceDetail) -> FaceQuality:
    """What can be measured on one face of one of the pictures."""
    if detail.picture >= len(pictures):
        raise InputError(f"There are {len(pictures)} pictures, but a face comes from picture {detail.picture + 1}.")
    x0, y0, x1, y1 = detail.box
    crop = align(pictures[detail.picture].numpy(), detail.landmarks, _SIZE)
    left, right = detail.landmarks[:2]
    return FaceQuality(
        picture=detail.picture,
        score=detail.score,
        size=(x1 - x0, y1 - y0),
        eye_distance=math.dist(left, right),
        sharpness=sharpness(crop),
        yaw=yaw(detail.landmarks),
        others=detail.others,
    )


def _describe(one: FaceQuality, index: int) -> str:
    width, height = one.size
    side = "left" if one.yaw < 0 else "right"
    turned = f"turned about {abs(one.yaw):.0f} degrees to the {side}" if abs(one.yaw) >= 1 else "not turned"
    text = f"face {index} of {one.others + 1}, score {one.score:.2f}, {width:.0f} x {height:.0f} px"
    text += f", eyes {one.eye_distance:.0f} px apart, sharpness {one.sharpness:.3f}, {turned}"
    return text + (f"; is it the right one of the {one.others + 1}?" if one.others else "")
