"""One picture of one person in one scene, drawn the same on every machine."""

from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np

from .backgrounds import background
from .canvas import SIZE, Canvas
from .character import Character
from .figure import Head, draw_body, draw_body_behind
from .head import draw_head, draw_head_behind
from .scene import Scene

# Factor per colour channel on the left and on the right edge, in 1/256.
_LIGHTS = {
    "daylight": ((256, 256, 256), (256, 256, 256)),
    "sunset light": ((284, 220, 158), (242, 186, 140)),
    "moonlight": ((132, 156, 232), (164, 186, 256)),
}
_PASTEL = 0.34  # how far pastel colours lie towards the paper
_PAPER = 250


@dataclass(frozen=True)
class Picture:
    """pixels: uint8 [128, 128, 3], RGB. landmarks: float32 [5, 2] px, as faceclip.faces.align takes them."""

    pixels: np.ndarray
    landmarks: np.ndarray


def render(identity: Character, scene: Scene) -> Picture:
    """Draw a person in a scene; about 2 ms."""
    ink = scene.style == "ink comic"
    canvas = Canvas(background(scene.background, ink, scene.jitter[4]), ink)
    head = Head.of(identity, scene)
    draw_head_behind(canvas, head)
    draw_body_behind(canvas, head)
    draw_body(canvas, head)
    draw_head(canvas, head)
    small = cv2.resize(canvas.pixels, (SIZE, SIZE), interpolation=cv2.INTER_AREA)
    return Picture(_style(_light(small, scene.light), scene.style), head.landmarks())


def _light(pixels: np.ndarray, name: str) -> np.ndarray:
    if name == "daylight":
        return pixels
    return np.minimum(pixels.astype(np.uint32) * _light_map(name) >> 8, 255).astype(np.uint8)


@cache
def _light_map(name: str) -> np.ndarray:
    left, right = (np.array(factors, np.int64) for factors in _LIGHTS[name])
    across = np.arange(SIZE)[:, None]
    return ((left * (SIZE - 1 - across) + right * across) // (SIZE - 1)).astype(np.uint32)[None]


def _style(pixels: np.ndarray, name: str) -> np.ndarray:
    if name != "pastel drawing":
        return pixels
    towards_paper = _pastel_map()
    return ((pixels.astype(np.uint32) * (256 - towards_paper) + _PAPER * towards_paper) >> 8).astype(np.uint8)


@cache
def _pastel_map() -> np.ndarray:
    """How much paper is seen, in 1/256: everywhere some, more towards the edge, unfilled at its rim."""
    edge = np.minimum(np.arange(SIZE), np.arange(SIZE)[::-1])
    near = np.clip(9 - np.minimum(edge[:, None], edge[None, :]), 0, 9)
    return (int(_PASTEL * 256) + near * near * 148 // 81).astype(np.uint32)[:, :, None]
