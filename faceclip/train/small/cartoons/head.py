"""The head: face, hair, features and what is worn on it."""

import numpy as np

from .canvas import INK, Canvas, Colour, arc, blend, shade
from .figure import Head
from .hair import draw_hair, draw_hair_behind, outline

_IRIS: dict[str, Colour] = {
    "brown": (96, 52, 24),
    "blue": (36, 122, 232),
    "green": (32, 160, 70),
    "amber": (240, 156, 16),
    "violet": (158, 70, 220),
}
_EYE = {"small": (5.2, 4.4), "medium": (6.4, 5.4), "large": (7.8, 6.6)}
_LIPS: dict[str, Colour] = {"plain": (150, 70, 64), "red": (222, 20, 40), "plum": (120, 24, 110)}
# Per expression: how far the brows are raised, how far their inner ends are raised over the outer ones, eye opening.
_MOODS = {
    "smiling": (0.5, 0.0, 1.0),
    "serious": (-0.8, -0.8, 0.82),
    "surprised": (4.2, 0.5, 1.3),
    "sad": (1.5, 4.0, 0.9),
    "angry": (-1.2, -4.4, 0.9),
}


def draw_head_behind(canvas: Canvas, head: Head) -> None:
    draw_hair_behind(canvas, head)


def draw_head(canvas: Canvas, head: Head) -> None:
    _ears(canvas, head)
    canvas.polygon(head.place(outline(head)), head.skin)
    _beard(canvas, head)
    _blush(canvas, head)
    _eyes(canvas, head)
    _nose(canvas, head)
    _mouth(canvas, head)
    _moustache(canvas, head)
    _marks(canvas, head)
    draw_hair(canvas, head)
    _brows(canvas, head)
    _WORN[head.scene.accessory](canvas, head)


def _ears(canvas: Canvas, head: Head) -> None:
    for side in (-1, 1):
        if side * head.turn > 0.5:
            continue  # the far ear is hidden
        u = side * (head.half[0] + 0.5) + 5 * head.turn
        canvas.polygon(head.place(arc((u, 4), (5, 7), 0, 360)), head.skin)
        canvas.polygon(head.place(arc((u + side * 0.4, 4), (2.4, 4), 0, 360)), shade(head.skin, 0.78), line=False)


def _eyes(canvas: Canvas, head: Head) -> None:
    opening = _MOODS[head.scene.expression][2]
    width, height = _EYE[head.identity.eye_size]
    iris = _IRIS[head.identity.eye_colour]
    for side, (u, v) in zip((-1, 1), head.eyes(), strict=True):
        narrow = 0.82 if side * head.turn > 0.5 else 1.0
        h = height * opening
        canvas.polygon(head.place(arc((u, v), (width * narrow, h), 0, 360)), (255, 255, 255))
        look = u + 1.1 * head.turn
        r = min(height * 0.86, 5.2)
        ball = np.minimum(r, h)
        canvas.polygon(head.place(arc((look, v), (r * narrow, ball), 0, 360)), iris, line=False)
        canvas.polygon(head.place(arc((look, v), (r * 0.45, min(r * 0.45, h)), 0, 360)), (14, 12, 18), line=False)
        canvas.polygon(head.place(arc((look + 1.6, v - 1.6), (1.1, 1.1), 0, 360)), (255, 255, 255), line=False)
        canvas.stroke(head.place(arc((u, v), (width * narrow + 0.4, h + 0.3), 190, 350)), INK, 1.5)


def _brows(canvas: Canvas, head: Head) -> None:
    raised, inner, _ = _MOODS[head.scene.expression]
    kind = head.identity.brows
    thickness = 2.0 if kind == "thin" else 4.0
    colour = shade(head.hair, 0.8)
    ends = []
    for side, (u, v) in zip((-1, 1), head.eyes(), strict=True):
        v = v - _EYE[head.identity.eye_size][1] - 4.2 - raised
        points = (
            (u - side * 6, v - inner * 0.7),
            (u - side * 1, v - 1.6 - inner * 0.1),
            (u + side * 6.4, v + inner * 0.4),
        )
        ends.append(points[0])
        canvas.stroke(head.place(points), colour, thickness)
    if kind == "joined":
        canvas.stroke(head.place(ends), colour, thickness)


