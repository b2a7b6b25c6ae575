"""The encoder under the host's model management, watched on a RAM-backed device that stands in for a GPU."""

import logging
import math
import shutil
import sys
from pathlib import Path

import flux_models
import golden_t5
import inside_memory
import pytest
import torch
from inprocess import run_in_host
from seeded import seeded

from faceclip.model import checkpoint
from faceclip.model.config import FaceCLIPConfig, FaceConfig, FaceT5Config, FuserConfig, T5Config, TextConfig
from faceclip.small import models as small

log = logging.getLogger(__name__)
DEVICE = Path(__file__).parent / "ram_device" / "ram_device.py"
# Layers enough for a half to be loaded, and none of them most of the model.
CONFIG = FaceCLIPConfig(
    l=TextConfig(width=128, heads=2, layers=4, activation="quick_gelu"),
    g=TextConfig(width=192, heads=3, layers=4, activation="gelu"),
    face=FaceConfig(width=192, heads=4, layers=6, embed_dim=64),
    fuser=FuserConfig(heads=4, layers=6, feedforward=512, points=4),
)
FACET5 = FaceT5Config(
    t5=T5Config(d_model=256, d_kv=32, num_heads=8, num_layers=4, d_ff=512), face=CONFIG.face, fuser_layers=6
)
SAME = 0.0
# What another device may change: the rounding of float32; of bf16, in which FaceT5 computes there.
FLOAT32, BF16 = 1e-5, 0.05
SPARE = 2**20  # bytes that the device has beyond what the diffusion model needs; FaceT5's smallest layers fit in


def write_encoder(path: Path, shared: bool) -> None:
    """A medium encoder of random bf16 weights."""
    shapes = checkpoint.expected_shapes(CONFIG, shared)
    state = seeded(shapes, lambda key: math.sqrt(CONFIG.g.width) if "token_embedding" in key else 1.0, torch.bfloat16)
    for key in state:
        if key.endswith(("running_var", "gamma_v", "gamma_l")):
            state[key].fill_(1.0)
        elif key.endswith("num_batches_tracked"):
            state[key] = torch.zeros((), dtype=torch.long)
    if not shared:  # equal copies would be merged
        state["face_clip_g.face_encoder.norm.bias"].fill_(0.25)
    checkpoint.save(state, path, CONFIG)


def write_facet5(path: Path) -> None:
    """A medium FaceT5 of random bf16 weights; its attention is not steep, so that rounding stays small."""
    gains = {"embed_tokens": math.sqrt(FACET5.t5.d_model), ".Wq.": 0.2}
    state = seeded(
        checkpoint.expected_shapes(FACET5, golden_t5.CLIP),
        lambda key: next((gain for part, gain in gains.items() if part in key), 1.0),
        torch.bfloat16,
    )
    for key in state:
        if key.endswith(("running_var", "gamma_v", "gamma_l")):
            state[key].fill_(1.0)
        elif key.endswith("num_batches_tracked"):
            state[key] = torch.zeros((), dtype=torch.long)
    checkpoint.save(state, path, FACET5)


def can_build() -> str | None:
    """None, or why the device cannot be built here."""
    from torch.utils import cpp_extension

    if shutil.which(cpp_extension.get_cxx_compiler()) is None:
        return "no C++ compiler on this machine to build the RAM-backed device with (install g++)"
    beside_python = shutil.which("ninja", path=str(Path(sys.executable).parent))
    if not (beside_python or shutil.which("ninja")):
        return "no ninja on this machine to build the RAM-backed device with (pip install ninja)"
    return None


@pytest.fixture(scope="module", params=["one face encoder", "two face encoders", "FaceT5"])
def figures(request, comfyui, tmp_path_factory) -> dict:
    reason = can_build()
    if reason:
        pytest.skip(reason)
    base = tmp_path_factory.mktemp("memory")
    encoder = base / "encoder.safetensors"
    if request.param == "FaceT5":
        unet = base / "models" / "diffusion_models" / "flux.safetensors"
        flux_models.write_flux(unet)
        write_facet5(encoder)
    else:
        unet = small.write_small_model(base / "models")["unet"]
        write_encoder(encoder, shared=request.param.startswith("one"))
    got = run_in_host(inside_memory.life_of_an_encoder, DEVICE, encoder, unet, comfyui=comfyui, base=base, timeout=600)
    log.info("%s: %s", request.param, got)
    rounding, beside = (BF16, SPARE) if request.param == "FaceT5" else (FLOAT32, 0)
    return {**got, "rounding": rounding, "may stay": beside}


def test_ram_backed_gpu_gets_the_encoder_when_it_is_used(figures):
    assert figures["before use"] == 0
    assert figures["in use"] >= figures["size"] > 0
    assert figures["in use, difference"] <= figures["rounding"]


def test_ram_backed_gpu_is_given_to_a_unet_and_back(figures):
    assert figures["unet, finite"]
    assert figures["encoder beside the unet"] <= figures["may stay"]
    assert figures["unet size"] <= figures["all beside the unet"] <= figures["unet size"] * 1.1 + 2**21
    assert figures["after the unet"] == figures["size"]
    assert figures["after the unet, difference"] == SAME


def test_small_ram_backed_gpu_takes_a_part_of_the_encoder(figures):
    assert 0 < figures["half loaded"] < figures["size"]
    assert 0 < figures["half loaded, held"] < figures["size"]
    assert figures["half loaded, difference"] == SAME


def test_nothing_stays_on_the_ram_backed_gpu(figures):
    assert figures["after unloading all"] == 0
    assert figures["after unloading the half"] == 0
    assert figures["once more, difference"] == SAME
    assert figures["before the last reference goes"] >= figures["size"]
    assert figures["after the last reference"] == 0
    assert figures["models known to the host"] == 0
