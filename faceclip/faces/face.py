"""From pictures to `Face`: checked, found, chosen and aligned."""

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..errors import InputError, NoFaceError
from .align import CROP_SIZE, align
from .pictures import Pictures, check_pictures, size_of, to_bytes

if TYPE_CHECKING:
    from .detect.base import Detection, Detector

log = logging.getLogger(__name__)

# The words users know from other face packs, with the same meaning: "large-small" puts the largest face first.
FACE_ORDERS = ("large-small", "small-large", "left-right", "right-left", "top-bottom", "bottom-top")
DEFAULT_MIN_SCORE = 0.6
ON_NO_FACE = ("error", "skip image", "use whole picture")
_SMALLEST_READY_CROP = 112

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class FaceDetail:
    """Where an aligned crop came from.

    picture: index in the batch. box: x0, y0, x1, y1 in pixels. score: 0 to 1. landmarks: five (x, y) in pixels, in
    the order of `faceclip.faces.align`. picture_size: width, height. others: further faces found in that picture.
    """

    picture: int
    box: tuple[float, float, float, float]
    score: float
    landmarks: tuple[tuple[float, float], ...]
    picture_size: tuple[int, int]
    others: int


@dataclass(frozen=True)
class Face:
    """Aligned crops, ready for the face encoder.

    crops: float32 [N, 3, S, S], RGB, [0, 1]; S is 448, or any size for ready-made crops.
    details: one entry for each crop; None for one that no detector placed: ready-made, or a whole picture.
    """

    crops: torch.Tensor
    details: tuple[FaceDetail | None, ...]

    def __post_init__(self):
        shape = tuple(self.crops.shape)
        if len(shape) != 4 or shape[1] != 3 or shape[2] != shape[3] or shape[0] == 0:
            raise InputError(f"Face crops have shape {shape}; [N, 3, S, S] with N of at least 1 is wanted.")
        if len(self.details) != shape[0]:
            raise InputError(f"There are {shape[0]} crops but {len(self.details)} details; one for each is wanted.")

    def __len__(self) -> int:
        return self.crops.shape[0]


def sort_faces(found: Sequence["Detection"], order: str = "large-small") -> list["Detection"]:
    """Faces of one picture in the order named by one of FACE_ORDERS: by the box's area or by its centre."""
    if order not in FACE_ORDERS:
        raise InputError(f"The face order is {order!r}; choose one of {', '.join(FACE_ORDERS)}.")
    keys = {
        "large-small": lambda d: -d.area,
        "small-large": lambda d: d.area,
        "left-right": lambda d: d.centre[0],
        "right-left": lambda d: -d.centre[0],
        "top-bottom": lambda d: d.centre[1],
        "bottom-top": lambda d: -d.centre[1],
    }
    return sorted(found, key=lambda d: (keys[order](d), -d.score))


class FacesFound(list[Any]):
    """The faces of one picture, in the order asked for. unsure: scores of what was left out, below the minimum."""

    def __init__(self, faces: Sequence["Detection"], unsure: Sequence[float] = ()):
        super().__init__(faces)
        self.unsure = tuple(unsure)


def detect_faces(
    images: torch.Tensor | Sequence[torch.Tensor] | Pictures,
    detector: "Detector",
    order: str = "large-small",
    min_score: float = DEFAULT_MIN_SCORE,
    progress: Progress | None = None,
    on_no_face: str = "error",
) -> list[FacesFound]:
    """The faces of each picture, in the order asked for, each with a score of at least `min_score`.

    images: what `Pictures` takes. progress(done, total) is called after each picture; what it raises (a cancel) goes
    through. on_no_face: one of ON_NO_FACE. With "error" a picture without a face raises NoFaceError, which names those
    pictures and the best score seen there. With the others it has an empty list, for `align_faces`, and is logged;
    "skip image" still raises NoFaceError if no picture is left.
    """
    _check_on_no_face(on_no_face)
    pictures = Pictures(images)
    sort_faces((), order)
    _check_min_score(min_score)
    found = []
    for number, picture in enumerate(pictures):
        seen = detector.detect(to_bytes(picture))
        faces = sort_faces([one for one in seen if one.score >= min_score], order)
        found.append(FacesFound(faces, [one.score for one in seen if one.score < min_score]))
        if progress is not None:
            progress(number + 1, len(pictures))
    without = [number for number, faces in enumerate(found) if not faces]
    nothing_left = on_no_face == "skip image" and not any(found)
    if without and (on_no_face == "error" or nothing_left):
        raise NoFaceError(_no_face(without, found, pictures, min_score))
    for number in without:
        outcome = "it is skipped" if on_no_face == "skip image" else "the whole picture is used instead"
        log.warning("No face was found in picture %d of %d: %s.", number + 1, len(pictures), outcome)
    return found


