"""The shapes that stage B's pictures come in, and which part of a photo becomes one: the part that holds the face."""

import math
from functools import lru_cache

import numpy as np

from ..errors import FaceCLIPError
from ..sampling.schedule import LATENT_SCALE

SDXL_RESOLUTION = 1024
# Widths and heights that SDXL was trained at, landscape and square (Podell et al., arXiv 2307.01952, appendix I).
_SDXL = (
    *((1024, 1024), (1024, 960), (1088, 960), (1088, 896), (1152, 896), (1152, 832), (1216, 832), (1280, 768)),
    *((1344, 768), (1344, 704), (1408, 704), (1472, 704), (1536, 640), (1600, 640), (1664, 576), (1728, 576)),
    *((1792, 576), (1856, 512), (1920, 512), (1984, 512), (2048, 512)),
)
MARGIN = 0.25  # of a face's box on each side, which a cut keeps where there is room for it
MOST_CUT = 0.1  # of a face's box that a cut may leave out
Size = tuple[int, int]


class LeftOut(FaceCLIPError):
    """A sample that is not broken and does not fit this run. kind: what it is counted as."""

    def __init__(self, kind: str, reason: str):
        super().__init__(reason)
        self.kind = kind


@lru_cache
def sizes(resolution: int) -> tuple[Size, ...]:
    """SDXL's widths and heights, scaled from 1024 to this resolution, in whole cells of a latent."""
    scale = resolution / SDXL_RESOLUTION / LATENT_SCALE
    scaled = [(round(width * scale) * LATENT_SCALE, round(height * scale) * LATENT_SCALE) for width, height in _SDXL]
    turned = [(height, width) for width, height in scaled]
    return tuple(dict.fromkeys(one for pair in zip(scaled, turned, strict=True) for one in pair))


def bucket(size: Size, resolution: int, shapes: bool = True) -> Size:
    """Width and height of the training picture that a photo of this width and height becomes.

    shapes: the one of `sizes` whose shape is nearest; else a square. LeftOut("small") where the photo does not fill it.
    """
    width, height = size
    known = sizes(resolution) if shapes else ((resolution, resolution),)
    found = min(known, key=lambda one: abs(math.log(one[0] / one[1] * height / width)))
    if width < found[0] or height < found[1]:
        raise LeftOut("small", f"{width} x {height} px do not fill a picture of {found[0]} x {found[1]} px")
    return found


def cut(scaled: Size, target: Size, box: np.ndarray, random: np.random.Generator) -> tuple[int, int]:
    """Left and top of a random part of a photo, of this width and height, that holds a face.

    scaled: the photo's width and height, at least the target's. box: x0, y0, x1, y1 of the face in its px. The part
    holds the box with MARGIN where there is room for it. LeftOut("face") where it has to lose more than MOST_CUT of it.
    """
    place, kept = [], 1.0
    for axis in (0, 1):
        length, window = scaled[axis], target[axis]
        low, high = np.clip((box[axis], box[axis + 2]), 0, length)
        if not high > low:
            raise LeftOut("face", "the face lies outside of the photo")
        for margin in (MARGIN * (high - low), 0.0):
            first = max(0, math.ceil(min(high + margin, length) - window))
            last = min(length - window, math.floor(max(low - margin, 0)))
            if first <= last:
                break
        else:  # larger than the part: its middle
            first = last = min(max(0, round((low + high - window) / 2)), length - window)
            kept *= (min(high, first + window) - max(low, first)) / (high - low)
        place.append(int(random.integers(first, last + 1)))
    if kept < 1 - MOST_CUT:
        raise LeftOut("face", f"a part of {target[0]} x {target[1]} px would hold {kept:.0%} of the face's box")
    return place[0], place[1]
