"""The tiny default model: a small FaceCLIP, SDXL-shaped UNet and TAESD-shaped VAE that anybody can run on a CPU.

Random weights, the same on every machine: they show that everything works, not what the published model can do.
"""

import math
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from . import checkpoint
from .config import FaceCLIPConfig, FaceConfig, FuserConfig, TextConfig
from .errors import CheckpointError
from .state_dict import State, read_state_dict, write_safetensors
from .unet_config import METADATA_KEY, UNetConfig, expected_shapes

ENCODER = FaceCLIPConfig(
    l=TextConfig(width=32, heads=2, layers=2, activation="quick_gelu"),
    g=TextConfig(width=64, heads=4, layers=2, activation="gelu"),
    face=FaceConfig(width=64, heads=4, layers=3, embed_dim=64),
    fuser=FuserConfig(heads=4, layers=2, feedforward=128, points=4),
)
LATENT_CHANNELS = 4
LATENT_FACTOR = 0.13025  # SDXL's scale between a VAE's latents and the UNet's

UNET = UNetConfig(
    in_channels=LATENT_CHANNELS,
    out_channels=LATENT_CHANNELS,
    down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    block_out_channels=(32, 64, 128),
    layers_per_block=1,
    transformer_layers_per_block=(1, 1, 1),
    attention_head_dim=(1, 1, 2),
    cross_attention_dim=ENCODER.l.width + ENCODER.g.width,
    addition_time_embed_dim=256,
    projection_class_embeddings_input_dim=ENCODER.g.width + 6 * 256,
)
_VAE_WIDTH = 64
_MARK = "faceclip_tiny"  # metadata key; its value changes when the weights do
_RECIPE = "random 2"


@dataclass(frozen=True)
class TinyFile:
    """One file below the models folder, and what goes into it."""

    path: str
    state: Callable[[], State]
    metadata: dict[str, str]


def write_tiny_models(models_dir: Path) -> dict[str, Path]:
    """Write the tiny models where ComfyUI's loaders look; returns their paths by name.

    A file that is there, whole and of this version is left alone; a damaged or older one is replaced.
    """
    paths = {}
    for name, file in FILES.items():
        path = paths[name] = Path(models_dir) / file.path
        if not _is_current(path):
            write_safetensors(file.state(), path, {**file.metadata, _MARK: _RECIPE}, force=True)
    return paths


def _is_current(path: Path) -> bool:
    try:
        return path.is_file() and read_state_dict(path)[1].get(_MARK) == _RECIPE
    except CheckpointError:
        return False


def seeded(
    shapes: dict[str, tuple[int, ...]],
    gain: Callable[[str], float] = lambda key: 1.0,
    dtype: torch.dtype = torch.float32,
) -> State:
    """Weights of unit gain per layer: normal, scaled by the number of inputs and `gain`; scales 1, biases 0.

    Each value depends on its key alone, so the order of keys does not matter.
    """
    state = {}
    for key, shape in shapes.items():
        if len(shape) > 1:
            generator = torch.Generator().manual_seed(zlib.crc32(key.encode()))
            spread = gain(key) / math.sqrt(math.prod(shape[1:]))
            state[key] = (torch.randn(shape, generator=generator) * spread).to(dtype)
        else:
            state[key] = torch.full(shape, float(key.endswith("weight")), dtype=dtype)
    return state


def tiny_faceclip_state() -> State:
    """The encoder's weights; statistics of the face encoder's BatchNorm are 0 and 1."""
    shapes = checkpoint.expected_shapes(ENCODER, shared_face_encoder=True)
    state = seeded(shapes, lambda key: math.sqrt(ENCODER.g.width) if "token_embedding" in key else 1.0, torch.bfloat16)
    for key in state:
        if key.endswith(("running_var", "gamma_v", "gamma_l")):
            state[key].fill_(1.0)
        elif key.endswith("num_batches_tracked"):
            state[key] = torch.zeros((), dtype=torch.long)
    return state


def tiny_unet_state() -> State:
    """The UNet's weights, in diffusers' layout."""
    return seeded(expected_shapes(UNET))


def tiny_vae_state() -> State:
    """The VAE's weights under the names that the host's VAE loader knows a TAESD by."""
    last = max(int(key.split(".")[1]) for key in vae_shapes() if key.startswith("taesd_decoder."))

    def gain(key: str) -> float:
        # The last layer of each residual branch is small, or ten branches in a row would run away.
        if key.endswith("conv.4.weight"):
            return 0.5
        return 0.25 if key == f"taesd_decoder.{last}.weight" else math.sqrt(2)  # sqrt(2): half is lost in each ReLU

    state = seeded(vae_shapes(), gain)
    state[f"taesd_decoder.{last}.bias"].fill_(0.5)  # pictures lie around mid grey
    state["vae_scale"] = torch.tensor(LATENT_FACTOR)
    state["vae_shift"] = torch.tensor(0.0)
    return state


def vae_shapes() -> dict[str, tuple[int, ...]]:
    """Keys and shapes of a TAESD with four latent channels: three halvings down, three doublings up."""
    return {**dict(_encoder()), **dict(_decoder())}


def _encoder() -> Iterator[tuple[str, tuple[int, ...]]]:
    name, width = "taesd_encoder", _VAE_WIDTH
    yield from _conv(f"{name}.0", 3, width)
    yield from _block(f"{name}.1")
    place = 2
    for _ in range(3):
        yield from _conv(f"{name}.{place}", width, width, bias=False)
        for i in range(3):
            yield from _block(f"{name}.{place + 1 + i}")
        place += 4
    yield from _conv(f"{name}.{place}", width, LATENT_CHANNELS)


def _decoder() -> Iterator[tuple[str, tuple[int, ...]]]:
    name, width = "taesd_decoder", _VAE_WIDTH
    yield from _conv(f"{name}.1", LATENT_CHANNELS, width)  # 0 and 2 have no weights
    place = 3
    for _ in range(3):
        for i in range(3):
            yield from _block(f"{name}.{place + i}")
        yield from _conv(f"{name}.{place + 4}", width, width, bias=False)  # place + 3 doubles the size
        place += 5
    yield from _block(f"{name}.{place}")
    yield from _conv(f"{name}.{place + 1}", width, 3)


def _block(name: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    for layer in (0, 2, 4):  # with a ReLU between
        yield from _conv(f"{name}.conv.{layer}", _VAE_WIDTH, _VAE_WIDTH)


def _conv(name: str, inputs: int, outputs: int, bias: bool = True) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", (outputs, inputs, 3, 3)
    if bias:
        yield f"{name}.bias", (outputs,)


FILES = {
    "faceclip": TinyFile(
        "faceclip/faceclip_tiny.safetensors", tiny_faceclip_state, {checkpoint.CONFIG_KEY: ENCODER.to_json()}
    ),
    "unet": TinyFile(
        "diffusion_models/faceclip_sdxl_tiny.safetensors", tiny_unet_state, {METADATA_KEY: UNET.to_json()}
    ),
    "vae": TinyFile("vae/faceclip_tiny_vae.safetensors", tiny_vae_state, {}),
}