def choose_face(faces: Sequence["Detection"], index: int, number: int, total: int) -> "Detection":
    """Face `index`, from 0, of picture `number` of `total`; InputError where there are not so many."""
    if index < len(faces):
        return faces[index]
    where = f"picture {number + 1} of {total}" if total > 1 else "the picture"
    faces_found = "1 face was" if len(faces) == 1 else f"{len(faces)} faces were"
    last = f"the last index is {len(faces) - 1}" if faces else "there is none to choose"
    raise InputError(
        f"Face index {index} is past the last: {faces_found} found in {where}, counted from 0, so {last}. "
        + _to_find_more(faces, index)
    )


def _to_find_more(faces: Sequence["Detection"], index: int) -> str:
    """What can be done where a picture has fewer faces than were counted: only what helps with this picture."""
    advice = ["choose a lower index"] if faces else []
    unsure = sorted(getattr(faces, "unsure", ()), reverse=True)
    missing = index - len(faces)
    if missing < len(unsure):
        score = _found_by(unsure[missing])
        advice.append(f"lower the minimum score to {score:.2f}, which finds {len(faces) + missing + 1}")
    else:
        advice.append("use a photo that shows them all larger and from the front")
    text = ", or ".join(advice)
    return text[0].upper() + text[1:] + "."


def _found_by(score: float) -> float:
    """The minimum score, in two digits, that lets this one in."""
    from .detect.base import SCORE_FLOOR

    return max(SCORE_FLOOR, math.floor(score * 100) / 100)


def align_faces(
    images: torch.Tensor | Sequence[torch.Tensor] | Pictures,
    found: Sequence[Sequence["Detection"]],
    index: int | Sequence[int] = 0,
    margin: float = 1.0,
    on_no_face: str = "error",
) -> Face:
    """Cut face number `index` (from 0, in the order of `found`) out of each picture, aligned to 448 x 448.

    images: what `Pictures` takes. found: what `detect_faces` gave for them. index: one for all pictures, or one each.
    margin: see `faceclip.faces.align.template`. on_no_face: what becomes of a picture with no face at all. "skip image"
    leaves it out, and a picture with faces but not that one too (NoFaceError if none is left); "use whole picture"
    takes its middle square, scaled to 448 x 448, with None for its detail. InputError if a picture has no face of that
    number.
    """
    _check_on_no_face(on_no_face)
    pictures = Pictures(images)
    if len(found) != len(pictures):
        raise InputError(f"There are {len(pictures)} pictures, but detections for {len(found)}.")
    indices = each_index(index, len(pictures))
    crops, details = [], []
    for number, (picture, faces, wanted) in enumerate(zip(pictures, found, indices, strict=True)):
        if not faces and on_no_face == "use whole picture":
            crops.append(_middle_square(picture.numpy()))
            details.append(None)
        if on_no_face == "skip image" and faces and wanted >= len(faces):
            log.warning("%s: it is skipped.", lacks_face(number, faces, wanted))
        if on_no_face != "error" and (not faces or (on_no_face == "skip image" and wanted >= len(faces))):
            continue
        one = choose_face(faces, wanted, number, len(pictures))
        crops.append(align(picture.numpy(), one.landmarks, CROP_SIZE, margin))
        details.append(FaceDetail(number, one.box, one.score, one.landmarks, size_of(picture), len(faces) - 1))
    if not crops:
        raise NoFaceError(_none_left(found, indices))
    stacked = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).contiguous()  # BHWC -> BCHW
    return Face(stacked, tuple(details))


def each_index(index: int | Sequence[int], pictures: int) -> list[int]:
    """The face index of each picture, from one for all or one each; InputError for anything else."""
    indices = list(index) if isinstance(index, Sequence) else [index] * pictures
    if len(indices) != pictures:
        raise InputError(f"There are {len(indices)} face indices for {pictures} pictures; one for all, or one each.")
    for one in indices:
        if isinstance(one, bool) or not isinstance(one, int) or one < 0:
            raise InputError(f"The face index is {one!r}; a whole number from 0 is wanted (0 is the first face).")
    return indices


