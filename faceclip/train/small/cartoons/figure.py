"""Where a person's head is and how it is turned, and everything below it: neck, clothes, scarf."""

import math
from dataclasses import dataclass

import numpy as np

from .canvas import Canvas, Colour, arc, shade
from .character import Character
from .scene import Scene

SKIN: dict[str, Colour] = {
    "porcelain": (255, 226, 214),
    "peach": (250, 192, 148),
    "golden": (228, 164, 88),
    "tan": (198, 128, 78),
    "brown": (150, 92, 58),
    "deep": (104, 62, 48),
}
HAIR: dict[str, Colour] = {
    "black": (34, 28, 38),
    "brown": (112, 62, 28),
    "blonde": (252, 216, 84),
    "ginger": (228, 92, 24),
    "silver": (226, 228, 234),
    "pink": (246, 96, 176),
    "blue": (44, 96, 232),
    "green": (36, 172, 92),
}
CLOTH: dict[str, Colour] = {
    "red": (220, 34, 40),
    "orange": (255, 134, 10),
    "yellow": (255, 226, 40),
    "green": (30, 158, 60),
    "blue": (30, 84, 226),
    "purple": (132, 44, 184),
    "white": (246, 246, 246),
    "black": (38, 38, 42),
}
_EYE_DISTANCE, _EYE_LINE, _NOSE_LINE, _MOUTH_LINE, _MOUTH_HALF = 26.0, 0.0, 10.5, 21.0, 9.5
_SHAPES = {"round": (29.0, 30.0), "long": (25.0, 35.0), "square": (28.0, 31.0), "heart": (28.5, 33.0)}


@dataclass(frozen=True)
class Head:
    """The head of one picture. Its own coordinates (u, v) have their origin between the eyes' line and the middle of
    the head, v down; `turn` is -1, 0 or 1 with a little jitter (-1: towards the picture's left)."""

    identity: Character
    scene: Scene
    centre: tuple[float, float]
    scale: float
    tilt: float
    turn: float
    half: tuple[float, float]

    @classmethod
    def of(cls, identity: Character, scene: Scene) -> "Head":
        j, p = scene.jitter, identity.jitter
        turn = {"facing forward": 0.0, "turned left": -1.0, "turned right": 1.0}[scene.pose]
        width, height = _SHAPES[identity.face_shape]
        return cls(
            identity,
            scene,
            centre=(63.5 + 4 * j[0], 55.5 + 2.5 * j[1]),
            scale=1 + 0.05 * j[2],
            tilt=math.radians(4 * j[3]),
            turn=turn * (1 + 0.12 * j[5]) + 0.06 * j[5],
            half=(width * (1 + 0.03 * p[0]), height * (1 + 0.03 * p[1])),
        )

    @property
    def skin(self) -> Colour:
        return _tinted(SKIN[self.identity.skin], self.identity.jitter[2], 7)

    @property
    def hair(self) -> Colour:
        return _tinted(HAIR[self.identity.hair_colour], self.identity.jitter[3], 9)

    def place(self, points) -> np.ndarray:
        """(u, v) of the head, [N, 2], to px of the picture."""
        points = np.atleast_2d(np.asarray(points, dtype=np.float64)) * self.scale
        c, s = math.cos(self.tilt), math.sin(self.tilt)
        x, y = points[:, 0] * c - points[:, 1] * s, points[:, 0] * s + points[:, 1] * c
        return np.stack([self.centre[0] + x, self.centre[1] + y], axis=1)

    def on_face(self, u: float, v: float, depth: float = 1.0) -> tuple[float, float]:
        """A point of the face's front, moved and narrowed by the turn; `depth` above 1 stands out, like the nose."""
        narrow = 1 - 0.12 * abs(self.turn)
        return u * narrow + 9.0 * depth * self.turn, v

    def eyes(self) -> tuple[tuple[float, float], tuple[float, float]]:
        half = _EYE_DISTANCE / 2 * (1 + 0.07 * self.identity.jitter[4])
        line = _EYE_LINE + 1.2 * self.identity.jitter[5]
        return self.on_face(-half, line), self.on_face(half, line)

    def nose(self) -> tuple[float, float]:
        return self.on_face(0, _NOSE_LINE + 0.8 * self.identity.jitter[6], 1.45)

    def mouth(self) -> tuple[float, float]:
        return self.on_face(0, _MOUTH_LINE)

    def mouth_half(self) -> float:
        return _MOUTH_HALF * (1 + 0.1 * self.identity.jitter[7]) * (1 - 0.12 * abs(self.turn))

    def landmarks(self) -> np.ndarray:
        """float32 [5, 2] px."""
        (u, v), half = self.mouth(), self.mouth_half()
        return self.place([*self.eyes(), self.nose(), (u - half, v), (u + half, v)]).astype(np.float32)


def _tinted(colour: Colour, amount: float, spread: float) -> Colour:
    shift = (spread * amount, spread * amount * 0.6, -spread * amount * 0.5)
    r, g, b = (int(min(255, max(0, c + d))) for c, d in zip(colour, shift, strict=True))
    return r, g, b


