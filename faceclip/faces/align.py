"""Alignment of one face to the ArcFace five-point template.

Landmarks are five (x, y) points in pixels, in the order left eye, right eye, nose, left mouth corner, right mouth
corner; left and right are as seen in the picture. Pixel centres have whole-number coordinates, as in OpenCV.
"""

import math

import numpy as np
from numpy.typing import ArrayLike

from ..errors import InputError

CROP_SIZE = 448

# ArcFace's template for 112 x 112 (Deng et al., arXiv 1801.07698), in the landmark order above.
TEMPLATE_112 = (
    (38.2946, 51.6963),
    (73.5318, 51.5014),
    (56.0252, 71.7366),
    (41.5493, 92.3655),
    (70.7299, 92.2041),
)
MARGIN_RANGE = (0.5, 4.0)
_SMALLEST_SPREAD = 1.0  # px; five points closer together than this carry no direction


def template(size: int = CROP_SIZE, margin: float = 1.0) -> np.ndarray:
    """Where the landmarks belong in a crop: float64 [5, 2], pixels of a `size` x `size` crop.

    `margin` 1.0 is the 112 px template times size / 112. Above 1 the template shrinks about the crop's centre, so
    that much more of the picture is shown; below 1 it grows. InputError if `margin` is outside 0.5 to 4.
    """
    low, high = MARGIN_RANGE
    if not (isinstance(margin, (int, float)) and low <= margin <= high):
        raise InputError(f"The margin is {margin!r}; it must be a number from {low} to {high} (1.0 is the template).")
    centre = (size - 1) / 2
    points = np.array(TEMPLATE_112, dtype=np.float64) * (size / 112)
    return centre + (points - centre) / margin


