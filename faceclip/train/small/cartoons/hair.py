"""The outline of the head, and ten ways to wear hair on it."""

import numpy as np

from .canvas import Canvas, arc, shade
from .figure import Head


def outline(head: Head, factor: float = 1.0) -> np.ndarray:
    """The face's contour in the head's coordinates, [N, 2], from the right side down; `factor` enlarges it."""
    t = np.radians(np.arange(0, 360, 7.5))
    c, s = np.cos(t), np.sin(t)
    width, height = head.half
    if head.identity.face_shape == "square":
        c, s = np.sign(c) * np.abs(c) ** 0.6, np.sign(s) * np.abs(s) ** 0.7
    below = np.clip(s, 0, 1)
    u, v = width * c, height * s
    if head.identity.face_shape == "heart":
        u = u * (1 - 0.5 * below**2)
    return np.stack([u + 3.0 * head.turn * below, v], axis=1) * factor


def draw_hair_behind(canvas: Canvas, head: Head) -> None:
    """What hangs or stands behind the head."""
    style, (w, h) = head.identity.hair_style, head.half
    back, lean = shade(head.hair, 0.82), -2.5 * head.turn
    if style == "long":
        sides = [*arc((lean, -4), (w + 9, h + 7), 180, 360), (lean + w + 13, 58), (lean - w - 13, 58)]
        canvas.polygon(head.place(sides), back)
    elif style == "bob":
        sides = [*arc((lean, -4), (w + 11, h + 6), 180, 360), (lean + w + 12, 24), (lean - w - 12, 24)]
        canvas.polygon(head.place(sides), back)
    elif style == "afro":
        canvas.polygon(head.place(arc((lean, -13), (w + 18, h + 12), 0, 360)), head.hair)
    elif style == "topknot":
        canvas.polygon(head.place(arc((lean, -h - 9), (12, 11), 0, 360)), head.hair)
    elif style == "pigtails":
        for side in (-1, 1):
            u = lean + side * (w + 14)
            canvas.polygon(head.place(arc((u, 6), (11, 24), 0, 360, -14 * side)), head.hair)
            canvas.polygon(head.place(arc((lean + side * (w + 6), -12), (4, 4), 0, 360)), (240, 40, 70))
    elif style == "curls":
        for degrees in range(150, 391, 24):
            a = np.radians(degrees)
            canvas.polygon(head.place(arc((lean + (w + 5) * np.cos(a), (h + 1) * np.sin(a)), (10, 10), 0, 360)), back)


def draw_hair(canvas: Canvas, head: Head) -> None:
    """What lies on the head."""
    _STYLES[head.identity.hair_style](canvas, head, 3.0 * head.turn)


def _cap(canvas: Canvas, head: Head, line, factor: float = 1.07, down: float = -6.0) -> None:
    """Hair over the skull down to `line`, the points of the hairline from right to left."""
    w, h = head.half[0] * factor, head.half[1] * factor
    start = np.degrees(np.arcsin(np.clip(down / h, -1, 1)))
    over = arc((0, 0), (w, h), 180 - start, 360 + start)
    canvas.polygon(head.place([*over, *line]), head.hair)


def _gleam(canvas: Canvas, head: Head, u: float = 0.0) -> None:
    w, h = head.half
    canvas.stroke(head.place(arc((u, 2), (w * 0.8, h * 0.97), 222, 252)), shade(head.hair, 1.35), 2.2)


def _crop(canvas, head, move) -> None:
    w, h = head.half
    _cap(canvas, head, [(w - 4, -8), (w - 6, -0.62 * h), (move, -0.68 * h), (6 - w, -0.62 * h), (4 - w, -8)], 1.04)


def _part(canvas, head, move) -> None:
    w, h = head.half
    line = [
        (w - 3, -4),
        (w - 5, -0.3 * h),
        (move, -0.5 * h),
        (move - 0.45 * w, -0.86 * h),
        (5 - w, -0.55 * h),
        (3 - w, -6),
    ]
    _cap(canvas, head, line, 1.13)
    canvas.stroke(head.place(((move - 0.45 * w, -0.86 * h), (move - 0.5 * w, -1.1 * h))), shade(head.hair, 0.6), 1.6)
    _gleam(canvas, head, 16)


