"""What frozen parts make of every picture, computed once and kept as memory-mapped float16 arrays."""

import functools
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from ...files import whole
from ...progress import shown
from ..alignment import Alignment
from .cartoons import dataset
from .scores import encode

log = logging.getLogger(__name__)

_ROWS = 256
_FACELESS = 0.1  # share of samples whose caption stage B trains without a face


def cached(path: Path, count: int, compute: Callable[[slice], torch.Tensor]) -> np.ndarray:
    """The array [count, ...] in `path`, computed a few hundred rows at a time where it is not there yet."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole.writing(path) as file, shown(path.stem, "samples") as tell:
            for start in range(0, count, _ROWS):
                end = min(start + _ROWS, count)
                values = compute(slice(start, end)).to(torch.float16).numpy()
                if not start:
                    header = {"descr": "<f2", "fortran_order": False, "shape": (count, *values.shape[1:])}
                    np.lib.format.write_array_header_1_0(file, header)
                file.write(values.astype("<f2").tobytes())
                tell(end, count)
        log.info("%s computed", path.name)
    return np.load(path, mmap_mode="r")


def pixels(array: np.ndarray, rows: slice) -> torch.Tensor:
    """uint8 [N, ...] rows as float in [0, 1]."""
    return torch.from_numpy(np.array(array[rows])).float() / 255


@torch.no_grad()
def of_faces_and_clips(folder: Path, data: dataset.CartoonData, alignment: Alignment) -> dict[str, np.ndarray]:
    """class_token, patch_tokens, image_feature_* and text_feature_* of every sample."""

    def ids(rows: slice) -> torch.Tensor:
        return torch.from_numpy(np.array(data.ids[rows])).long()

    width = alignment.model.config.face.embed_dim

    def face(rows: slice) -> torch.Tensor:
        found = alignment.model.encode_identity(pixels(data.crops, rows)).l
        return torch.cat([found.class_token, found.patch_tokens.flatten(1)], dim=1)

    faces = cached(folder / "faces.npy", len(data), face)
    known = {"class_token": faces[:, :width]}
    known["patch_tokens"] = faces[:, width:].reshape(len(data), -1, alignment.model.config.face.width)
    for letter in alignment.branches:
        image = functools.partial(lambda b, rows: alignment.image_feature(b, pixels(data.pictures, rows)), letter)
        text = functools.partial(lambda b, rows: alignment.text_feature(b, ids(rows)), letter)
        for name, compute in ((f"image_feature_{letter}", image), (f"text_feature_{letter}", text)):
            known[name] = cached(folder / f"{name}.npy", len(data), compute)
    return known


@torch.no_grad()
def of_conditioning(folder: Path, data: dataset.CartoonData, model, partners: np.ndarray) -> dict[str, np.ndarray]:
    """embeddings and pooled of every caption with the face of another picture of the same person; some without."""
    faceless = np.random.default_rng(0).random(len(data)) < _FACELESS

    def joint(rows: slice) -> torch.Tensor:
        crops = torch.from_numpy(np.array(data.crops[partners[rows]])).float() / 255
        made = encode(model, data.captions[rows], model.encode_identity(crops), (~faceless[rows]).tolist())
        assert made.pooled is not None
        return torch.cat([made.embeddings.flatten(1), made.pooled], dim=1)

    both = cached(folder / "conditioning.npy", len(data), joint)
    pooled = model.config.g.width
    embeddings = both[:, :-pooled].reshape(len(data), -1, model.config.l.width + pooled)
    return {"embeddings": embeddings, "pooled": both[:, -pooled:]}