def draw_body_behind(canvas: Canvas, head: Head) -> None:
    """What lies between hair and neck: a hood."""
    if head.scene.garment == "hoodie":
        x, y = head.centre[0], head.centre[1] + 40
        canvas.ellipse((x, y), (31, 15), shade(CLOTH[head.scene.colour], 0.72))


def draw_body(canvas: Canvas, head: Head) -> None:
    """Neck, shoulders, the garment and a scarf."""
    x, y = head.centre[0], head.centre[1] + 34.0  # y: where the neck meets the chin
    skin, cloth = head.skin, CLOTH[head.scene.colour]
    dark = shade(cloth, 0.72) if head.scene.colour != "black" else (84, 84, 92)
    garment = head.scene.garment
    _shoulders(canvas, x, y, skin if garment == "tank top" else cloth)
    canvas.polygon(((x - 9, y - 12), (x + 9, y - 12), (x + 10, y + 8), (x, y + 13), (x - 10, y + 8)), skin)
    canvas.polygon(((x - 9, y - 8), (x + 9, y - 8), (x + 8, y + 3), (x - 8, y + 3)), shade(skin, 0.78), line=False)
    _GARMENTS[garment](canvas, x, y, cloth, dark)
    if head.scene.accessory == "scarf":
        _scarf(canvas, x, y)


def _shoulders(canvas: Canvas, x: float, y: float, colour: Colour) -> None:
    left = arc((x - 30, y + 22), (18, 15), 180, 270)
    right = arc((x + 30, y + 22), (18, 15), 270, 360)
    outline = [*left, (x - 12, y + 4), (x + 12, y + 4), *right, (x + 54, 150), (x - 54, 150)]
    canvas.polygon(outline, colour)


def _t_shirt(canvas, x, y, cloth, dark) -> None:
    canvas.stroke(arc((x, y + 4), (13, 11), 10, 170), dark, 3.0)
    for side in (-1, 1):
        canvas.stroke(((x + 33 * side, y + 26), (x + 31 * side, 132)), dark, 2.0)


def _hoodie(canvas, x, y, cloth, dark) -> None:
    canvas.polygon([*arc((x, y + 3), (22, 16), 0, 180), *arc((x, y + 1), (11, 8), 180, 0)], dark)
    for side in (-1, 1):
        canvas.stroke(((x + 8 * side, y + 14), (x + 9 * side, y + 30)), (255, 255, 255), 2.4)
        canvas.ellipse((x + 9 * side, y + 31), (2.2, 2.8), (255, 255, 255), line=False)


def _suit(canvas, x, y, cloth, dark) -> None:
    canvas.polygon(((x - 11, y + 3), (x + 11, y + 3), (x + 13, y + 20), (x, 146), (x - 13, y + 20)), (250, 250, 250))
    canvas.polygon(((x - 4, y + 11), (x + 4, y + 11), (x + 6, 134), (x - 6, 134)), (150, 20, 44))
    for side in (-1, 1):
        lapel = ((x + 10 * side, y + 1), (x + 22 * side, y + 8), (x + 24 * side, y + 24), (x + 5 * side, 140))
        canvas.polygon(lapel, dark)


def _tank_top(canvas, x, y, cloth, dark) -> None:
    front = [(x - 27, y + 7), (x - 18, y + 5), *arc((x, y + 10), (16, 17), 170, 10), (x + 18, y + 5), (x + 27, y + 7)]
    canvas.polygon([*front, *arc((x + 42, y + 14), (16, 18), 190, 100), (x + 34, 150), (x - 34, 150),
                    *arc((x - 42, y + 14), (16, 18), 80, -10)], cloth)  # fmt: skip


def _striped_sweater(canvas, x, y, cloth, dark) -> None:
    stripe = (250, 250, 250) if cloth[0] + cloth[1] + cloth[2] < 600 else (120, 126, 140)
    for v, half in ((y + 15, 43), (y + 26, 48), (y + 37, 52)):
        canvas.rectangle(x - half, v, x + half, v + 5, stripe)
    canvas.polygon([*arc((x, y - 3), (12.5, 4), 180, 0), *arc((x, y + 8), (13.5, 5), 0, 180)], cloth)
    canvas.stroke(arc((x, y + 8), (13.5, 5), 0, 180), dark, 1.4)


def _scarf(canvas: Canvas, x: float, y: float) -> None:
    red, yellow = (206, 30, 60), (255, 210, 70)
    canvas.polygon([*arc((x, y - 4), (18, 6), 180, 0), *arc((x, y + 5), (20, 8), 0, 180)], red)
    canvas.polygon(((x + 6, y + 4), (x + 17, y + 3), (x + 20, y + 26), (x + 8, y + 28)), red)
    for u in (-14, -5, 5, 14):
        canvas.stroke(((x + u, y - 1 - abs(u) * 0.1), (x + u * 1.05, y + 10 - abs(u) * 0.3)), yellow, 3.0)
    canvas.stroke(((x + 8, y + 17), (x + 19, y + 15)), yellow, 3.0)
    canvas.stroke(((x + 8.5, y + 24), (x + 19.5, y + 22)), yellow, 3.0)


_GARMENTS = {
    "t-shirt": _t_shirt,
    "hoodie": _hoodie,
    "suit": _suit,
    "tank top": _tank_top,
    "striped sweater": _striped_sweater,
}
