"""The small model: a small FaceCLIP, SDXL-shaped UNet and TAESD-shaped VAE that anybody can run on a CPU.

It was trained by faceclip.train.small on cartoon people of 128 x 128 px, and ships with the pack. It shows how
everything works together; for real faces there is the published model.
"""

import operator
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import CheckpointError, ModelNotFoundError
from ..files import whole
from ..model.config import FaceCLIPConfig, FaceConfig, FuserConfig, TextConfig
from ..sampling.unet_config import UNetConfig

if TYPE_CHECKING:
    from ..files.state_dict import State

FOLDER = Path(__file__).resolve().parent / "weights"
ENCODER_FILE = "faceclip_tiny.safetensors"
UNET_FILE = "faceclip_sdxl_tiny.safetensors"
VAE_FILE = "faceclip_tiny_vae.safetensors"
STYLE_FILE = "faceclip_tiny_style.safetensors"  # a LoRA: its people printed in two inks
# name -> where ComfyUI's loaders look, below the models folder
PLACES = {
    "faceclip": Path("faceclip") / ENCODER_FILE,
    "unet": Path("diffusion_models") / UNET_FILE,
    "vae": Path("vae") / VAE_FILE,
    "style": Path("loras") / STYLE_FILE,
}
SIZE = 128  # px: the side of the pictures it was trained on

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


def write_small_model(models_dir: Path) -> dict[str, Path]:
    """Copy the small model to where ComfyUI's loaders look; returns their paths by name.

    A file that is there and equal is left alone; a damaged or older one is replaced, whole or not at all. Raises
    ModelNotFoundError where the pack itself lacks a file.
    """
    paths = {}
    for name, place in PLACES.items():
        source, path = FOLDER / place.name, Path(models_dir) / place
        if not source.is_file():
            raise ModelNotFoundError(f"{source} is missing: it belongs to this pack. Install or clone the pack again.")
        data = _vae_as_the_host_wants_it(source) if name == "vae" else source.read_bytes()
        if not (path.is_file() and path.read_bytes() == data):
            path.parent.mkdir(parents=True, exist_ok=True)
            whole.write(path, data)
        paths[name] = path
    return paths


def _vae_as_the_host_wants_it(source: Path) -> bytes:
    from safetensors.torch import save

    from ..files.state_dict import read_state_dict

    return save(padded_vae(read_state_dict(source)[0]))


def padded_vae(narrow: "State") -> "State":
    """The VAE in TAESD's full shapes: zeros wherever the shipped file, which leaves them out, has nothing."""
    import torch

    shapes = vae_shapes()
    fits = all(
        value.ndim == len(shapes[key]) and all(map(operator.le, value.shape, shapes[key]))
        for key, value in narrow.items()
        if key in shapes
    )
    dtype = next((value.dtype for value in narrow.values() if value.ndim > 1), None)
    if not fits or dtype is None or not shapes.keys() & narrow.keys():
        raise CheckpointError("The small model's VAE does not fit TAESD's shape. Install or clone the pack again.")
    state = {key: torch.zeros(shape, dtype=dtype) for key, shape in shapes.items()}
    for key, value in narrow.items():
        if key in state:
            state[key][tuple(map(slice, value.shape))] = value
        else:
            state[key] = value  # the scale and shift of latents
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