def lacks_face(number: int, faces: Sequence["Detection"], index: int) -> str:
    """In words: picture `number` has faces, but not so many that there is one with this index."""
    seen = "1 face was found" if len(faces) == 1 else f"{len(faces)} faces were found"
    return f"picture {number + 1}: {seen}, none has the index {index}"


def _none_left(found: Sequence[Sequence["Detection"]], indices: Sequence[int]) -> str:
    count = "The one picture was" if len(found) == 1 else f"All {len(found)} pictures were"
    text = f"{count} skipped, so nothing is left."
    for number, (faces, index) in enumerate(zip(found, indices, strict=True)):
        if faces:
            text += f"\n{lacks_face(number, faces, index)}. {_to_find_more(faces, index)}"
        elif any(found):
            text += f"\npicture {number + 1}: no face was found."
    return text if any(found) else f"{text} None has a face. Use other photos."


def find_faces(
    images: torch.Tensor | Sequence[torch.Tensor] | Pictures,
    detector: "Detector",
    order: str = "large-small",
    index: int | Sequence[int] = 0,
    min_score: float = DEFAULT_MIN_SCORE,
    margin: float = 1.0,
    progress: Progress | None = None,
    on_no_face: str = "error",
) -> Face:
    """One aligned face of each picture: `detect_faces`, then `align_faces`."""
    images = Pictures(images)
    found = detect_faces(images, detector, order, min_score, progress, on_no_face)
    return align_faces(images, found, index, margin, on_no_face)


def use_aligned(images: torch.Tensor) -> Face:
    """Take pictures that are aligned faces already: float [B, S, S, 3], square, at least 112 px. No detection."""
    pictures = check_pictures(images)
    height, width = pictures.shape[1:3]
    if height != width or height < _SMALLEST_READY_CROP:
        raise InputError(
            f"The picture is {width} x {height} px; an aligned face is square and at least {_SMALLEST_READY_CROP} px "
            "(448 as published). Give an ordinary photo to Align Face instead."
        )
    return Face(pictures.permute(0, 3, 1, 2).contiguous(), (None,) * len(pictures))  # BHWC -> BCHW


def _middle_square(picture: np.ndarray) -> np.ndarray:
    """The largest square in the middle of a float32 [H, W, 3] picture, scaled to 448 x 448."""
    import cv2

    height, width = picture.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = picture[top : top + side, left : left + side]
    how = cv2.INTER_AREA if side > CROP_SIZE else cv2.INTER_LINEAR
    return np.clip(cv2.resize(square, (CROP_SIZE, CROP_SIZE), interpolation=how), 0.0, 1.0)


def _check_on_no_face(on_no_face: str) -> None:
    if on_no_face not in ON_NO_FACE:
        raise InputError(f"on_no_face is {on_no_face!r}; choose one of {', '.join(ON_NO_FACE)}.")


def _check_min_score(min_score: float) -> None:
    from .detect.base import SCORE_FLOOR

    if not SCORE_FLOOR <= min_score <= 1.0:
        raise InputError(f"The minimum score is {min_score!r}; a number from {SCORE_FLOOR} to 1 is wanted.")


def _no_face(without: Sequence[int], found: Sequence[FacesFound], pictures: Pictures, min_score: float) -> str:
    width, height = size_of(pictures[without[0]])
    where = f"picture {without[0] + 1} of {len(pictures)}" if len(pictures) > 1 else "the picture"
    text = f"No face was found in {where} ({width} x {height} px). "
    best = max(found[without[0]].unsure, default=None)
    if best is None:
        text += "Nothing in it looks like a face to the detector. "
    else:
        text += f"The best score seen is {best:.2f}; at least {min_score:.2f} was wanted. "
        text += f"Lower the minimum score to {_found_by(best):.2f}, or "
    advice = "use a photo that shows the face upright, from the front, sharp and at least about 50 px wide."
    text += advice if best is not None else advice.capitalize()
    if len(without) > 1:
        text += " Without a face are also pictures " + ", ".join(str(n + 1) for n in without[1:]) + "."
    return text
