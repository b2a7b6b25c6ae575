"""`python -m faceclip eval` without a benchmark: the model that ships, each figure beside its bar, and its pictures."""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F

from . import shipped
from .cartoons.canvas import SIZE
from .cartoons.character import people
from .cartoons.dataset import CartoonData, build
from .recipe import Recipe, read
from .scores import MEASURES_FILE, PEOPLE, Generated, Sample, everything

# Measure -> the least it must reach.
BARS = {
    "g: joint -> face": 90.0,
    "g: joint -> text": 80.0,
    "g: joint -> image": 60.0,
    "identity recognised": 50.0,
    "attributes right": 80.0,
    "likeness gain": 0.3,
}
SHEET_FILE = "small-model.png"


def report(folder: Path | None = None, say: Callable[[str], None] = print) -> dict[str, float]:
    """Measure the model that ships on people it never saw, and say how each figure stands to its bar.

    folder: where the figures (measures.json) and a sheet of pictures go, None for nowhere.
    """
    model = shipped.load()
    say(f"Drawing {PEOPLE} people whom the model never saw, and what it makes of them ...")
    with tempfile.TemporaryDirectory(prefix="faceclip-model-") as drawn:
        sample = Sample.of(held_out_data(Path(drawn) / "data", read()))
        found, generated = everything(model, sample)
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / MEASURES_FILE).write_text(json.dumps(found, indent=1), encoding="utf-8")
            write_sheet(folder / SHEET_FILE, sample, generated)
            say(f"Figures and pictures: {folder}")
    for name, value in found.items():
        bar = f"   (must reach {BARS[name]:g})" if name in BARS else ""
        say(f"{name:45} {value:8.2f}{bar}")
    return found


def held_out_data(folder: Path, recipe: Recipe, count: int = PEOPLE) -> CartoonData:
    """The first two pictures of the recipe's first held-out people, as in its own work folder."""
    unseen = people(recipe.data.held_out_people, recipe.seed, held_out_people=True)[:count]
    return build(folder, unseen, 2, recipe.seed + 1)


def write_sheet(path: Path, sample: Sample, generated: Generated, rows: int = 12) -> None:
    """A PNG of people in rows of two: the face it was given, the picture asked for drawn by the renderer, the model's
    picture, and the model's from the text alone."""
    from PIL import Image

    faces = F.interpolate(sample.rows("crops", sample.reference[:rows]), size=(SIZE, SIZE), mode="bilinear")
    asked = sample.rows("pictures", sample.wanted[:rows])
    shown = torch.stack([faces, asked, generated.pictures[:rows], generated.text_only[:rows]], dim=1)
    line = torch.cat(list(shown.flatten(0, 1)), dim=2)  # all in a row: [3, H, rows * 4 * W]
    lines = line.unflatten(2, (-1, 8 * SIZE))
    sheet = lines.permute(2, 1, 3, 0).flatten(0, 1)
    Image.fromarray((sheet * 255).round().byte().numpy()).save(path)
