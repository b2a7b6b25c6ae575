"""Another checkpoint's style on FaceCLIP's UNet, in a real host: neutral settings exact, other models refused."""

import inside_merge
import inside_unet
import pytest
import torch
from inprocess import run_in_host
from seeded import seeded

from faceclip.__main__ import main
from faceclip.sampling import unet_file
from faceclip.sampling.unet_config import expected_shapes
from faceclip.small import models as small

try:
    import peft  # noqa: F401

    from faceclip.train import adapter
    from faceclip.train.diffusion import new_unet
except ImportError:
    adapter = None

OURS, STYLE, BASE = small.UNET_FILE, "style.safetensors", "base.safetensors"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A base directory with the small UNet, a random base of its sizes, and a style tuned from that base."""
    base = tmp_path_factory.mktemp("merge")
    small.write_small_model(base / "models")
    shapes = expected_shapes(small.UNET)
    origin = seeded(shapes)
    change = seeded({f"style {key}": shape for key, shape in shapes.items() if len(shape) > 1})
    tuned = {key: value + 0.1 * change.get(f"style {key}", 1.0) for key, value in origin.items()}
    for name, state in ((BASE, origin), (STYLE, tuned)):
        unet_file.save(state, small.UNET, base / "models" / "diffusion_models" / name)
    return base


@pytest.fixture(scope="module")
def facts(comfyui, folder):
    return run_in_host(inside_merge.merged_weights, OURS, STYLE, BASE, comfyui=comfyui, base=folder)


def test_neutral_settings_are_exactly_faceclip(facts):
    assert facts["strength 0"] and facts["style = base"] and facts["style = base, all"]


def test_the_difference_is_added(facts):
    assert facts["error of the sum"] < 1e-6
    assert facts["rest moved"]


def test_the_weights_that_read_the_conditioning_stay(facts):
    assert facts["readers kept"] and facts["readers"] == 2 * 7 + 4


def test_it_can_be_taken_off(facts):
    assert facts["removable"]


def test_no_third_copy_of_the_weights_is_held(facts):
    assert facts["patched"] == 2 * len(expected_shapes(small.UNET)) and facts["weights of its own"] == 0


RANKS = {rank: f"rank{rank}.safetensors" for rank in (2, 4096)}


@pytest.fixture(scope="module")
def loras(comfyui, folder):
    """What the stock loader makes of LoRAs: those of `python -m faceclip lora`, and one of stage B's training."""
    unets, files = folder / "models" / "diffusion_models", folder / "models" / "loras"
    files.mkdir(parents=True, exist_ok=True)
    for rank, file in RANKS.items():
        options = ["--base", str(unets / BASE), "--rank", str(rank), "--out", str(files / file), "--dtype", "fp32"]
        assert main(["lora", str(unets / STYLE), *options]) == 0
    sets = [[BASE, STYLE, list(RANKS.values())]]
    if adapter is not None:
        unet = new_unet(small.UNET, unet_file.read(unets / BASE)[0])
        adapter.add_lora(unet, 4)
        torch.manual_seed(0)
        for name, weight in unet.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight, std=0.3)
        adapter.save_lora(unet, files)
        unet.fuse_lora()
        unet.unload_lora()
        unet_file.save(dict(unet.state_dict()), small.UNET, unets / "fused.safetensors")
        sets.append([BASE, "fused.safetensors", [adapter.LORA_FILE]])
    return run_in_host(inside_unet.lora_samples, sets, comfyui=comfyui, base=folder)


def test_the_lora_makes_faceclip_of_its_base(loras):
    """At full rank it is the tuned UNet, biases and all."""
    far = loras[0]["far"]
    assert loras[0]["patched"] and far[""] > 0.1
    assert far[RANKS[4096]] < 1e-3 < far[RANKS[2]] < far[""], far


@pytest.mark.skipif(adapter is None, reason="training's own requirements are not installed")
def test_a_lora_that_was_trained_is_what_peft_makes_of_it(loras):
    far = loras[1]["far"]
    assert far[adapter.LORA_FILE] < 1e-3 < 0.05 < far[""], far


def test_the_small_models_style_is_the_same_by_the_stock_loader_and_merged(comfyui, folder):
    found = run_in_host(inside_merge.companion, OURS, small.STYLE_FILE, comfyui=comfyui, base=folder)
    # Of a LoRA made for another small UNet some keys find no weight of their shape: `python -m faceclip toy --style`.
    assert found["keys"] == found["moved"] == 1.0
    assert found["apart"] < 1e-5


def test_what_cannot_be_merged_is_named(comfyui, folder):
    said = run_in_host(inside_merge.refusals, OURS, comfyui=comfyui, base=folder)
    for name, words in {
        "inpainting": "style_model is an inpainting checkpoint",
        "v-prediction": "style_model predicts otherwise (V_PREDICTION) than FaceCLIP (EPS)",
        "refiner": "style_model is the SDXL refiner",
        "SD 1.5": "style_model is Stable Diffusion 1.5",
        "fewer layers": "style_model has not the weights of FaceCLIP's UNet: 0 are missing, 0 have another shape, 20",
        "base": "base_model is an inpainting checkpoint",
    }.items():
        assert words in said[name] and "Nothing was merged" in said[name], said[name]