def _nose(canvas: Canvas, head: Head) -> None:
    u, v = head.nose()
    dark, lean = shade(head.skin, 0.68), 2.0 * head.turn
    kind = head.identity.nose
    if kind == "button":
        canvas.polygon(head.place(arc((u, v), (3.6, 3.0), 0, 360)), dark)
    elif kind == "wide":
        canvas.polygon(head.place(arc((u, v + 0.4), (7.2, 3.2), 0, 360)), dark)
    elif kind == "long":
        canvas.polygon(
            head.place(((u - lean - 1.6, v - 12), (u - lean + 1.6, v - 12), (u + 3.4, v + 3), (u - 3.4, v + 3))), dark
        )
    else:
        canvas.polygon(head.place(((u - lean, v - 8), (u + 5.5, v + 3), (u - 5.5, v + 3))), dark)


def _mouth(canvas: Canvas, head: Head) -> None:
    (u, v), w = head.mouth(), head.mouth_half()
    lips = blend(head.skin, _LIPS[head.identity.lips], 0.6)
    width = 2.0 if head.identity.lips == "plain" else 2.8
    mood = head.scene.expression
    if mood == "smiling":
        canvas.polygon(head.place(arc((u, v - 1.5), (w + 1, 9), 0, 180)), (120, 16, 28), line=False)
        canvas.polygon(head.place([*arc((u, v - 1.5), (w, 4), 0, 180)]), (255, 255, 255), line=False)
        canvas.stroke(head.place([*arc((u, v - 1.5), (w + 1, 9), 0, 180), (u + w + 1, v - 1.5)]), lips, width)
    elif mood == "serious":
        canvas.stroke(head.place(((u - w, v), (u + w, v))), lips, width + 0.8)
    elif mood == "surprised":
        canvas.polygon(head.place(arc((u, v + 1), (5.4, 7.4), 0, 360)), (92, 10, 24), line=False)
        canvas.stroke(head.place(arc((u, v + 1), (5.4, 7.4), 0, 360)), lips, width)
    elif mood == "sad":
        canvas.stroke(head.place(arc((u, v + 5), (w, 8), 195, 345)), lips, width + 0.8)
    else:
        teeth = ((u - w, v - 3), (u + w, v - 3), (u + w, v + 4), (u - w, v + 4))
        canvas.polygon(head.place(teeth), (255, 255, 255), line=False)
        for x in (-0.5, 0.0, 0.5):
            canvas.stroke(head.place(((u + x * w, v - 3), (u + x * w, v + 4))), (90, 84, 84), 1.0)
        canvas.stroke(head.place(((u - w, v + 0.5), (u + w, v + 0.5))), (90, 84, 84), 1.0)
        canvas.stroke(head.place((*teeth, teeth[0])), lips, width)


def _beard(canvas: Canvas, head: Head) -> None:
    kind = head.identity.facial_hair
    (u, v), hair = head.mouth(), shade(head.hair, 0.9)
    if kind == "beard":
        contour = outline(head, 1.06)
        lower = contour[contour[:, 1] > 6.0]
        lower = lower[np.argsort(-np.arctan2(lower[:, 1] - 6.0, lower[:, 0]))]  # left to right, along the chin
        upper = [(u + 18, v - 5), (u, v - 10), (u - 18, v - 5)]
        canvas.polygon(head.place([*lower, *upper]), hair)
    elif kind == "goatee":
        chin = head.half[1] + 4
        canvas.polygon(head.place([(u - 7, v + 9), (u + 7, v + 9), (u * 0.6 + 4, chin), (u * 0.6 - 4, chin)]), hair)


def _moustache(canvas: Canvas, head: Head) -> None:
    if head.identity.facial_hair not in ("moustache", "beard"):
        return
    (u, v), w = head.mouth(), head.mouth_half() + 3
    v = v - 4.5
    halves = [*arc((u - w / 2, v), (w / 2, 3.6), 200, 350), *arc((u + w / 2, v), (w / 2, 3.6), 190, 340)]
    points = [(u - w, v + 2.5), *halves, (u + w, v + 2.5), (u, v + 1.0)]
    canvas.polygon(head.place(points), shade(head.hair, 0.9))


