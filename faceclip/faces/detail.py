"""A face cut out of a picture to be painted anew, and the painted crop put back.

A crop is a square around the face's box, turned so that the eyes are level and scaled to the size the model paints
best. Its place in the picture is a similarity, as in `faceclip.faces.align`; pixel centres have whole-number
coordinates.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..errors import InputError
from ..pixels import check_masks
from .align import crop_outline, face_matrix, transform, warp
from .face import choose_face
from .pictures import Pictures, check_pictures

if TYPE_CHECKING:
    from .detect.base import Detection

ALL_FACES = -1
MARGIN_RANGE = (1.0, 6.0)
MOST_FEATHER = 0.5
SMALLEST_CROP = 64  # px
_INSIDE = 64  # points of a crop's side at which is looked whether it lies inside the picture
_COLOUR_GAIN = (0.8, 1.25)  # how far contrast is brought back; more than that is what was painted, not a cast


@dataclass(frozen=True)
class CropPlace:
    """Where a crop lies: the picture's index in the batch and the [2, 3] matrix from picture to crop pixels.

    soft: whether the top, right, bottom and left side fade. A side beyond the picture's edge does not, so that a face
    which the edge cuts off is painted anew up to the edge.
    """

    picture: int
    matrix: tuple[tuple[float, ...], ...]
    soft: tuple[bool, bool, bool, bool]

    @property
    def scale(self) -> float:
        return math.hypot(self.matrix[0][0], self.matrix[1][0])

    @property
    def degrees(self) -> float:
        """How far the crop is turned against the picture."""
        return math.degrees(math.atan2(self.matrix[1][0], self.matrix[0][0]))


@dataclass(frozen=True)
class Placement:
    """What `paste_faces` needs to know of the crops that `crop_faces` made.

    pictures: how many there were, of picture_size (width, height) px. size: side of a crop in px. feather: width of
    the soft edge as a part of that side.
    """

    places: tuple[CropPlace, ...]
    pictures: int
    picture_size: tuple[int, int]
    size: int
    feather: float


def crop_faces(
    images: torch.Tensor | Pictures,
    found: Sequence[Sequence["Detection"]],
    index: int = 0,
    margin: float = 2.0,
    size: int = 1024,
    feather: float = 0.15,
    upright: bool = True,
) -> tuple[torch.Tensor, torch.Tensor, Placement]:
    """Cut faces out, enlarged (or shrunk) to size x size px, with the mask of what is to be painted anew.

    images: float [B, H, W, 3], [0, 1]. found: what `detect_faces` gave for them. index: which face of each picture,
    from 0, or ALL_FACES. margin: side of the square over the longer side of the face's box. feather: width of the
    mask's soft edge as a part of the crop's side, 0 to 0.5. upright: turn the square with the face.
    Returns crops float32 [N, size, size, 3], masks float32 [N, size, size], and the placement. A square that reaches
    beyond the picture is moved inside as far as the face stays in it; what is still beyond repeats the picture's edge.
    Raises InputError for values outside these ranges and for a picture with no face of that number.
    """
    pictures = check_pictures(images)
    _check(len(pictures), found, index, margin, size, feather)
    picture_size = (pictures.shape[2], pictures.shape[1])
    crops, masks, places = [], [], []
    for number, faces in enumerate(found):
        chosen = [choose_face(faces, max(index, 0), number, len(pictures))] if index >= 0 or not faces else faces
        for face in chosen:
            matrix = _matrix(face, margin, size, upright, picture_size)
            place = CropPlace(number, tuple(map(tuple, matrix.tolist())), _soft_sides(matrix, size, picture_size))
            crops.append(_cut(pictures[number].numpy(), matrix, size))
            masks.append(feathered(size, feather, place.soft))
            places.append(place)
    placement = Placement(tuple(places), len(pictures), picture_size, size, feather)
    return torch.from_numpy(np.stack(crops)), torch.from_numpy(np.stack(masks)), placement


def paste_faces(
    images: torch.Tensor,
    crops: torch.Tensor,
    placement: Placement,
    masks: torch.Tensor | None = None,
    keep_colour: bool = True,
) -> torch.Tensor:
    """Put painted crops back where they were cut out. Returns float32 [B, H, W, 3], a new tensor.

    images: the pictures that were given to `crop_faces`. crops: float [N, S, S, 3], [0, 1], in the order of the
    placement; S may differ from the size that was cut out. With a multiple of N crops the pictures are repeated, one
    copy for each turn: alternatives of the same face. masks: N or 1, of any shape that `check_masks` takes, in place of
    the placement's feathered squares. keep_colour: bring mean and contrast of each colour back to what the picture has
    in the soft edge, so that no cast shows. Where a mask is 0, and outside the crops, every value stays exactly the
    picture's. Raises InputError where pictures, crops and masks do not fit the placement.
    """
    pictures, painted = check_pictures(images), check_pictures(crops)
    masks = None if masks is None else check_masks(masks, "the mask")
    turns = _check_paste(pictures, painted, placement, masks)
    size, count = painted.shape[1], len(placement.places)
    result = pictures.repeat(turns, 1, 1, 1)
    for number, crop in enumerate(painted.numpy()):
        place = placement.places[number % count]
        matrix = np.array(place.matrix) * (size / placement.size)
        matrix[:, 2] += (size / placement.size - 1) / 2  # pixel centres, not edges, have whole numbers
        mask = _mask(masks, number % count, size, placement, place)
        target = result[number // count * placement.pictures + place.picture].numpy()
        if keep_colour:
            crop = _like(crop, _cut(target, matrix, size), mask)
        _blend(target, crop, mask, matrix)
    return result


def feathered(size: int, feather: float, soft: tuple[bool, bool, bool, bool] = (True, True, True, True)) -> np.ndarray:
    """A white square, float32 [size, size], that fades to 0 over `feather` of its side where `soft` says so."""
    width = feather * size
    steps = np.arange(size, dtype=np.float32)
    rising = np.clip(steps / width, 0, 1) if width >= 1 else np.ones(size, np.float32)
    rising = rising * rising * (3 - 2 * rising)  # no visible corner at either end
    rising[0] = 0
    ones = np.ones(size, np.float32)
    top, right, bottom, left = soft
    down = np.minimum(rising if top else ones, rising[::-1] if bottom else ones)
    across = np.minimum(rising if left else ones, rising[::-1] if right else ones)
    return down[:, None] * across[None, :]


def report(placement: Placement) -> str:
    """A line for each crop: its picture, side in px of the picture, how much it was enlarged and turned."""
    lines = []
    for number, place in enumerate(placement.places, 1):
        text = f"crop {number}: picture {place.picture + 1}, {placement.size / place.scale:.0f} px wide"
        text += f", {'enlarged' if place.scale >= 1 else 'shrunk'} {max(place.scale, 1 / place.scale):.1f} times"
        if abs(place.degrees) >= 1:
            text += f", turned by {abs(place.degrees):.0f} degrees"
        if place.scale < 1:
            text += "\n! the face has more px than the model paints: what is pasted back is softer"
        lines.append(text)
    return "\n".join(lines)


def _matrix(face: "Detection", margin: float, size: int, upright: bool, picture_size: tuple[int, int]) -> np.ndarray:
    longer = max(face.width, face.height)
    aligned = face_matrix(face.landmarks)
    angle = math.atan2(aligned[1, 0], aligned[0, 0]) if upright else 0.0
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    side = longer * margin
    room = (side - longer) / 2  # how far the face may lie from the crop's middle
    reach = side / 2 * (abs(math.cos(angle)) + abs(math.sin(angle)))
    centre = np.array(face.centre)
    inside = []
    for value, length in zip(centre, picture_size, strict=True):
        middle = (length - 1) / 2
        low, high = min(reach - 0.5, middle), max(length - 0.5 - reach, middle)
        inside.append(np.clip(value, low, high))
    shift = np.clip(turn @ (np.array(inside) - centre), -room, room)
    linear = turn * (size / side)
    offset = (size - 1) / 2 - linear @ (centre + turn.T @ shift)
    return np.column_stack([linear, offset])


def _cut(picture: np.ndarray, matrix: np.ndarray, size: int) -> np.ndarray:
    return np.clip(warp(picture, matrix, size, beyond=None, cubic=True), 0.0, 1.0)


def _soft_sides(matrix: np.ndarray, size: int, picture_size: tuple[int, int]) -> tuple[bool, bool, bool, bool]:
    corners = crop_outline(matrix, size)
    far = np.array(picture_size) - 1.5  # a side within a pixel of the edge lies on it
    soft = []
    for one, other in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        points = one + np.linspace(0, 1, _INSIDE)[:, None] * (other - one)
        soft.append(bool(((points > 0.5) & (points < far)).all(axis=1).any()))
    return tuple(soft)


def _mask(masks: torch.Tensor | None, number: int, size: int, placement: Placement, place: CropPlace) -> np.ndarray:
    if masks is None:
        return feathered(size, placement.feather, place.soft)
    one = masks[number if len(masks) > 1 else 0]
    scaled = torch.nn.functional.interpolate(one[None, None], size=(size, size), mode="bilinear", antialias=True)
    return scaled[0, 0].clamp(0, 1).numpy() * (feathered(size, 0.0, place.soft) > 0)


def _like(painted: np.ndarray, original: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The painted crop with each colour's mean and contrast as the original has them in the mask's soft edge."""
    edge = (mask > 0) & (mask < 1)
    if not edge.any():
        return painted
    seen, wanted = painted[edge], original[edge]
    gain = (wanted.std(axis=0) + 1e-3) / (seen.std(axis=0) + 1e-3)
    gain = np.clip(gain, *_COLOUR_GAIN)
    return np.clip((painted - seen.mean(axis=0)) * gain + wanted.mean(axis=0), 0.0, 1.0)


