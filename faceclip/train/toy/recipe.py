"""The small model from nothing, by one command: `python -m faceclip toy FOLDER [--minutes M]`.

Cartoon people are drawn; a VAE, a face encoder, two CLIPs and a classifier are trained on them; then the paper's two
stages. A stage that is done is not done again, and one that was stopped goes on, so the command may be called until
everything is there.
"""

import argparse
import json
import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ...errors import InputError
from ..config import Settings, read_toml
from ..engine import TrainResult, train
from . import dataset, measure, models, stages
from .identity import people

log = logging.getLogger(__name__)

RECIPE = Path(__file__).with_name("recipe.toml")
STAGES: dict[str, Callable] = {
    "vae": stages.vae,
    "face": stages.face,
    "clip_l": stages.clip_l,
    "clip_g": stages.clip_g,
    "decoder": stages.decoder,
    "classifier": stages.classifier,
    "alignment": stages.alignment,
    "diffusion": stages.diffusion,
    "ablation": stages.ablation,
}


@dataclass(frozen=True)
class Recipe:
    """tables: stage -> the fields of Settings it sets. minutes: for all stages together, None for their own."""

    seed: int
    minutes: float | None
    data: dict[str, int]
    tables: dict[str, dict]

    def settings(self, stage: str, output: Path) -> Settings:
        """The engine's settings of a stage. minutes: its share, where the whole is limited."""
        table = dict(self.tables[stage])
        if self.minutes is not None:
            table["minutes"] *= self.minutes / sum(other["minutes"] for other in self.tables.values())
        seed = self.seed + list(STAGES).index(stage)
        return Settings(output=output, seed=seed, save_every=500, log_every=50, **table)


def read(path: Path = RECIPE, minutes: float | None = None) -> Recipe:
    """Read a recipe; raises InputError for a stage that is missing or unknown."""
    raw = read_toml(Path(path))
    tables = {name: table for name, table in raw.items() if isinstance(table, dict) and name != "data"}
    if set(tables) != set(STAGES):
        raise InputError(f"{path} has the stages {', '.join(tables)}; wanted {', '.join(STAGES)}.")
    return Recipe(raw["seed"], minutes, raw["data"], tables)


@dataclass(frozen=True)
class Work:
    """The folder all stages work in, and the pictures."""

    folder: Path
    recipe: Recipe
    pictures: dataset.ToyData
    held_out: dataset.ToyData

    def path(self, stage: str, name: str) -> Path:
        return self.folder / stage / name

    def train(self, stage: str, module, data, export) -> TrainResult:
        return train(module, data, self.recipe.settings(stage, self.folder / stage), export)


def draw(folder: Path, recipe: Recipe) -> Work:
    """Draw the pictures, or find them drawn."""
    size = recipe.data
    seen = people(size["people"], recipe.seed)
    unseen = people(size["held_out_people"], recipe.seed, held_out_people=True)
    pictures = dataset.build(folder / "pictures", seen, size["scenes"], recipe.seed)
    held_out = dataset.build(folder / "held_out", unseen, size["held_out_scenes"], recipe.seed + 1)
    return Work(folder, recipe, pictures, held_out)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, help="where everything is put; give it again to go on")
    parser.add_argument("--recipe", type=Path, default=RECIPE, help="another recipe")
    parser.add_argument("--minutes", type=float, help="time for all stages together; less, or more, for each")
    parser.add_argument("--stages", nargs="+", choices=list(STAGES), default=list(STAGES), help="only these")


def run(arguments: argparse.Namespace) -> int:
    """The command: 0 when all stages asked for are done, 1 when stopped by a signal."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    work = draw(arguments.folder, read(arguments.recipe, arguments.minutes))
    for name in arguments.stages:
        done = work.path(name, "done")
        if done.exists():
            continue
        log.info("stage %s", name)
        if STAGES[name](work).stopped:
            return 1
        done.touch()
        shutil.rmtree(work.path(name, "checkpoints"), ignore_errors=True)
    if all(work.path(name, "done").exists() for name in STAGES):
        finish(work)
    return 0


def finish(work: Work) -> None:
    """models/: the files that ship, and what was measured on them."""
    folder = work.folder / "models"
    if (folder / measure.MEASURES_FILE).exists():
        return
    folder.mkdir(exist_ok=True)
    models.ship(work, folder)
    table, _ = measure.everything(models.load(folder), measure.Sample.of(work.held_out))
    table["left out"] = json.loads(work.path("ablation", stages.TABLE_FILE).read_text("utf-8"))
    (folder / measure.MEASURES_FILE).write_text(json.dumps(table, indent=1), encoding="utf-8")
    log.info("measured: %s", json.dumps(table, indent=1))
