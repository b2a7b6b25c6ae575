"""Eight places, drawn once each and then cut out at a scene's offset."""

from functools import cache

import numpy as np

from .canvas import OVERSAMPLING, SIZE, Canvas, arc
from .character import random

MARGIN = 12  # px that a background can be moved to either side
_WIDTH = SIZE + 2 * MARGIN


def background(name: str, ink: bool, offset: float) -> np.ndarray:
    """uint8 [384, 384, 3], RGB, free to draw on. offset: -1 to 1, how far the place is moved sideways."""
    start = round((1 + offset) * MARGIN * OVERSAMPLING)
    return _drawn(name, ink)[:, start : start + SIZE * OVERSAMPLING].copy()


@cache
def _drawn(name: str, ink: bool) -> np.ndarray:
    canvas = Canvas(np.zeros((SIZE * OVERSAMPLING, _WIDTH * OVERSAMPLING, 3), np.uint8), ink)
    _PLACES[name](canvas, random((31, list(_PLACES).index(name))))
    canvas.pixels.setflags(write=False)
    return canvas.pixels


def _fill(canvas: Canvas, top: float, bottom: float, colour) -> None:
    canvas.rectangle(-5, top, _WIDTH + 5, bottom, colour)


def _beach(canvas, rng) -> None:
    _fill(canvas, -2, 70, (126, 214, 246))
    canvas.ellipse((124, 22), (13, 13), (255, 232, 96))
    for x, y in ((20, 24), (30, 21), (40, 25)):
        canvas.ellipse((x, y), (9, 6), (255, 255, 255), line=False)
    _fill(canvas, 56, 90, (30, 136, 206))
    for y in (63, 71, 79):
        for x in range(-4, _WIDTH, 22):
            canvas.stroke(arc((x + y % 10, y), (6, 3), 200, 340), (196, 236, 250), 1.3)
    _fill(canvas, 86, 130, (246, 218, 148))


def _forest(canvas, rng) -> None:
    _fill(canvas, -2, 130, (176, 222, 150))
    _fill(canvas, 96, 130, (72, 120, 46))
    for i, x in enumerate(range(-2, _WIDTH + 16, 17)):
        top = 4 + 14 * (i % 2) + float(rng.uniform(-4, 4))
        canvas.rectangle(x - 2.5, 80, x + 2.5, 104, (104, 66, 34), line=True)
        green = ((22, 96, 48), (40, 128, 60))[i % 2]
        for step in range(3):
            y = top + 22 * step
            canvas.polygon(((x, y), (x + 9 + 3 * step, y + 34), (x - 9 - 3 * step, y + 34)), green)


def _city(canvas, rng) -> None:
    _fill(canvas, -2, 130, (250, 190, 170))
    for i, x in enumerate(range(-6, _WIDTH, 20)):
        top = float(rng.uniform(6, 46))
        wall = ((96, 104, 132), (70, 78, 108), (124, 120, 148))[i % 3]
        canvas.rectangle(x, top, x + 19, 130, wall, line=True)
        for y in np.arange(top + 5, 124, 11):
            for w in (3.5, 11.5):
                canvas.rectangle(x + w, y, x + w + 4.5, y + 6, (255, 226, 120))


def _mountains(canvas, rng) -> None:
    _fill(canvas, -2, 130, (150, 196, 236))
    for x, top, half in ((16, 16, 52), (76, 4, 56), (136, 12, 54)):
        canvas.polygon(((x, top), (x + half, 112), (x - half, 112)), (104, 112, 134))
        f = 0.36
        h = top + f * (112 - top)
        w = half * f
        snow = ((x, top), (x + w, h), (x + w * 0.5, h - 6), (x + w * 0.1, h + 5), (x - w * 0.4, h - 5), (x - w, h))
        canvas.polygon(snow, (250, 252, 255))
    _fill(canvas, 96, 130, (104, 164, 84))


def _library(canvas, rng) -> None:
    _fill(canvas, -2, 130, (96, 56, 28))
    books = ((190, 54, 44), (222, 180, 96), (52, 104, 92), (62, 76, 130), (236, 226, 196), (142, 70, 100))
    for shelf in range(5):
        x, floor = 0.0, 24 + 27 * shelf
        while x < _WIDTH:
            width, height = float(rng.uniform(5, 8)), float(rng.uniform(15, 21))
            canvas.rectangle(x, floor - height, x + width - 0.6, floor, books[int(rng.integers(6))], line=True)
            x += width
        _fill(canvas, floor, floor + 4, (150, 98, 52))


def _space(canvas, rng) -> None:
    _fill(canvas, -2, 130, (22, 14, 52))
    for _ in range(70):
        x, y, r = rng.uniform(0, _WIDTH), rng.uniform(0, SIZE), rng.uniform(0.5, 1.3)
        canvas.ellipse((x, y), (r, r), (255, 255, 240), line=False)
    canvas.ellipse((128, 30), (15, 15), (232, 130, 82))
    canvas.stroke(arc((128, 30), (25, 7), -30, 210, -18), (250, 220, 160), 2.6)
    canvas.ellipse((20, 70), (11, 11), (110, 200, 220))
    canvas.ellipse((16, 67), (3.5, 3.5), (78, 160, 190), line=False)


def _brick_wall(canvas, rng) -> None:
    _fill(canvas, -2, 130, (222, 206, 194))
    for row in range(12):
        for i, x in enumerate(range(-12 * (row % 2), _WIDTH, 24)):
            tone = ((176, 70, 52), (196, 86, 62), (160, 60, 48))[(i * 7 + row * 5) % 3]
            canvas.rectangle(x, row * 11, x + 22.4, row * 11 + 9.4, tone)


def _sea_floor(canvas, rng) -> None:
    for step in range(13):
        _fill(canvas, step * 10 - 2, step * 10 + 12, (10, 168 - 7 * step, 178 - 5 * step))
    for i, x in enumerate(range(4, _WIDTH, 18)):
        sway = [(x + 4 * np.sin(y / 7 + i), y) for y in range(130, 46 + 16 * (i % 3), -3)]
        canvas.stroke(sway, (96, 190, 60), 3.6)
    for x, y, c, s in ((24, 30, (255, 160, 40), 1), (128, 48, (255, 214, 60), -1), (112, 16, (250, 110, 120), -1)):
        canvas.polygon(((x - 6 * s, y), (x - 13 * s, y - 6), (x - 13 * s, y + 6)), c)
        canvas.ellipse((x, y), (8, 5), c)
        canvas.ellipse((x + 4 * s, y - 1), (1.2, 1.2), (20, 20, 30), line=False)
    for _ in range(16):
        x, y, r = rng.uniform(0, _WIDTH), rng.uniform(0, 120), rng.uniform(1.4, 2.8)
        canvas.ellipse((x, y), (r, r), (196, 244, 244), line=False)


_PLACES = {
    "beach": _beach,
    "forest": _forest,
    "city": _city,
    "mountains": _mountains,
    "library": _library,
    "space": _space,
    "brick wall": _brick_wall,
    "sea floor": _sea_floor,
}
