"""What test_pictures.py does inside a host; see inprocess.py."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

METHODS = ("nearest-exact", "bilinear", "area", "bicubic", "lanczos")
FACTORS = (0.3, 0.77, 1.1, 1.5, 2.0, 2.7)
CHAINS = ((2, 2), (1.5, 1.5, 1.5), (2, 0.5), (0.77, 1.3, 2), (1.1, 1.1, 1.1, 1.1))


def overshoot(host, photos: list[str]) -> dict:
    """How far the host's ImageScaleBy leaves 0 to 1: "PICTURE METHOD" -> [below, above], also for random dots."""
    dots = torch.rand(1, 96, 96, 1, generator=torch.Generator().manual_seed(0)) > 0.5
    pictures = {"dots": dots.float().repeat(1, 1, 1, 3)}
    for path in photos:
        picture = np.asarray(Image.open(path).convert("RGB"))
        pictures[Path(path).stem] = torch.from_numpy(picture.copy())[None].float() / 255
    found = {}
    for name, image in pictures.items():
        for method in METHODS:
            found[f"{name} {method}"] = _beyond([_chain(host, image, method, [factor]) for factor in FACTORS])
        if name != "dots":
            found[f"{name} bicubic, in a row"] = _beyond([_chain(host, image, "bicubic", c) for c in CHAINS])
    return found


def _chain(host, image, method, factors):
    for factor in factors:
        (image,) = host.nodes.ImageScaleBy().upscale(image, method, factor)
    return image


def _beyond(scaled) -> list[float]:
    return [-min(float(one.min()) for one in scaled), max(float(one.max()) for one in scaled) - 1]