def _spiky(canvas, head, move) -> None:
    w, h = head.half
    spikes = []
    for i, degrees in enumerate(np.linspace(176, 364, 15)):
        a, reach = np.radians(degrees), 1.04 if i % 2 == 0 else 1.42
        spikes.append((w * reach * np.cos(a), h * reach * np.sin(a)))
    fringe = [(w - 3, -6)]
    for i, u in enumerate(np.linspace(0.8 * w, -0.8 * w, 7)):
        fringe.append((u + move, (-0.42 if i % 2 else -0.68) * h))
    canvas.polygon(head.place([*spikes, *fringe, (3 - w, -6)]), head.hair)


def _afro(canvas, head, move) -> None:
    w, h = head.half
    _cap(canvas, head, arc((move, -4), (w - 3, 0.56 * h), 355, 185), 1.12, -2)


def _long(canvas, head, move) -> None:
    w, h = head.half
    for side in (-1, 1):
        lock = [(move, -1.12 * h), *arc((0, -3), (w + 6, h + 3), 280, 355), (w + 8, 50), (w - 2, 54), (w - 2, 4)]
        lock = [(side * (u - (move if i == 0 else 0)) + (move if i == 0 else 0), v) for i, (u, v) in enumerate(lock)]
        canvas.polygon(head.place([*lock, (side * 0.62 * w + move, -0.42 * h), (move, -0.84 * h)]), head.hair)
    _gleam(canvas, head)


def _bob(canvas, head, move) -> None:
    w, h = head.half
    for side in (-1, 1):
        lock = ((side * (w + 8), -8), (side * (w + 11), 24), (side * (w - 4), 26), (side * (w - 4), -10))
        canvas.polygon(head.place(lock), head.hair)
    _cap(canvas, head, [(w - 2, -0.4 * h), (2 - w, -0.4 * h)], 1.17, -8)
    _gleam(canvas, head)


def _topknot(canvas, head, move) -> None:
    w, h = head.half
    _cap(canvas, head, arc((move, -2), (w - 2, 0.78 * h), 348, 192), 1.05, -8)
    canvas.stroke(head.place(arc((-2.5 * head.turn, -h), (8, 3), 10, 170)), (240, 60, 90), 3.0)


def _pigtails(canvas, head, move) -> None:
    w, h = head.half
    line = [(w - 2, -8), (0.6 * w + move, -0.5 * h), (move, -0.92 * h), (move - 0.6 * w, -0.5 * h), (2 - w, -8)]
    _cap(canvas, head, line, 1.08)
    canvas.stroke(head.place(((move, -0.92 * h), (move, -1.07 * h))), shade(head.hair, 0.6), 1.6)


def _mohawk(canvas, head, move) -> None:
    w, h = head.half
    crest = [(move - 8, -0.55 * h)]
    for u, v in ((-12, -1.0), (-14, -1.42), (-6, -1.3), (0, -1.66), (6, -1.3), (14, -1.42), (12, -1.0)):
        crest.append((u + 0.6 * move, v * h))
    canvas.polygon(head.place([*crest, (move + 8, -0.55 * h), (move, -0.42 * h)]), head.hair)


def _curls(canvas, head, move) -> None:
    w, h = head.half
    _cap(canvas, head, [(w - 4, -8), (0.6 * w, -0.6 * h), (-0.6 * w, -0.6 * h), (4 - w, -8)], 1.08)
    for degrees in range(190, 351, 20):
        a = np.radians(degrees)
        centre = (move * 0.5 + w * 0.9 * np.cos(a), h * 0.86 * np.sin(a) - 2)
        canvas.polygon(head.place(arc(centre, (8.5, 8.5), 0, 360)), head.hair)


_STYLES = {
    "crop": _crop,
    "part": _part,
    "spiky": _spiky,
    "afro": _afro,
    "long": _long,
    "bob": _bob,
    "topknot": _topknot,
    "pigtails": _pigtails,
    "mohawk": _mohawk,
    "curls": _curls,
}
