"""What every detector gives, and the views of a picture that each of them looks at.

A detector network finds faces of a certain range of sizes in pixels. So each picture is looked at in several sizes
("views"), each answers for the faces that have a good size in it, and the findings are merged:

1. the smallest view lies in the middle of a grey border as wide as half its side: a face that fills the picture, or
   is cut by its edge, looks like an ordinary face there;
2. further views have the longest side given by the detector's levels. A level above the picture's own size is left
   out (but a small picture is enlarged up to the first plain level), and the last view is the picture itself, if it
   is larger than the last level used and smaller than the next;
3. a find is dropped where it is larger than its level answers for, or smaller than 16 px in any view but the finest;
4. of finds that overlap (intersection over union above 0.4, or 0.7 of the smaller box covered) the best score stays.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ...errors import InputError

SCORE_FLOOR = 0.3  # finds below this are never reported, not even as "best score seen"
_BORDER_GREY = 128
_SMALLEST_IN_COARSE_VIEW = 16
_WELL_SEEN = 20  # px of a face in a view that need not be looked at any closer
_SAME_FACE_IOU = 0.4
_SAME_FACE_COVER = 0.7


@dataclass(frozen=True)
class Detection:
    """One face found in a picture.

    box: x0, y0, x1, y1 in pixels; it may reach beyond the picture. score: 0 to 1.
    landmarks: five (x, y) in pixels: left eye, right eye, nose, left and right mouth corner, as seen in the picture.
    """

    box: tuple[float, float, float, float]
    score: float
    landmarks: tuple[tuple[float, float], ...]

    @property
    def width(self) -> float:
        return self.box[2] - self.box[0]

    @property
    def height(self) -> float:
        return self.box[3] - self.box[1]

    @property
    def area(self) -> float:
        return max(0.0, self.width) * max(0.0, self.height)

    @property
    def centre(self) -> tuple[float, float]:
        return (self.box[0] + self.box[2]) / 2, (self.box[1] + self.box[3]) / 2


class Detector(Protocol):
    """What the rest of the library needs of a face detector."""

    name: str  # as shown to the user
    provider: str  # what it really runs on, such as "CPU" or "CUDA"
    notice: str | None  # a warning for the user about `provider`, if there is one

    def detect(self, picture: np.ndarray, smallest: float = 0.0) -> list[Detection]:
        """All faces with a score of at least SCORE_FLOOR, best first. picture: uint8 [H, W, 3], RGB, not changed.

        smallest: px; where smaller faces do not matter, the finest and dearest looks are spared.
        """
        ...


@dataclass(frozen=True)
class Level:
    """One size at which a picture is looked at: its longest side, and the largest face to trust there (px)."""

    side: int
    largest_face: float = float("inf")
    border: bool = False


@dataclass(frozen=True)
class View:
    """A picture as one level shows it; `scale` and `offset` lead from picture pixels to view pixels."""

    image: np.ndarray
    scale: tuple[float, float]
    offset: int
    level: Level
    finest: bool = False

    def to_picture(self, points: np.ndarray) -> np.ndarray:
        """[N, 2] view pixels -> picture pixels. cv2.resize keeps pixel edges, hence the halves."""
        return (points - self.offset + 0.5) / np.array(self.scale) - 0.5


def check_picture(picture: np.ndarray) -> None:
    """InputError unless `picture` is uint8 [H, W, 3]."""
    if not isinstance(picture, np.ndarray) or picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
        seen = f"{picture.dtype} {picture.shape}" if isinstance(picture, np.ndarray) else type(picture).__name__
        raise InputError(f"A detector takes one picture as uint8 [H, W, 3], RGB; it was given {seen}.")


def views(picture: np.ndarray, levels: Sequence[Level], smallest: float = 0.0) -> list[View]:
    """The views of one picture, coarsest first; `levels` are in rising order, the bordered one first.

    smallest: px of the smallest face that matters; 0 for any.
    """
    native = max(picture.shape[:2])
    first_plain = next(level.side for level in levels if not level.border)
    chosen = [level for level in levels if level.side <= max(native, first_plain)]
    left_out = levels[len(chosen) :]
    if left_out and native > chosen[-1].side * 1.1:
        chosen.append(Level(native, left_out[0].largest_face))
    # The first plain view that shows the smallest well is the last.
    enough = [n for n, one in enumerate(chosen) if not one.border and smallest * one.side >= _WELL_SEEN * native]
    chosen = chosen[: enough[0] + 1] if enough else chosen
    made: list[View] = []
    for level in reversed(chosen):
        # Where little matters, each view is made of the next finer one, which is quicker than of a large picture.
        source = made[-1].image if smallest and made and not made[-1].offset else picture
        made.append(_view(source, picture.shape[:2], level, finest=level is chosen[-1]))
    return made[::-1]


def find_in_views(
    picture: np.ndarray,
    levels: Sequence[Level],
    run: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray]],
    smallest: float = 0.0,
) -> list[Detection]:
    """Run a network over all views of a picture and merge what it finds, best score first.

    run: uint8 [h, w, 3] RGB view -> boxes [N, 4] (x0, y0, x1, y1), scores [N], landmarks [N, 5, 2], in view pixels.
    smallest: see `Detector.detect`.
    """
    check_picture(picture)
    found = []
    for view in views(picture, levels, smallest):
        boxes, scores, landmarks = run(view.image)
        for box, score, points in zip(boxes, scores, landmarks, strict=True):
            size = max(box[2] - box[0], box[3] - box[1])
            too_small = not view.finest and size < _SMALLEST_IN_COARSE_VIEW
            if too_small or size > view.level.largest_face or score < SCORE_FLOOR:
                continue
            corners = view.to_picture(np.asarray(box, dtype=np.float64).reshape(2, 2)).reshape(4)
            points = view.to_picture(np.asarray(points, dtype=np.float64))
            if not (np.isfinite(corners).all() and np.isfinite(points).all()):
                continue
            found.append(Detection(tuple(corners.tolist()), float(score), tuple(map(tuple, points.tolist()))))
    return merge(found)


def merge(found: Sequence[Detection]) -> list[Detection]:
    """Keep one detection of each face, the one with the best score; best first."""
    kept: list[Detection] = []
    for one in sorted(found, key=lambda d: -d.score):
        if not any(_same_face(one, other) for other in kept):
            kept.append(one)
    return kept


def _same_face(a: Detection, b: Detection) -> bool:
    width = min(a.box[2], b.box[2]) - max(a.box[0], b.box[0])
    height = min(a.box[3], b.box[3]) - max(a.box[1], b.box[1])
    if width <= 0 or height <= 0:
        return False
    common = width * height
    return common > _SAME_FACE_IOU * (a.area + b.area - common) or common > _SAME_FACE_COVER * min(a.area, b.area)


def _view(image: np.ndarray, shape: tuple[int, int], level: Level, finest: bool) -> View:
    """image: the picture, or a smaller one of it. shape: height and width of the picture."""
    import cv2

    height, width = shape
    factor = level.side / max(height, width)
    size = max(1, round(width * factor)), max(1, round(height * factor))
    if size != (image.shape[1], image.shape[0]):
        how = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
        image = cv2.resize(image, size, interpolation=how)
    offset = level.side // 2 if level.border else 0
    if offset:
        grey = (_BORDER_GREY,) * 3
        image = cv2.copyMakeBorder(image, offset, offset, offset, offset, cv2.BORDER_CONSTANT, value=grey)
    return View(image, (size[0] / width, size[1] / height), offset, level, finest)