def similarity(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The least-squares similarity (rotation, uniform scale, shift) that takes `source` to `target`.

    Both are [N, 2] with N >= 2. Returns float64 [2, 3], the matrix M with M @ (x, y, 1) = (x', y').
    In two dimensions Umeyama's solution (IEEE PAMI 13, 1991) has this closed form: with points as complex numbers,
    centred, a = sum(conj(z) w) / sum(|z|^2). A complex factor turns and scales but never mirrors.
    InputError if the points are not finite, or lie so close together that no direction can be told.
    """
    source, target = _points(source), _points(target)
    z = source[:, 0] + 1j * source[:, 1]
    w = target[:, 0] + 1j * target[:, 1]
    z_mean, w_mean = z.mean(), w.mean()
    z, w = z - z_mean, w - w_mean
    energy = float(np.sum(np.abs(z) ** 2))
    if math.sqrt(energy / len(z)) < _SMALLEST_SPREAD:
        raise InputError(
            f"The {len(z)} landmarks lie within {math.sqrt(energy / len(z)):.2f} px of each other, so the face has no "
            "size or direction to align by. Use a larger picture of the face."
        )
    factor = np.sum(np.conj(z) * w) / energy
    if abs(factor) < 1e-6:
        raise InputError(
            "The landmarks cannot be laid on the face template by turning and scaling; they are not in the order left "
            "eye, right eye, nose, left mouth corner, right mouth corner. Check the detector."
        )
    shift = w_mean - factor * z_mean
    return np.array([[factor.real, -factor.imag, shift.real], [factor.imag, factor.real, shift.imag]])


def face_matrix(landmarks: ArrayLike, size: int = CROP_SIZE, margin: float = 1.0) -> np.ndarray:
    """The [2, 3] matrix from picture pixels to the pixels of the aligned crop. `landmarks`: [5, 2] px."""
    points = _points(landmarks)
    if points.shape != (5, 2):
        raise InputError(f"The landmarks have shape {points.shape}; five (x, y) points are wanted.")
    return similarity(points, template(size, margin))


def transform(matrix: np.ndarray, points: ArrayLike) -> np.ndarray:
    """Apply a [2, 3] matrix to [N, 2] points."""
    points = np.asarray(points, dtype=np.float64)
    return points @ matrix[:, :2].T + matrix[:, 2]


def align(picture: np.ndarray, landmarks: ArrayLike, size: int = CROP_SIZE, margin: float = 1.0) -> np.ndarray:
    """Cut one face out of a picture, aligned to the template.

    picture: float32 [H, W, 3], [0, 1], or uint8; not changed. landmarks: [5, 2] px. Returns float32 [size, size, 3],
    [0, 1], the same for both: of a picture in bytes, only what is cut out becomes floats.

    Sampling is bilinear. A face that shrinks to half or less is first averaged over blocks of whole pixels, so that
    no pixel of a large photo is skipped (bilinear alone reads 2 x 2 and would alias). Where the crop reaches beyond
    the picture it is black, as in the crops that face recognition is trained on.
    """
    if picture.ndim != 3 or picture.shape[2] != 3 or str(picture.dtype) not in ("float32", "uint8"):
        raise InputError(f"The picture is {picture.dtype} {picture.shape}; float32 or uint8 [H, W, 3] is wanted.")
    return np.clip(warp(picture, face_matrix(landmarks, size, margin), size, floats=True), 0.0, 1.0)


def warp(
    picture: np.ndarray,
    matrix: np.ndarray,
    size: int,
    beyond: int | None = 0,
    cubic: bool = False,
    floats: bool = False,
) -> np.ndarray:
    """The sampling of `align` for any similarity [2, 3] from picture to crop, and uint8 as well as float32 pictures.

    `beyond` is the value of what lies outside the picture, None the nearest pixel of its edge. `cubic` keeps a face
    that is enlarged sharper, and leaves the range of the values a little. `floats` makes float32 of a uint8 picture.
    """
    import cv2

    border = cv2.BORDER_REPLICATE if beyond is None else cv2.BORDER_CONSTANT
    fill = (beyond or 0,) * 3

    height, width = picture.shape[:2]
    scale = math.hypot(matrix[0, 0], matrix[1, 0])
    block = max(1, int(1 / scale + 1e-9))
    x0, y0, x1, y1 = _footprint(matrix, size, width, height, block)
    if x0 >= x1 or y0 >= y1:
        raise InputError(
            f"The face's landmarks lie outside the {width} x {height} px picture, so there is nothing to cut out."
        )
    region = picture[y0:y1, x0:x1]
    if floats and region.dtype == np.uint8:
        region = np.divide(region, np.float32(255), dtype=np.float32)
    if block > 1:
        # Whole blocks only: what is missing at the right and bottom edge is filled like everything beyond it.
        right, bottom = -region.shape[1] % block, -region.shape[0] % block
        region = cv2.copyMakeBorder(region, 0, bottom, 0, right, border, value=fill)
        region = cv2.resize(region, (region.shape[1] // block, region.shape[0] // block), interpolation=cv2.INTER_AREA)
    # Pixel u of the region stands for pixel block * u + (block - 1) / 2 + (x0, y0) of the picture.
    local = matrix.copy()
    local[:, :2] *= block
    local[:, 2] = transform(matrix, [[x0 + (block - 1) / 2, y0 + (block - 1) / 2]])[0]
    return cv2.warpAffine(
        np.ascontiguousarray(region),
        local,
        (size, size),
        flags=cv2.INTER_CUBIC if cubic else cv2.INTER_LINEAR,
        borderMode=border,
        borderValue=fill,
    )


def crop_outline(matrix: np.ndarray, size: int) -> np.ndarray:
    """The crop's four corners in picture pixels, [4, 2], clockwise from the top left."""
    inverse = np.linalg.inv(matrix[:, :2])
    corners = np.array([[0, 0], [size - 1, 0], [size - 1, size - 1], [0, size - 1]], dtype=np.float64)
    return (corners - matrix[:, 2]) @ inverse.T


def _footprint(matrix: np.ndarray, size: int, width: int, height: int, block: int) -> tuple[int, int, int, int]:
    """The part of the picture that the crop reads: x0, y0, x1, y1 with the ends excluded, x0 and y0 on a block."""
    corners = crop_outline(matrix, size)
    reach = 2 * block  # bilinear reads one more (averaged) pixel on each side
    x0, y0 = (max(0, (math.floor(v) - reach) // block * block) for v in corners.min(axis=0))
    x1, y1 = (math.ceil(v) + reach + 1 for v in corners.max(axis=0))
    return x0, y0, min(x1, width), min(y1, height)


def _points(points: ArrayLike) -> np.ndarray:
    array = np.asarray(points, dtype=np.float64)
    if array.ndim != 2 or array.shape[1] != 2 or len(array) < 2:
        raise InputError(f"Landmarks have shape {array.shape}; a list of at least two (x, y) points is wanted.")
    if not np.isfinite(array).all():
        raise InputError("A landmark is NaN or infinite, so the face cannot be aligned. Detect the face again.")
    return array