def _blend(target: np.ndarray, crop: np.ndarray, mask: np.ndarray, matrix: np.ndarray) -> None:
    """Lays the crop over `target` in place, through the inverse of `matrix`."""
    import cv2

    corners = crop_outline(matrix, len(crop))
    height, width = target.shape[:2]
    x0, y0 = (max(0, math.floor(v)) for v in corners.min(axis=0))
    x1, y1 = (min(n, math.ceil(v) + 1) for n, v in zip((width, height), corners.max(axis=0), strict=True))
    # A crop that shrinks is laid down k times finer and then averaged, so that no pixel of it is skipped.
    k = max(1, math.ceil(math.hypot(matrix[0, 0], matrix[1, 0]) - 1e-3))
    fine = matrix.copy()
    fine[:, :2] /= k
    fine[:, 2] = transform(matrix, [[x0 + (1 / k - 1) / 2, y0 + (1 / k - 1) / 2]])[0]
    window = (x1 - x0, y1 - y0)
    fine_window = (window[0] * k, window[1] * k)

    def lay(values: np.ndarray, how: int, border: int) -> np.ndarray:
        laid = cv2.warpAffine(values, fine, fine_window, flags=how | cv2.WARP_INVERSE_MAP, borderMode=border)
        return cv2.resize(laid, window, interpolation=cv2.INTER_AREA) if k > 1 else laid

    laid = lay(crop, cv2.INTER_CUBIC, cv2.BORDER_REPLICATE)
    # A mask is 0 along every side but those beyond the picture, where the crop goes on to the picture's edge.
    weight = lay(mask, cv2.INTER_LINEAR, cv2.BORDER_REPLICATE)[..., None]
    region = target[y0:y1, x0:x1]
    np.copyto(region, np.clip(region * (1 - weight) + laid * weight, 0.0, 1.0), where=weight > 0)


