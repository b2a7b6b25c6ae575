"""Pictures of cartoon people as arrays on disk: built once by several processes, then memory-mapped."""

import hashlib
import json
import logging
import multiprocessing
import os
import zlib
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np

from ....errors import InputError
from ....faces.align import CROP_SIZE, face_matrix, warp
from ....files import whole
from ....model.prompt import tokenize
from .canvas import SIZE
from .character import CUES, identity, mix
from .render import render
from .scene import ATTRIBUTES, caption, said, scene

log = logging.getLogger(__name__)

VERSION = 2  # raise it when people, scenes, captions or their drawing change
CROP = 112
_CHUNK = 512
_RECIPE = "recipe.json"
_ARRAYS = {
    "pictures": (np.uint8, (3, SIZE, SIZE)),
    "crops": (np.uint8, (3, CROP, CROP)),
    "person": (np.int32, ()),
    "label": (np.int32, ()),
    "attributes": (np.int8, (len(ATTRIBUTES),)),
    "cues": (np.int8, (len(CUES),)),
    "said": (np.int8, (len(ATTRIBUTES),)),
    "landmarks": (np.float32, (5, 2)),
    "ids": (np.int32, (77,)),
    "joint_ids": (np.int32, (77,)),
}


@dataclass(frozen=True)
class CartoonData:
    """N pictures, memory-mapped. Sample i shows person `person[i]`, the `label[i]`-th of the people asked for.

    pictures: uint8 [N, 3, 128, 128], RGB. crops: uint8 [N, 3, 112, 112], faces aligned to 448 px and scaled as the
    encoder does. attributes: int8 [N, 8], index into each entry of ATTRIBUTES; said: int8 [N, 8], 1 where the caption
    tells it. cues: int8 [N, 11], index into each entry of CUES. landmarks: float32 [N, 5, 2] px. ids, joint_ids:
    int32 [N, 77], tokens of the caption without and with the identity prefix.
    """

    pictures: np.ndarray
    crops: np.ndarray
    person: np.ndarray
    label: np.ndarray
    attributes: np.ndarray
    cues: np.ndarray
    said: np.ndarray
    landmarks: np.ndarray
    ids: np.ndarray
    joint_ids: np.ndarray
    captions: list[str]

    def __len__(self) -> int:
        return len(self.captions)

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """Everything but the captions, by name."""
        return {name: getattr(self, name) for name in _ARRAYS}


@dataclass(frozen=True)
class _Recipe:
    people: tuple[int, ...]
    scenes_per_person: int
    seed: int
    held_out_scenes: bool
    version: int = VERSION

    @property
    def hash(self) -> str:
        words = json.dumps([asdict(self), CUES, ATTRIBUTES, list(_ARRAYS)], sort_keys=True)
        return hashlib.sha256(words.encode()).hexdigest()


def build(
    folder: str | os.PathLike,
    people: Sequence[int],
    scenes_per_person: int,
    seed: int,
    processes: int = 2,
    held_out_scenes: bool = False,
) -> CartoonData:
    """Draw every person in `scenes_per_person` scenes, person by person; returns the data.

    A folder made by the same recipe is used again, after its files' checksums are compared; another one, an
    unfinished or a damaged one is built anew. The folder appears whole or not at all. held_out_scenes: only scenes
    with a pair of attributes that training never sees. InputError for no people or no scenes.
    """
    if not len(people) or scenes_per_person < 1:
        raise InputError(f"{len(people)} people in {scenes_per_person} scenes each make no data; wanted 1 or more.")
    recipe = _Recipe(tuple(int(p) for p in people), int(scenes_per_person), int(seed), bool(held_out_scenes))
    folder = Path(folder)
    if (folder / _RECIPE).is_file():
        try:
            if _read_recipe(folder)["recipe"] == recipe.hash:
                return load(folder)
            log.info("%s was made by another recipe and is drawn anew", folder)
        except InputError as error:
            log.warning("%s It is drawn anew.", error)
    with whole.writing_folder(folder) as partial:
        _write(partial, recipe, processes)
    return _open(folder)


