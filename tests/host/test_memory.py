"""The encoder under the host's model management, watched on a RAM-backed device that stands in for a GPU."""

import logging
import math
import shutil
import sys
from pathlib import Path

import inside_memory
import pytest
import torch
from inprocess import run_in_host
from seeded import seeded

from faceclip.model import checkpoint
from faceclip.model.config import FaceCLIPConfig, FaceConfig, FuserConfig, TextConfig
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
SAME, ROUNDING = 0.0, 1e-5


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


def can_build() -> str | None:
    """None, or why the device cannot be built here."""
    from torch.utils import cpp_extension

    if shutil.which(cpp_extension.get_cxx_compiler()) is None:
        return "no C++ compiler on this machine to build the RAM-backed device with (install g++)"
    beside_python = shutil.which("ninja", path=str(Path(sys.executable).parent))
    if not (beside_python or shutil.which("ninja")):
        return "no ninja on this machine to build the RAM-backed device with (pip install ninja)"
    return None


@pytest.fixture(scope="module", params=["one face encoder", "two face encoders"])
def figures(request, comfyui, tmp_path_factory) -> dict:
    reason = can_build()
    if reason:
        pytest.skip(reason)
    base = tmp_path_factory.mktemp("memory")
    unet = small.write_small_model(base / "models")["unet"]
    encoder = base / "encoder.safetensors"
    write_encoder(encoder, shared=request.param.startswith("one"))
    got = run_in_host(inside_memory.life_of_an_encoder, DEVICE, encoder, unet, comfyui=comfyui, base=base, timeout=600)
    log.info("%s: %s", request.param, got)
    return got


def test_ram_backed_gpu_gets_the_encoder_when_it_is_used(figures):
    assert figures["before use"] == 0
    assert figures["in use"] >= figures["size"] > 0
    assert figures["in use, difference"] <= ROUNDING


def test_ram_backed_gpu_is_given_to_a_unet_and_back(figures):
    assert figures["unet, finite"]
    assert figures["encoder beside the unet"] == 0
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
