"""recipe.toml: how many people are drawn and the settings of each stage; and the folder that the stages work in."""

from dataclasses import dataclass, replace
from pathlib import Path

from pydantic.dataclasses import dataclass as pydantic_dataclass

from ...errors import InputError
from ...files.table import TABLE, Whole, check
from ...files.toml import read_toml
from ..engine import TrainResult, train
from ..run_file import Settings
from .cartoons import dataset
from .cartoons.character import people

RECIPE = Path(__file__).with_name("recipe.toml")
# Functions of stages.py in the order they run. Each adds its place to the recipe's seed: a new one goes to the end.
STAGES = (
    "vae",
    "face",
    "clip_l",
    "clip_g",
    "decoder",
    "classifier",
    "alignment",
    "diffusion",
    "ablation",
    "refine",
)


@pydantic_dataclass(frozen=True, config=TABLE)
class Data:
    """[data]: how many people are drawn in how many scenes each, to train on and to measure with."""

    people: Whole
    scenes: Whole
    held_out_people: Whole
    held_out_scenes: Whole


@dataclass(frozen=True)
class Recipe:
    """tables: stage -> the fields of Settings it sets. minutes: for all stages together, None for their own."""

    seed: int
    minutes: float | None
    data: Data
    tables: dict[str, dict]

    def settings(self, stage: str, output: Path) -> Settings:
        """The engine's settings of a stage. minutes: its share, where the whole is limited.

        Raises InputError for a field that is unknown, missing or out of range.
        """
        values = {"output": str(output), "seed": self.seed + STAGES.index(stage), "save_every": 500}
        settings = check(Settings, values | self.tables[stage], f"[{stage}]", output)
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
    recipe = Recipe(raw["seed"], minutes, check(Data, raw["data"], "[data]"), tables)
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
    seen = people(size.people, recipe.seed)
    unseen = people(size.held_out_people, recipe.seed, held_out_people=True)
    pictures = dataset.build(folder / "pictures", seen, size.scenes, recipe.seed)
    held_out = dataset.build(folder / "held_out", unseen, size.held_out_scenes, recipe.seed + 1)
    return Work(folder, recipe, pictures, held_out)
