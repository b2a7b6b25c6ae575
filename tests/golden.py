"""Known weights and faces behind the golden files, rebuilt from a formula: a value is a function of its key alone."""

import math
import zlib
from functools import cache
from pathlib import Path

import numpy as np
import torch

from faceclip.model.checkpoint import build, share_face_encoder
from faceclip.model.config import PUBLISHED, FaceCLIPConfig, FaceConfig, FuserConfig, TextConfig


def golden_tensor(key: str, shape: tuple[int, ...]) -> torch.Tensor:
    """The float32 value of one state-dict key."""
    leaf = key.rsplit(".", 1)[-1]
    if leaf == "num_batches_tracked":
        return torch.zeros((), dtype=torch.long)
    if leaf == "logit_scale":
        return torch.tensor(math.log(1 / 0.07))
    if leaf == "logit_bias":
        return torch.tensor(-10.0)
    noise = np.random.RandomState(zlib.crc32(key.encode())).standard_normal(shape).astype(np.float32)
    if leaf == "running_var":
        value = np.exp(0.2 * noise)
    elif leaf == "running_mean":
        value = 0.1 * noise
    elif leaf in ("gamma_v", "gamma_l") or key.endswith("token_embedding.weight"):
        value = 0.5 * noise
    elif key.endswith("sampling_offsets.bias"):
        value = 1.5 * noise
    elif leaf in ("positional_embedding", "pos_embed", "mask_token"):
        value = 0.3 * noise
    elif len(shape) >= 2:
        value = noise / np.sqrt(np.prod(shape[1:]))
    elif leaf == "weight":
        value = 1 + 0.1 * noise
    else:
        value = 0.1 * noise
    return torch.from_numpy(np.asarray(value, dtype=np.float32))


def golden_state_dict(manifest: str) -> dict[str, torch.Tensor]:
    """All values for a manifest file such as state_dict_tiny.tsv (key, shape, dtype per line)."""
    state = {}
    with open(manifest) as lines:
        for line in lines:
            key, shape = line.split("\t")[:2]
            dims = tuple(int(n) for n in shape.strip("[]\n").split(",") if n.strip())
            state[key] = golden_tensor(key, dims)
    return state


def golden_face(seed: int | None) -> torch.Tensor:
    """A deterministic 'aligned face' [3, 448, 448] in [0, 1]; None is the zero picture."""
    if seed is None:
        return torch.zeros(3, 448, 448)
    noise = np.random.RandomState(seed).random_sample((3, 28, 28)).astype(np.float32)
    return torch.nn.functional.interpolate(
        torch.from_numpy(noise)[None], size=(448, 448), mode="bilinear", align_corners=False
    )[0]


DATA = Path(__file__).parent / "data"
TINY = FaceCLIPConfig(
    l=TextConfig(width=32, heads=2, layers=2, activation="quick_gelu"),
    g=TextConfig(width=64, heads=4, layers=3, activation="gelu"),
    face=FaceConfig(width=48, heads=4, layers=2, embed_dim=16),
    fuser=FuserConfig(heads=8, layers=6, feedforward=2048, points=4),
)
CONFIGS = {"tiny": TINY, "full": PUBLISHED}


@cache
def tiny_weights(equal_faces: bool = False) -> dict[str, torch.Tensor]:
    """The tiny model's weights under the published names; never changed in place.

    equal_faces: both branches have the l branch's face encoder.
    """
    if not equal_faces:
        return golden_state_dict(DATA / "state_dict_tiny.tsv")
    own, other = "face_clip_g.face_encoder.", "face_clip_l.face_encoder."
    weights = tiny_weights()
    return {key: weights[key.replace(own, other)] for key in weights}


def golden_model(size: str, dtype=None):
    """The model behind golden_tiny or golden_full."""
    state = share_face_encoder(golden_state_dict(DATA / f"state_dict_{size}.tsv"))
    return build(state, CONFIGS[size], f"golden_{size}", dtype=dtype)


def relative_error(value: torch.Tensor, wanted: torch.Tensor) -> float:
    """Norm of the difference over the norm of what is wanted."""
    return float((value.float() - wanted.float()).norm() / wanted.float().norm())
