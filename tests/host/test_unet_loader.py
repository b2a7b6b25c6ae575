"""The UNet loader and the sampling settings inside a real host: the small model, wrong files, the full size."""

import logging
import math
import shutil

import inside_unet
import pytest
import torch
from inprocess import HostFailure, run_in_host
from safetensors.torch import save_file
from seeded import seeded

from faceclip.files.state_dict import read_state_dict
from faceclip.sampling import unet_file
from faceclip.sampling.unet_config import SDXL, expected_shapes
from faceclip.small import models as small

log = logging.getLogger(__name__)
UNET_FILE = "faceclip_sdxl_tiny.safetensors"


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    base = tmp_path_factory.mktemp("unet")
    small.write_small_model(base / "models")
    return base


@pytest.fixture(scope="module")
def facts(comfyui, base) -> dict:
    return run_in_host(inside_unet.tiny_model, comfyui=comfyui, base=base)


def test_every_weight_dtype_loads_and_samples(facts):
    dtypes = facts["dtypes"]
    assert all(finite for _, finite in dtypes.values()), dtypes
    wanted = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32", "fp8_e4m3fn": "float8_e4m3fn"}
    assert {name: dtypes[name][0] for name in wanted} == {name: f"torch.{dtype}" for name, dtype in wanted.items()}


def test_the_small_model_makes_a_picture(facts):
    assert facts["latent"] == [2, 4, 16, 8]
    shape, low, high, spread = facts["picture"]
    assert shape == [2, 128, 64, 3]
    assert 0 <= low < high <= 1 and spread > 0.02, facts["picture"]
    assert facts["encoded"] == [[2, 4, 16, 8], True]


def test_only_the_whole_schedule_begins_as_published(facts):
    assert not facts["whole schedule is as stock"]
    assert facts["later part is as stock"]


def test_first_noise(comfyui, base):
    got = run_in_host(inside_unet.first_latents, comfyui=comfyui, base=base)
    first, second = got["sigmas"][:2]
    assert got["whole"] == pytest.approx(math.sqrt(first**2 + 1), rel=1e-5)
    assert got["from the second"] == pytest.approx(second, rel=1e-6)
    assert got["from the second, on a picture"] == pytest.approx(second + 10, rel=1e-6)
    largest, factor = got["largest"]
    assert factor == pytest.approx(math.sqrt(largest**2 + 1), rel=1e-6)


def test_the_published_config_is_the_hosts_own_sdxl(comfyui, base):
    assert run_in_host(inside_unet.same_config, comfyui=comfyui, base=base) == []


def test_a_second_copy_for_classic_memory_management(comfyui, base):
    kind, weights, equal = run_in_host(inside_unet.load_classic, comfyui=comfyui, base=base)
    assert kind == "ModelPatcher" and weights == len(expected_shapes(small.UNET)) and equal


def test_a_large_file_that_is_cut_while_in_use_ends_no_host(comfyui, base):
    (base / "models" / "faceclip").mkdir(exist_ok=True)
    shutil.copy(small.FOLDER / small.ENCODER_FILE, base / "models" / "faceclip")
    told = run_in_host(inside_unet.cut_while_in_use, UNET_FILE, small.ENCODER_FILE, comfyui=comfyui, base=base)
    assert told.keys() == {"unet", "prompt", "face", "hash"}
    for name, words in told.items():  # read, it ends the process: SIGBUS
        assert "cut.safetensors was overwritten after it was loaded" in words, name


WRONG = {
    "nothing.safetensors": ("ModelNotFoundError", ["nothing.safetensors", "diffusion_models", "unet.pt", "CC BY-NC"]),
    "vae.safetensors": ("CheckpointError", ["vae.safetensors", "no SDXL UNet", "Choose the right file"]),
    "short.safetensors": ("CheckpointError", ["short.safetensors", "truncated", "download it again"]),
    "nan.safetensors": ("CheckpointError", ["nan.safetensors", "conv_in.bias", "NaN"]),
    "lacking.safetensors": ("CheckpointError", ["lacking.safetensors", "1 missing: conv_in.bias"]),
    "module.pt": ("CheckpointError", ["module.pt", "refused", "state dict"]),
    "unnamed.safetensors": ("CheckpointError", ["unnamed.safetensors", "first width 32", "header"]),
}


@pytest.fixture(scope="module")
def refusals(comfyui, base) -> dict:
    folder = base / "models" / "diffusion_models"
    shutil.copy(base / "models" / "vae" / "faceclip_tiny_vae.safetensors", folder / "vae.safetensors")
    (folder / "short.safetensors").write_bytes((folder / UNET_FILE).read_bytes()[:-64])
    torch.save(torch.nn.Linear(2, 2), folder / "module.pt")
    state, metadata = read_state_dict(small.FOLDER / UNET_FILE)
    save_file(state, folder / "unnamed.safetensors")
    bias = state.pop("conv_in.bias").clone()
    save_file(state, folder / "lacking.safetensors", metadata)
    save_file({**state, "conv_in.bias": bias.fill_(float("nan"))}, folder / "nan.safetensors", metadata)
    return run_in_host(inside_unet.refusals, list(WRONG), comfyui=comfyui, base=base)


@pytest.mark.parametrize("file", WRONG)
def test_a_wrong_file_is_refused_with_what_to_do(refusals, file):
    kind, words = WRONG[file]
    assert refusals[file][0] == kind, refusals[file]
    for word in words:
        assert word in refusals[file][1]


def test_a_failure_inside_the_host_comes_out(comfyui, base):
    with pytest.raises(HostFailure) as failure:
        run_in_host(inside_unet.refusals, 1, comfyui=comfyui, base=base)
    assert failure.value.kind == "TypeError" and "int" in failure.value.message


@pytest.mark.full_size
@pytest.mark.parametrize("form", ["pt", "safetensors"])
def test_full_size(comfyui, tmp_path, form):
    """5 GB of random bf16 weights under the published keys; run with `-m full_size`, needs about 11 GB of RAM."""
    file = tmp_path / "models" / "diffusion_models" / f"unet.{form}"
    file.parent.mkdir(parents=True)
    state = seeded(expected_shapes(SDXL), dtype=torch.bfloat16)
    if form == "pt":
        torch.save(state, file)
    else:
        unet_file.save(state, SDXL, file)
    del state
    try:
        figures = run_in_host(inside_unet.full_size, file.name, "bf16", comfyui=comfyui, base=tmp_path, timeout=1200)
    finally:
        file.unlink()
    log.info("%s: %s", file.name, figures)
    assert figures["weights"] == 1680 and figures["finite"]
    assert figures["own_memory_after_load_gb"] < 6.5  # 5.1 GB of weights once, not twice