def _blush(canvas: Canvas, head: Head) -> None:
    if head.identity.marks != "blush":
        return
    pink = blend(head.skin, (255, 70, 100), 0.5)
    for u, v in (head.on_face(-17, 12), head.on_face(17, 12)):
        canvas.polygon(head.place(arc((u, v), (6, 4.4), 0, 360)), pink, line=False)


def _marks(canvas: Canvas, head: Head) -> None:
    kind = head.identity.marks
    if kind == "freckles":
        colour = shade(head.skin, 0.6)
        for u, v in ((-20, 9), (-15, 12), (-19, 15), (-12, 9), (20, 9), (15, 12), (19, 15), (12, 9)):
            canvas.polygon(head.place(arc(head.on_face(u, v), (1.4, 1.4), 0, 360)), colour, line=False)
    elif kind == "mole":
        canvas.polygon(head.place(arc(head.on_face(16, 14), (2.4, 2.4), 0, 360)), (40, 16, 18), line=False)
    elif kind == "scar":
        colour = (214, 60, 70) if sum(head.skin) > 330 else (232, 150, 140)
        start, end = head.on_face(-21, 7), head.on_face(-11, 18)
        canvas.stroke(head.place((start, end)), colour, 2.0)
        for f in (0.3, 0.7):
            u, v = (a + f * (b - a) for a, b in zip(start, end, strict=True))
            canvas.stroke(head.place(((u - 2.2, v + 2.2), (u + 2.2, v - 2.2))), colour, 1.4)


def _glasses(canvas: Canvas, head: Head) -> None:
    left, right = head.eyes()
    for u, v in (left, right):
        canvas.stroke(head.place(arc((u, v), (10.6, 9.6), 0, 360)), (20, 20, 24), 2.6)
    canvas.stroke(head.place(((left[0] + 10, left[1] - 1), (right[0] - 10, right[1] - 1))), (20, 20, 24), 2.6)
    for side, (u, v) in ((-1, left), (1, right)):
        canvas.stroke(
            head.place(((u + side * 10, v - 2), (side * head.half[0] + 4 * head.turn, v - 3))), (20, 20, 24), 2.6
        )


def _straw_hat(canvas: Canvas, head: Head) -> None:
    v, shift = -0.62 * head.half[1], 2.5 * head.turn
    straw = (240, 200, 96)
    canvas.polygon(head.place([*arc((shift, v), (27, 30), 180, 360)]), straw)
    canvas.polygon(
        head.place(((shift - 27, v - 9), (shift + 27, v - 9), (shift + 27, v), (shift - 27, v))), (200, 30, 44)
    )
    canvas.polygon(head.place(arc((shift, v + 1), (46, 7.5), 0, 360)), straw)
    canvas.stroke(head.place(arc((shift, v + 0.5), (36, 4), 20, 160)), shade(straw, 0.8), 1.4)


def _headphones(canvas: Canvas, head: Head) -> None:
    w, h = head.half[0] + 4, head.half[1] + 6
    canvas.stroke(head.place(arc((2 * head.turn, -1), (w, h), 185, 355)), (28, 28, 36), 5.5)
    for side in (-1, 1):
        u = side * w + 3 * head.turn
        canvas.polygon(head.place(arc((u, 3), (7, 12), 0, 360)), (28, 28, 36))
        canvas.polygon(head.place(arc((u + side, 3), (3.6, 8), 0, 360)), (0, 220, 210), line=False)


def _crown(canvas: Canvas, head: Head) -> None:
    v, shift, gold = -0.74 * head.half[1], 2.5 * head.turn, (255, 204, 20)
    points = ((-23, 2), (-26, -19), (-13, -9), (0, -23), (13, -9), (26, -19), (23, 2))
    canvas.polygon(head.place([(u + shift, v + w) for u, w in points]), gold)
    for u, w, colour in ((-14, -3, (220, 20, 60)), (0, -5, (30, 110, 240)), (14, -3, (220, 20, 60))):
        canvas.polygon(head.place(arc((u + shift, v + w), (3.2, 3.2), 0, 360)), colour, line=False)


def _nothing(canvas: Canvas, head: Head) -> None:
    return None


_WORN = {
    "no accessories": _nothing,
    "scarf": _nothing,  # drawn with the body
    "glasses": _glasses,
    "straw hat": _straw_hat,
    "headphones": _headphones,
    "crown": _crown,
}
