"""The small model from nothing, by one command: `python -m faceclip toy FOLDER [--minutes M]`.

Cartoon people are drawn; a VAE, a face encoder, two CLIPs and a classifier are trained on them; then the paper's two
stages. A stage that is done is not done again, and one that was stopped goes on, so the command may be called until
everything is there.
"""

import argparse
import json
import logging
import shutil
from pathlib import Path

from ...errors import InputError
from . import scores, shipped, stages, style
from .recipe import RECIPE, STAGES, Work, draw, read

log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, help="where everything is put; give it again to go on")
    parser.add_argument("--recipe", type=Path, default=RECIPE, help="another recipe")
    parser.add_argument("--minutes", type=float, help="time for all stages together; less, or more, for each")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES, help="only these")
    parser.add_argument(
        "--style", action="store_true", help="instead: the style companion of the small model that ships, a LoRA"
    )


def run(arguments: argparse.Namespace) -> int:
    """The command: 0 when all stages asked for are done, 1 when stopped by a signal."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    if arguments.style:
        return int(style.make(arguments.folder).stopped)
    recipe = read(arguments.recipe, arguments.minutes)
    keep_recipe(arguments.recipe, arguments.folder)
    work = draw(arguments.folder, recipe)
    for name in arguments.stages:
        done = work.path(name, "done")
        if done.exists():
            continue
        log.info("stage %s", name)
        if getattr(stages, name)(work).stopped:
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
