"""From pictures to `Face`: checked, found, chosen and aligned."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..errors import InputError, NoFaceError
from ..pixels import to_unit_range
from .align import CROP_SIZE, align

if TYPE_CHECKING:
    from .detect.base import Detection, Detector

log = logging.getLogger(__name__)

# The words users know from other face packs, with the same meaning: "large-small" puts the largest face first.
FACE_ORDERS = ("large-small", "small-large", "left-right", "right-left", "top-bottom", "bottom-top")
DEFAULT_MIN_SCORE = 0.6
ON_NO_FACE = ("error", "skip image", "use whole picture")
_SMALLEST_SIDE = 16
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


class Pictures:
    """A batch that was checked once for all that is done with it: every function that takes pictures takes it.

    pixels: float32 [B, H, W, 3], [0, 1], on the CPU, as `check_pictures` returns it. InputError as there.
    """

    def __init__(self, images: "torch.Tensor | Pictures"):
        self.pixels = check_pictures(images)

    def __len__(self) -> int:
        return len(self.pixels)


def check_pictures(images: torch.Tensor | Pictures) -> torch.Tensor:
    """Check a batch of pictures as the host hands it round; returns it as contiguous float32 [B, H, W, 3] on the CPU.

    images: float [B, H, W, 3], RGB, [0, 1], in any memory layout; never changed. Values that a resampler leaves outside
    [0, 1] are clipped (see `faceclip.pixels`). InputError, with what was seen and what to do, for anything else: other
    dimensions, whole numbers, alpha (only the user can say what lies behind it), a single channel (nearly always a mask
    in the wrong place; a grey photo has three equal channels), sides under 16 px, NaN, another scale.
    """
    if isinstance(images, Pictures):
        return images.pixels
    if not isinstance(images, torch.Tensor):
        raise InputError(f"The pictures are a {type(images).__name__}; a float tensor [B, H, W, 3] is wanted.")
    shape = tuple(images.shape)
    if images.ndim != 4:
        hint = " A mask is no picture; turn it into an image first." if images.ndim in (2, 3) else ""
        raise InputError(f"The pictures have shape {shape}; [B, H, W, 3] is wanted.{hint}")
    if shape[0] == 0:
        raise InputError("The batch holds no picture; at least one is wanted.")
    if not images.is_floating_point():
        raise InputError(f"The pictures are {images.dtype}; floats from 0 to 1 are wanted. Divide 8-bit values by 255.")
    _check_channels(shape)
    if min(shape[1:3]) < _SMALLEST_SIDE:
        raise InputError(
            f"The picture is {shape[2]} x {shape[1]} px; at least {_SMALLEST_SIDE} px a side are needed to show a "
            "face. Give the original photo."
        )
    return to_unit_range(images, "The picture's")


def _check_channels(shape: tuple[int, ...]) -> None:
    channels = shape[3]
    if channels == 3:
        return
    if channels == 4:
        what = "it has an alpha channel. Lay it on a background, or split the alpha off, before it comes here"
    elif channels == 1:
        what = "it has one grey channel. If it is a grey photo, turn it into RGB; if it is a mask, it is no picture"
    elif shape[1] == 3:
        what = "the channels seem to come first. Give [B, H, W, 3]"
    else:
        what = "give RGB pictures"
    raise InputError(f"The picture has {channels} channels (shape {shape}), 3 are wanted: {what}.")


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


def detect_faces(
    images: torch.Tensor | Pictures,
    detector: "Detector",
    order: str = "large-small",
    min_score: float = DEFAULT_MIN_SCORE,
    progress: Progress | None = None,
    on_no_face: str = "error",
) -> list[list["Detection"]]:
    """The faces of each picture of a batch, in the order asked for, each with a score of at least `min_score`.

    progress(done, total) is called after each picture; what it raises (a cancel) goes through.
    on_no_face: one of ON_NO_FACE. With "error" a picture without a face raises NoFaceError, which names those pictures
    and the best score seen there. With the others it has an empty list, for `align_faces`, and is logged; "skip image"
    still raises NoFaceError if no picture is left.
    """
    _check_on_no_face(on_no_face)
    pictures = check_pictures(images)
    sort_faces((), order)
    _check_min_score(min_score)
    found, best_below = [], {}
    for number, picture in enumerate(pictures):
        seen = detector.detect((picture.numpy() * 255).round().astype(np.uint8))
        found.append(sort_faces([one for one in seen if one.score >= min_score], order))
        if not found[-1]:
            best_below[number] = max((one.score for one in seen), default=None)
        if progress is not None:
            progress(number + 1, len(pictures))
    nothing_left = on_no_face == "skip image" and not any(found)
    if best_below and (on_no_face == "error" or nothing_left):
        raise NoFaceError(_no_face(best_below, pictures.shape, min_score))
    for number in best_below:
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
        "Choose a lower index, or lower the minimum score to find more faces."
    )


def align_faces(
    images: torch.Tensor | Pictures,
    found: Sequence[Sequence["Detection"]],
    index: int = 0,
    margin: float = 1.0,
    on_no_face: str = "error",
) -> Face:
    """Cut face number `index` (from 0, in the order of `found`) out of each picture, aligned to 448 x 448.

    found: what `detect_faces` gave for the same images. margin: see `faceclip.faces.align.template`.
    on_no_face: what becomes of a picture with no face at all. "skip image" leaves it out (NoFaceError if none is left);
    "use whole picture" takes its middle square, scaled to 448 x 448, with None for its detail.
    InputError if a picture has no face of that number.
    """
    _check_on_no_face(on_no_face)
    pictures = check_pictures(images)
    if len(found) != len(pictures):
        raise InputError(f"There are {len(pictures)} pictures, but detections for {len(found)}.")
    if isinstance(index, bool) or not isinstance(index, int) or index < 0:
        raise InputError(f"The face index is {index!r}; a whole number from 0 is wanted (0 is the first face).")
    size = (pictures.shape[2], pictures.shape[1])
    crops, details = [], []
    for number, faces in enumerate(found):
        if not faces and on_no_face != "error":
            if on_no_face == "use whole picture":
                crops.append(_middle_square(pictures[number].numpy()))
                details.append(None)
            continue
        one = choose_face(faces, index, number, len(pictures))
        crops.append(align(pictures[number].numpy(), one.landmarks, CROP_SIZE, margin))
        details.append(FaceDetail(number, one.box, one.score, one.landmarks, size, len(faces) - 1))
    if not crops:
        raise NoFaceError(f"None of the {len(pictures)} pictures has a face, so all were skipped. Use other photos.")
    stacked = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).contiguous()  # BHWC -> BCHW
    return Face(stacked, tuple(details))


def find_faces(
    images: torch.Tensor | Pictures,
    detector: "Detector",
    order: str = "large-small",
    index: int = 0,
    min_score: float = DEFAULT_MIN_SCORE,
    margin: float = 1.0,
    progress: Progress | None = None,
    on_no_face: str = "error",
) -> Face:
    """One aligned face of each picture: `detect_faces`, then `align_faces`. images: float [B, H, W, 3], [0, 1]."""
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


def _no_face(best_below: dict[int, float | None], shape: Sequence[int], min_score: float) -> str:
    first, best = next(iter(best_below.items()))
    total, height, width = shape[:3]
    where = f"picture {first + 1} of {total}" if total > 1 else "the picture"
    text = f"No face was found in {where} ({width} x {height} px). "
    if best is None:
        text += "Nothing in it looks like a face to the detector. "
    else:
        text += f"The best score seen is {best:.2f}; at least {min_score:.2f} was wanted. Lower the minimum score, or "
    advice = "use a photo that shows the face upright, from the front, sharp and at least about 50 px wide."
    text += advice if best is not None else advice.capitalize()
    if len(best_below) > 1:
        text += " Without a face are also pictures " + ", ".join(str(n + 1) for n in list(best_below)[1:]) + "."
    return text
