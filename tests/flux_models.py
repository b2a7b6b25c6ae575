"""A small FLUX of random weights, for tests alone: never shown to a user."""

import json
from pathlib import Path

import pytest
import torch

from faceclip.sampling import flux_file
from faceclip.sampling.flux_config import FluxConfig

FLUX = FluxConfig(
    num_layers=2,
    num_single_layers=3,
    attention_head_dim=32,
    num_attention_heads=2,
    joint_attention_dim=64,
    pooled_projection_dim=64,
    axes_dims_rope=(8, 12, 12),
)


def diffusers_flux() -> torch.nn.Module:
    """diffusers' transformer of these sizes, its weights large enough that every layer shows in the result."""
    diffusers = pytest.importorskip("diffusers", reason="diffusers is the reference here")
    torch.manual_seed(0)
    model = diffusers.FluxTransformer2DModel.from_config(json.loads(FLUX.to_json())).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def write_flux(path: Path) -> None:
    """The same as a file that names its sizes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    flux_file.save(diffusers_flux().state_dict(), FLUX, path, force=True)
