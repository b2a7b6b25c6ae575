"""FaceT5 models of known weights, by the formula of the golden files, and small ones with a CLIP-L beside it."""

import json
import math
from functools import cache

import torch
from golden import DATA, golden_tensor

from faceclip.model.checkpoint import build, expected_shapes
from faceclip.model.config import FaceT5Config, TextConfig
from faceclip.model.facet5 import FaceT5

CLIP = TextConfig(width=64, heads=1, layers=2, activation="quick_gelu")  # small, beside the tiny T5


def golden_config(size: str) -> FaceT5Config:
    """size: "tiny" or "wide"."""
    return FaceT5Config.from_json(json.dumps(json.loads((DATA / f"golden_t5_{size}.json").read_text())["config"]))


TINY_T5 = golden_config("tiny")


def sinusoid(length: int, width: int) -> torch.Tensor:
    """[length, width]: sine at even places, cosine at odd ones, of position * 10000 ** (-2 i / width)."""
    angle = torch.arange(length).float()[:, None] * torch.exp(
        torch.arange(0, width, 2).float() * (-math.log(10000.0) / width)
    )
    return torch.stack([angle.sin(), angle.cos()], dim=-1).reshape(length, width)


def t5_state(shapes: dict[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    """Weights by the formula; the position table is the real one."""
    return {
        key: sinusoid(*shape[1:])[None] if key == "positional_embedding" else golden_tensor(key, shape)
        for key, shape in shapes.items()
    }


def manifest_shapes(size: str) -> dict[str, tuple[int, ...]]:
    """Keys and shapes of state_dict_t5_{tiny,wide}.tsv."""
    lines = (line.split("\t") for line in (DATA / f"state_dict_t5_{size}.tsv").read_text().splitlines())
    return {key: tuple(json.loads(shape)) for key, shape, *_ in lines}


@cache
def tiny_t5_weights(with_clip: bool = False) -> dict[str, torch.Tensor]:
    """The tiny model's weights under our own file's names; never changed in place."""
    return t5_state(expected_shapes(TINY_T5, CLIP if with_clip else None))


def golden_t5_model(size: str, dtype: torch.dtype | None = None) -> FaceT5:
    """The model behind golden_t5_tiny or golden_t5_wide."""
    model = build(t5_state(manifest_shapes(size)), golden_config(size), f"golden_t5_{size}", dtype=dtype)
    assert isinstance(model, FaceT5)
    return model


def tiny_t5_model() -> FaceT5:
    """The tiny model with a CLIP-L."""
    model = build(dict(tiny_t5_weights(with_clip=True)), TINY_T5, "tiny FaceT5")
    assert isinstance(model, FaceT5)
    return model
