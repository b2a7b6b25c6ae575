"""A small FaceT5, FLUX and VAE of random weights, for tests alone: never shown to a user."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from golden_t5 import TINY_T5, tiny_t5_weights
from safetensors.torch import save_file
from seeded import seeded

from faceclip.model import checkpoint
from faceclip.sampling import flux_file
from faceclip.sampling.flux_config import FluxConfig
from faceclip.sampling.flux_schedule import LATENT_CHANNELS
from faceclip.small.models import vae_shapes

# class of a loader -> folder below models/, file
FILES = {
    "FaceCLIPLoader": ("faceclip", "facet5_random.safetensors"),
    "FaceCLIPUNETLoader": ("diffusion_models", "flux_random.safetensors"),
    "VAELoader": ("vae", "flux_vae_random.safetensors"),
}

FLUX = FluxConfig(
    num_layers=2,
    num_single_layers=3,
    attention_head_dim=32,
    num_attention_heads=2,
    joint_attention_dim=64,
    pooled_projection_dim=64,
    axes_dims_rope=(8, 12, 12),
)


# As small as the original layout can show: how positions share a head is seen in no weight, so heads are FLUX.1's.
WIDE_HEADS = replace(FLUX, attention_head_dim=128, axes_dims_rope=(16, 56, 56))


def diffusers_flux(config: FluxConfig = FLUX) -> torch.nn.Module:
    """diffusers' transformer of these sizes, its weights large enough that every layer shows in the result."""
    diffusers = pytest.importorskip("diffusers", reason="diffusers is the reference here")
    torch.manual_seed(0)
    model = diffusers.FluxTransformer2DModel.from_config(json.loads(config.to_json())).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def write_flux(path: Path, config: FluxConfig = FLUX) -> None:
    """The same as a file that names its sizes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    flux_file.save(diffusers_flux(config).state_dict(), config, path, force=True)


def write_vae(path: Path) -> None:
    """A TAESD for FLUX's latents."""
    shapes = vae_shapes()
    for key, axis in (("taesd_decoder.1.weight", 1), ("taesd_encoder.14.weight", 0), ("taesd_encoder.14.bias", 0)):
        shapes[key] = (*shapes[key][:axis], LATENT_CHANNELS, *shapes[key][axis + 1 :])
    state = seeded(shapes, lambda key: math.sqrt(2.0))
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({**state, "vae_scale": torch.tensor(1.0), "vae_shift": torch.tensor(0.0)}, path)


def write_family(models: Path) -> list[Path]:
    """All three below a models folder; FaceT5 with a CLIP-L, and with widths that fit the FLUX."""
    encoder, transformer, vae = (models / folder / name for folder, name in FILES.values())
    checkpoint.save(tiny_t5_weights(with_clip=True), encoder, TINY_T5, force=True)
    write_flux(transformer)
    write_vae(vae)
    return [encoder, transformer, vae]
