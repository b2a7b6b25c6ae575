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
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from ...errors import InputError
from ...files.toml import read_toml
from ..engine import TrainResult, train
from ..run_file import Settings, table
from . import scores, shipped, stages
from .cartoons import dataset
from .cartoons.character import people

log = logging.getLogger(__name__)

RECIPE = Path(__file__).with_name("recipe.toml")
# In the order they run; a stage's place is added to the recipe's seed, so a new one goes to the end.
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
    "refine": stages.refine,
}


@dataclass(frozen=True)
class Data:
    """[data]: how many people are drawn in how many scenes each, to train on and to measure with."""

    people: int
    scenes: int
    held_out_people: int
    held_out_scenes: int


@dataclass(frozen=True)
class Recipe:
    """tables: stage -> the fields of Settings it sets. minutes: for all stages together, None for their own."""

    seed: int
    minutes: float | None
    data: dict[str, int]
    tables: dict[str, dict]

    def settings(self, stage: str, output: Path) -> Settings:
        """The engine's settings of a stage. minutes: its share, where the whole is limited.

        Raises InputError for a field that is unknown, missing or out of range.
        """
        values = {"output": str(output), "seed": self.seed + list(STAGES).index(stage), "save_every": 500}
        settings = table(Settings, values | self.tables[stage], stage, output)
        if self.minutes is None or settings.minutes is None:
            return settings
        whole = sum(other.get("minutes", 0) for other in self.tables.values())
        return replace(settings, minutes=settings.minutes * self.minutes / whole)


def read(path: Path = RECIPE, minutes: float | None = None) -> Recipe:
    """Read a recipe; raises InputError for a stage or field that is missing, unknown or out of range."""
    raw = read_toml(Path(path))
    tables = {name: values for name, values in raw.items() if name not in ("seed", "data")}
    if set(tables) != set(STAGES) or "data" not in raw or "seed" not in raw:
        raise InputError(f"{path} has {', '.join(raw)}; wanted seed, data and the stages {', '.join(STAGES)}.")
    recipe = Recipe(raw["seed"], minutes, asdict(table(Data, raw["data"], "data", Path(path).parent)), tables)
    for stage in STAGES:
        recipe.settings(stage, Path(stage))
    return recipe


@dataclass(frozen=True)
class Work:
    """The folder all stages work in, and the pictures."""

    folder: Path
    recipe: Recipe
    pictures: dataset.CartoonData
    held_out: dataset.CartoonData

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
    recipe = read(arguments.recipe, arguments.minutes)
    keep_recipe(arguments.recipe, arguments.folder)
    work = draw(arguments.folder, recipe)
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


def keep_recipe(path: Path, folder: Path) -> None:
    """Note in the folder which recipe it is made by; raises InputError where that is another one."""
    text, kept = Path(path).read_text("utf-8"), folder / "recipe.toml"
    if kept.exists() and kept.read_text("utf-8") != text:
        raise InputError(
            f"{folder} was made by another recipe ({kept}), and what is done there would be taken as it is. Give a "
            "new folder, or remove this one."
        )
    folder.mkdir(parents=True, exist_ok=True)
    kept.write_text(text, "utf-8")


def finish(work: Work) -> None:
    """models/: the files that ship, and what was measured on them."""
    folder = work.folder / "models"
    if (folder / scores.MEASURES_FILE).exists():
        return
    folder.mkdir(exist_ok=True)
    shipped.ship(work, folder)
    found, _ = scores.everything(shipped.load(folder), scores.Sample.of(work.held_out))
    found["left out"] = json.loads(work.path("ablation", stages.TABLE_FILE).read_text("utf-8"))
    (folder / scores.MEASURES_FILE).write_text(json.dumps(found, indent=1), encoding="utf-8")
    log.info("measured: %s", json.dumps(found, indent=1))