def _check(pictures: int, found: Any, index: int, margin: float, size: int, feather: float) -> None:
    if len(found) != pictures:
        raise InputError(f"There are {pictures} pictures, but detections for {len(found)}.")
    if isinstance(index, bool) or not isinstance(index, int) or index < ALL_FACES:
        raise InputError(f"The face index is {index!r}; a whole number from 0 is wanted, or {ALL_FACES} for all faces.")
    low, high = MARGIN_RANGE
    if not low <= margin <= high:
        raise InputError(
            f"The margin is {margin!r}; the crop's side over that of the face, {low} to {high}, is wanted."
        )
    if size < SMALLEST_CROP:
        raise InputError(f"The crop's size is {size} px; at least {SMALLEST_CROP} are wanted.")
    if not 0.0 <= feather <= MOST_FEATHER:
        raise InputError(f"The feather is {feather!r}; a part of the crop's side, 0 to {MOST_FEATHER}, is wanted.")


def _check_paste(
    pictures: torch.Tensor, painted: torch.Tensor, placement: Placement, masks: torch.Tensor | None
) -> int:
    """How many copies of the pictures there will be."""
    size = (pictures.shape[2], pictures.shape[1])
    if len(pictures) != placement.pictures or size != placement.picture_size:
        width, height = placement.picture_size
        raise InputError(
            f"The crops were cut out of {placement.pictures} of {width} x {height} px, and are to be pasted into "
            f"{len(pictures)} of {size[0]} x {size[1]} px. Wire the same pictures to both nodes."
        )
    count = len(placement.places)
    if len(painted) % count:
        raise InputError(
            f"There are {len(painted)} painted crops for {count} places; one each, or a multiple, is wanted."
        )
    if painted.shape[1] != painted.shape[2]:
        raise InputError(f"The painted crop is {painted.shape[2]} x {painted.shape[1]} px; a square is wanted.")
    if masks is not None and len(masks) not in (1, count):
        raise InputError(f"There are {len(masks)} masks for {count} crops; one for all, or one each, is wanted.")
    return len(painted) // count
