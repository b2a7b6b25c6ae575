"""A drawing surface for cartoons: filled shapes in sub-pixel places, with or without an ink line around them."""

import math

import cv2
import numpy as np

SIZE = 128  # px, width and height of the finished picture
OVERSAMPLING = 3  # drawn three times larger, then averaged: smooth edges
INK = (24, 20, 30)
_SHIFT = 4  # OpenCV takes whole numbers with this many binary places
_UNIT = OVERSAMPLING * (1 << _SHIFT)

Colour = tuple[int, int, int]


class Canvas:
    """RGB, uint8 [size * 3, width * 3, 3]. Places are px of the finished picture; pixel centres are whole numbers.

    `ink`: draw an outline around every shape that does not refuse it.
    """

    def __init__(self, pixels: np.ndarray, ink: bool):
        self.pixels, self.ink = pixels, ink

    def polygon(self, points, colour: Colour, line: bool = True) -> None:
        """points: [N, 2] px."""
        fixed = _fixed(points)
        cv2.fillPoly(self.pixels, [fixed], colour, cv2.LINE_8, _SHIFT)
        if self.ink and line:
            cv2.polylines(self.pixels, [fixed], True, INK, 3, cv2.LINE_8, _SHIFT)

    def ellipse(self, centre, radii, colour: Colour, line: bool = True, angle: float = 0.0) -> None:
        self.polygon(arc(centre, radii, 0, 360, angle), colour, line)

    def stroke(self, points, colour: Colour, width: float) -> None:
        """An open line through `points`, `width` px wide, with round ends."""
        thickness = max(1, round(width * OVERSAMPLING))
        cv2.polylines(self.pixels, [_fixed(points)], False, colour, thickness, cv2.LINE_8, _SHIFT)

    def rectangle(self, x0: float, y0: float, x1: float, y1: float, colour: Colour, line: bool = False) -> None:
        self.polygon(((x0, y0), (x1, y0), (x1, y1), (x0, y1)), colour, line)


def arc(centre, radii, start: float, end: float, angle: float = 0.0) -> np.ndarray:
    """Points of an ellipse from `start` to `end` degrees (0 right, 90 down), turned by `angle`: [N, 2]."""
    count = max(6, int(abs(end - start) / 360 * (12 + 0.8 * max(radii))))
    t = np.radians(np.linspace(start, end, count + 1))
    x, y = radii[0] * np.cos(t), radii[1] * np.sin(t)
    if angle:
        c, s = math.cos(math.radians(angle)), math.sin(math.radians(angle))
        x, y = c * x - s * y, s * x + c * y
    return np.stack([centre[0] + x, centre[1] + y], axis=1)


def shade(colour: Colour, factor: float) -> Colour:
    """Darker below 1, nearer to white above 1."""
    r, g, b = (int(c * factor if factor <= 1 else c + (255 - c) * (factor - 1)) for c in colour)
    return r, g, b


def blend(first: Colour, second: Colour, share: float) -> Colour:
    """`share` of the second colour, the rest of the first."""
    r, g, b = (int(x + share * (y - x)) for x, y in zip(first, second, strict=True))
    return r, g, b


def _fixed(points) -> np.ndarray:
    # The centre of pixel p covers the drawn pixels 3p, 3p + 1, 3p + 2: its middle is 3p + 1.
    points = np.asarray(points, dtype=np.float64)
    return np.round(points * _UNIT + (1 << _SHIFT)).astype(np.int32)
