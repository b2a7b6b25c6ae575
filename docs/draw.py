"""Draws docs/icon.png and docs/banner.png, which ComfyUI's registry shows: `python -m docs.draw`, in the repository.

One cartoon person of the small model's world, drawn large: once to be looked at, three times elsewhere.
"""

from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from faceclip.train.small.cartoons.canvas import OVERSAMPLING, SIZE, Canvas
from faceclip.train.small.cartoons.character import CUES, Character
from faceclip.train.small.cartoons.figure import Head, draw_body, draw_body_behind
from faceclip.train.small.cartoons.head import draw_head, draw_head_behind
from faceclip.train.small.cartoons.scene import ATTRIBUTES, Scene

HERE = Path(__file__).resolve().parent
PERSON = {
    "skin": "peach",
    "hair_colour": "ginger",
    "hair_style": "bob",
    "face_shape": "heart",
    "eye_colour": "green",
    "marks": "freckles",
    "eye_size": "large",
    "lips": "red",
}
REFERENCE = {"garment": "hoodie", "colour": "blue"}
SCENES = (
    ("a crown", (255, 196, 61), {"garment": "suit", "colour": "purple", "accessory": "crown"}),
    ("headphones", (255, 111, 97), {"garment": "t-shirt", "colour": "yellow", "accessory": "headphones"}),
    ("a straw hat", (64, 178, 150), {"garment": "striped sweater", "colour": "red", "accessory": "straw hat"}),
)
TOP, BOTTOM, WHITE = (44, 33, 92), (17, 112, 124), (255, 255, 255)
_DETAIL = 4  # drawn so much larger than the cartoons are, before they are made small
_FACTOR = 2  # drawn so much larger than shown, for smooth edges


class Sheet(Canvas):
    """A canvas of finer pixels."""

    def polygon(self, points, colour, line=True):
        super().polygon(np.asarray(points) * _DETAIL, colour, line)

    def stroke(self, points, colour, width):
        super().stroke(np.asarray(points) * _DETAIL, colour, width * _DETAIL)


def numbers(chosen: dict[str, str], table: dict[str, tuple[str, ...]]) -> tuple[int, ...]:
    """The place of each chosen word among the words of its entry, the first where none is chosen."""
    return tuple(words.index(chosen[name]) if name in chosen else 0 for name, words in table.items())


def person(scene: dict[str, str]) -> Image.Image:
    """The person cut out, RGBA: drawn on black and on white, which tells where nothing was drawn."""
    head = Head.of(Character(0, numbers(PERSON, CUES), (0.0,) * 8), Scene(numbers(scene, ATTRIBUTES), (0.0,) * 6))
    layers = []
    for ground in (0, 255):
        side = SIZE * OVERSAMPLING * _DETAIL
        sheet = Sheet(np.full((side, side, 3), ground, np.uint8), ink=False)
        for draw in (draw_head_behind, draw_body_behind, draw_body, draw_head):
            draw(sheet, head)
        layers.append(cv2.resize(sheet.pixels, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA).astype(int))
    black, white = layers
    alpha = 255 - (white - black).max(axis=2)
    colour = black * 255 // np.maximum(alpha, 1)[:, :, None]
    return Image.fromarray(np.dstack([colour, alpha]).clip(0, 255).astype(np.uint8))


def gradient(width: int, height: int) -> Image.Image:
    share = np.linspace(0, 1, height)[:, None, None] * 0.7 + np.linspace(0, 1, width)[None, :, None] * 0.3
    pixels = np.array(TOP) * (1 - share) + np.array(BOTTOM) * share
    return Image.fromarray(pixels.round().astype(np.uint8)).convert("RGBA")


def rounded(picture: Image.Image, radius: float) -> Image.Image:
    """The picture with round corners."""
    mask = Image.new("L", picture.size)
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, picture.width - 1, picture.height - 1), radius, fill=255)
    picture.putalpha(mask)
    return picture


def portrait(side: int, ground: tuple[int, int, int], scene: dict[str, str]) -> Image.Image:
    """The person in a square with round corners."""
    picture = Image.new("RGBA", (side, side), ground)
    picture.alpha_composite(person(scene).resize((side, side), Image.LANCZOS))
    return rounded(picture, side * 0.12)


def brackets(draw: ImageDraw.ImageDraw, box: tuple[float, float, float, float], width: int) -> None:
    """The corners of a frame, as a viewfinder shows them."""
    left, top, right, bottom = box
    arm = (right - left) * 0.2
    for x, sx in ((left, 1), (right, -1)):
        for y, sy in ((top, 1), (bottom, -1)):
            draw.line(((x + sx * arm, y), (x, y), (x, y + sy * arm)), WHITE, width, joint="curve")


def icon(side: int) -> Image.Image:
    picture = gradient(side, side)
    size = round(side * 1.06)
    picture.alpha_composite(person(REFERENCE).resize((size, size), Image.LANCZOS), (0, 0), ((size - side) // 2, 0))
    brackets(ImageDraw.Draw(picture), (side * 0.12, side * 0.1, side * 0.88, side * 0.86), round(side * 0.035))
    return rounded(picture, side * 0.2)


def banner(width: int, height: int) -> Image.Image:
    picture, unit = gradient(width, height), height / 540
    draw = ImageDraw.Draw(picture)

    def write(x: float, y: float, text: str, size: float, anchor: str = "la") -> None:
        draw.text((x * unit, y * unit), text, WHITE, ImageFont.load_default(size * unit), anchor)

    write(70, 52, "FaceCLIP", 92)
    write(74, 158, "one face and a prompt, one encoder - portraits that keep the person", 31)
    side = round(250 * unit)
    first = portrait(side, (120, 132, 190), REFERENCE)
    left, top = round(70 * unit), round(232 * unit)
    picture.alpha_composite(first, (left, top))
    margin = side * 0.1
    brackets(draw, (left + margin, top + margin, left + side - margin, top + side - margin), round(7 * unit))
    write(345, 357, "+", 70, "lm")
    for number, (words, ground, scene) in enumerate(SCENES):
        x = 425 + number * 270
        picture.alpha_composite(portrait(side, ground, scene), (round(x * unit), top))
        write(x + 125, 508, f'"{words}"', 26, "mm")
    write(70 + 125, 508, "the photo", 26, "mm")
    return picture


def save(picture: Image.Image, name: str) -> None:
    size = (picture.width // _FACTOR, picture.height // _FACTOR)
    picture.resize(size, Image.LANCZOS).save(HERE / name, optimize=True)


if __name__ == "__main__":
    save(icon(400 * _FACTOR), "icon.png")
    save(banner(1260 * _FACTOR, 540 * _FACTOR).convert("RGB"), "banner.png")
