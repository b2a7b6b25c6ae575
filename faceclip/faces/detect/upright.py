"""A second look at each face, turned upright, for detectors whose landmarks follow a tilted head only in part.

Measured with YuNet on turned photos, mean landmark error in eye distances: at 15, 30 and 45 degrees 0.1, 0.25 and 0.4;
a face on its side or upside down is still found (score 0.8), but its landmarks are laid over it as if it stood upright
(0.7 to 1.5). Seen again in a view turned by the angle of its own landmarks, repeated until that angle settles, the
error is at most 0.1 at every angle. Without this the crop of such a face would be aligned wrongly without a word.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ...errors import InputError
from ..align import face_matrix, transform, warp
from .base import Detection, merge

_WORTH_IT = 0.5  # below this a find is more often texture, which some turned view makes look like a face
_SIDE = 320  # px of the view; the face's box takes 0.6 of it, the size that gave the best landmarks
_FACE_PART = 0.6
_GREY = 128
_SURE = 0.9  # upright faces score above this; only the others are also tried in quarter turns
_QUARTER_TURN_HANDICAP = 0.03  # a photo is more likely upright than not
_SETTLED = math.radians(2)
_NEARLY = math.radians(5)  # costs 0.03 eye distances of the landmarks, by the table above
_LOOKS = 4

Run = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray]]


def look_again(picture: np.ndarray, found: Sequence[Detection], run: Run, smallest: float = 0.0) -> list[Detection]:
    """`found` with better landmarks, and the score of the upright look where that is higher; best first.

    picture: uint8 [H, W, 3] RGB. run: as in `find_in_views`. The boxes stay. A find with a score under 0.5, or one
    that is not seen again or smaller than `smallest` px, stays as it is.
    """
    quick = smallest > 0
    worth = [one.score >= _WORTH_IT and min(one.width, one.height) >= smallest for one in found]
    return merge([_settle(picture, one, run, quick) if good else one for one, good in zip(found, worth, strict=True)])


def _settle(picture: np.ndarray, first: Detection, run: Run, quick: bool) -> Detection:
    """quick: a face that stands upright already, and is seen so, is looked at once."""
    best = _look(picture, first, _tilt(first), first.centre, run)
    if best is None or best.score < _SURE:
        turns = [_look(picture, first, _tilt(first) + k * math.pi / 2, first.centre, run) for k in (1, 2, 3)]
        turned = max((t for t in turns if t is not None), key=lambda t: t.score, default=None)
        if turned is not None and turned.score - _QUARTER_TURN_HANDICAP > (best or first).score:
            best = turned
    if best is None:
        return first
    tilt = _tilt(best)
    if quick and best.score >= _SURE and abs(math.remainder(tilt - _tilt(first), 2 * math.pi)) < _NEARLY:
        return replace(best, score=max(best.score, first.score))
    for _ in range(_LOOKS):
        centre = np.mean(best.landmarks, axis=0)
        better = _look(picture, first, tilt, centre, run)
        if better is None:
            break
        change = math.remainder(_tilt(better) - tilt, 2 * math.pi)
        best, tilt = better, _tilt(better)
        if abs(change) < _SETTLED:
            break
    return replace(best, score=max(best.score, first.score))


def _look(picture: np.ndarray, first: Detection, tilt: float, centre: Any, run: Run) -> Detection | None:
    """Find `first` again in a view about `centre` in which a face tilted by `tilt` radians stands upright."""
    scale = _SIDE * _FACE_PART / max(first.width, first.height, 1.0)
    c, s = scale * math.cos(-tilt), scale * math.sin(-tilt)
    matrix = np.array([[c, -s, 0.0], [s, c, 0.0]])
    matrix[:, 2] = (_SIDE - 1) / 2 - matrix[:, :2] @ np.asarray(centre, dtype=np.float64)
    try:
        view = warp(picture, matrix, _SIDE, beyond=_GREY)
    except InputError:  # nothing of the view lies in the picture
        return None
    back = np.linalg.inv(np.vstack([matrix, (0.0, 0.0, 1.0)]))[:2]
    best = None
    for box, score, points in zip(*run(view), strict=True):
        points = transform(back, points)
        x, y = points.mean(axis=0)
        inside = first.box[0] <= x <= first.box[2] and first.box[1] <= y <= first.box[3]
        size = max(box[2] - box[0], box[3] - box[1]) / (_SIDE * _FACE_PART)
        if inside and 0.5 < size < 2.0 and np.isfinite(points).all() and (best is None or score > best.score):
            best = Detection(first.box, float(score), tuple(map(tuple, points.tolist())))
    return best


def _tilt(face: Detection) -> float:
    """How far the landmarks are turned from upright, in radians, clockwise in the picture."""
    try:
        matrix = face_matrix(face.landmarks)
    except InputError:  # landmarks on one point: no tilt to tell
        return 0.0
    return -math.atan2(matrix[1, 0], matrix[0, 0])