def load(folder: str | os.PathLike) -> CartoonData:
    """Data that `build` made. InputError naming the file that is missing or damaged."""
    folder = Path(folder)
    for name, checksum in _read_recipe(folder)["files"].items():
        path = folder / name
        if not path.is_file():
            raise InputError(f"{path} is missing. Delete the folder and build the data again.")
        if _checksum(path) != checksum:
            raise InputError(f"{path} is damaged: its checksum is not the recorded one. Build the data again.")
    return _open(folder)


def sample_seed(seed: int, person: int, index: int) -> int:
    """The seed of a person's index-th scene and caption."""
    return mix(37, seed, person, index)


def crop(pixels: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """The aligned face as the encoder sees it: uint8 [H, W, 3] -> uint8 [112, 112, 3]."""
    aligned = warp(pixels, face_matrix(landmarks, CROP_SIZE), CROP_SIZE)
    return cv2.resize(aligned, (CROP, CROP), interpolation=cv2.INTER_LINEAR)


def _open(folder: Path) -> CartoonData:
    arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in _ARRAYS}
    return CartoonData(**arrays, captions=json.loads((folder / "captions.json").read_text(encoding="utf-8")))


def _read_recipe(folder: Path) -> dict:
    path = folder / _RECIPE
    try:
        recipe = json.loads(path.read_text(encoding="utf-8"))
        return {"recipe": recipe["recipe"], "files": dict(recipe["files"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} cannot be read ({error}). Build the data again.") from error


def _write(folder: Path, recipe: _Recipe, processes: int) -> None:
    count = len(recipe.people) * recipe.scenes_per_person
    for name, (dtype, shape) in _ARRAYS.items():
        np.lib.format.open_memmap(folder / f"{name}.npy", "w+", dtype, (count, *shape)).flush()
    jobs = [(folder, recipe, start, min(start + _CHUNK, count)) for start in range(0, count, _CHUNK)]
    captions: list[str] = []
    if processes <= 1 or len(jobs) == 1:
        for job in jobs:
            captions += _draw(*job)
        _write_tokens(folder, captions, 0)
    else:
        # Not fork: the caller may hold threads (torch), and a forked child would inherit their locks.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(min(processes, len(jobs)), context) as pool:
            for part in pool.map(_draw, *zip(*jobs, strict=True)):
                _write_tokens(folder, part, len(captions))
                captions += part
    (folder / "captions.json").write_text(json.dumps(captions), encoding="utf-8")
    files = {path.name: _checksum(path) for path in sorted(folder.iterdir())}
    (folder / _RECIPE).write_text(json.dumps({"recipe": recipe.hash, "files": files}, indent=1), encoding="utf-8")


def _draw(folder: Path, recipe: _Recipe, start: int, end: int) -> list[str]:
    """Draw samples `start` to `end` into the folder's arrays; returns their captions."""
    cv2.setNumThreads(1)
    names = [name for name in _ARRAYS if name not in ("ids", "joint_ids")]
    arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r+") for name in names}
    captions = []
    for i in range(start, end):
        label, index = divmod(i, recipe.scenes_per_person)
        number = recipe.people[label]
        key = sample_seed(recipe.seed, number, index)
        person, place = identity(number), scene(key, recipe.held_out_scenes)
        picture = render(person, place)
        arrays["pictures"][i] = picture.pixels.transpose(2, 0, 1)  # HWC -> CHW
        arrays["crops"][i] = crop(picture.pixels, picture.landmarks).transpose(2, 0, 1)
        arrays["person"][i], arrays["label"][i] = number, label
        arrays["attributes"][i], arrays["cues"][i] = place.values, person.cues
        arrays["said"][i] = list(said(key).values())
        arrays["landmarks"][i] = picture.landmarks
        captions.append(caption(place, key))
    for array in arrays.values():
        array.flush()
    return captions


def _write_tokens(folder: Path, captions: list[str], start: int) -> None:
    for name, has_face in (("ids", False), ("joint_ids", True)):
        array = np.load(folder / f"{name}.npy", mmap_mode="r+")
        for i, text in enumerate(captions, start):
            array[i] = tokenize(text, has_face)[0].ids
        array.flush()


def _checksum(path: Path) -> int:
    value = 0
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            value = zlib.crc32(block, value)
    return value
