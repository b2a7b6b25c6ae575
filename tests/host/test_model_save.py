"""What the host's ModelSave makes of our MODEL, as it is and with a LoRA in it, comes back through our loader."""

import io
import json
from dataclasses import replace

import flux_models
import numpy as np
import pytest
import torch
from graphs import node
from PIL import Image
from safetensors.torch import load_file, save_file

from faceclip.comfy.server_errors import ExecutionFailed
from faceclip.comfy.workflow import SMALL_FILES
from faceclip.sampling import unet_file
from faceclip.sampling.unet_config import VELOCITY
from faceclip.small import models as small

SIZE = {"width": 64, "height": 64}
LINKS = {"positive": ["text", 0], "negative": ["text", 0], "latent_image": ["latent", 0]}
SAMPLED = {"seed": 5, "steps": 3, "cfg": 1.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0}
PROMPT = {
    "unet": node("FaceCLIPUNETLoader", file=SMALL_FILES["FaceCLIPUNETLoader"], weight_dtype="default"),
    "faceclip": node("FaceCLIPLoader", file=SMALL_FILES["FaceCLIPLoader"], precision="auto"),
    "text": node("FaceCLIPEncodeText", faceclip=["faceclip", 0], text="a person in a park", **SIZE),
    "latent": node("EmptyLatentImage", batch_size=1, **SIZE),
    "vae": node("VAELoader", vae_name=SMALL_FILES["VAELoader"]),
    "lora": node("LoraLoaderModelOnly", model=["unet", 0], lora_name="test_style.safetensors", strength_model=1.0),
    "decode": node("VAEDecode", samples=["sample", 0], vae=["vae", 0]),
    "show": node("PreviewImage", images=["decode", 0]),
}


# The same with the other family: a random FLUX that knows FaceT5's random model.
FLUX_PROMPT = {
    **PROMPT,
    "unet": node("FaceCLIPUNETLoader", file="flux_wide_heads.safetensors", weight_dtype="default"),
    "faceclip": node("FaceCLIPLoader", file=flux_models.FILES["FaceCLIPLoader"][1], precision="auto"),
    "latent": node("EmptySD3LatentImage", batch_size=1, **SIZE),
    "vae": node("VAELoader", vae_name=flux_models.FILES["VAELoader"][1]),
    "lora": node("LoraLoaderModelOnly", model=["unet", 0], lora_name="test_flux.safetensors", strength_model=1.0),
}


@pytest.fixture(scope="module")
def flux(base_directory):
    """The random models beside the small one, for these tests only, and a LoRA on one layer of the transformer."""
    models = base_directory / "models"
    written = [*flux_models.write_family(models), models / "diffusion_models" / "flux_wide_heads.safetensors"]
    flux_models.write_flux(written[-1], flux_models.WIDE_HEADS)
    written.append(models / "loras" / "test_flux.safetensors")
    written[-1].parent.mkdir(exist_ok=True)
    width, random = flux_models.WIDE_HEADS.width, torch.Generator().manual_seed(1)
    layer = "transformer.single_transformer_blocks.0.attn.to_v"
    save_file(
        {
            f"{layer}.lora_{part}.weight": torch.randn(shape, generator=random)
            for part, shape in {"A": (4, width), "B": (width, 4)}.items()
        },
        written[-1],
    )
    yield
    for path in written:
        path.unlink()


@pytest.fixture(scope="module")
def lora(base_directory) -> None:
    """A LoRA on one layer of the small UNet, strong enough to be seen."""
    folder = base_directory / "models" / "loras"
    folder.mkdir(exist_ok=True)
    name = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_v"
    random = torch.Generator().manual_seed(1)
    state = {
        f"{name}.lora_up.weight": torch.randn(128, 4, generator=random),
        f"{name}.lora_down.weight": torch.randn(4, 96, generator=random),
        f"{name}.alpha": torch.tensor(4.0),
    }
    save_file(state, folder / "test_style.safetensors")


def picture(client, model: str, graph: dict = PROMPT, **loader) -> np.ndarray:
    prompt = json.loads(json.dumps({**graph, "sample": node("KSampler", model=[model, 0], **LINKS, **SAMPLED)}))
    prompt["unet"]["inputs"].update(loader)
    (shown,) = client.run(prompt, timeout=120).images("show")
    return np.asarray(Image.open(io.BytesIO(client.view(shown)))).astype(int)


def saved(client, base_directory, model: str, name: str, graph: dict = PROMPT, **loader):
    prompt = json.loads(json.dumps({key: graph[key] for key in ("unet", "lora")}))
    prompt["unet"]["inputs"].update(loader)
    prompt["save"] = node("ModelSave", model=[model, 0], filename_prefix=f"diffusion_models/{name}")
    client.run(prompt, timeout=120)
    (path,) = (base_directory / "output" / "diffusion_models").glob(f"{name}_*.safetensors")
    return path


@pytest.mark.parametrize("weight_dtype", ["default", "fp16", "fp8_e4m3fn"])
def test_a_saved_model_makes_the_same_picture(client, base_directory, weight_dtype):
    path = saved(client, base_directory, "unet", f"plain_{weight_dtype}", weight_dtype=weight_dtype)
    before = picture(client, "unet", weight_dtype=weight_dtype)
    assert np.array_equal(picture(client, "unet", file=path.name, weight_dtype=weight_dtype), before)


def test_a_saved_model_of_v_makes_the_same_picture(client, base_directory):
    """The small UNet's weights, said to predict v: another picture, which saving and loading keep."""
    state, config = unet_file.read(small.FOLDER / small.UNET_FILE)
    of_v = base_directory / "models" / "diffusion_models" / "predicts_v.safetensors"
    unet_file.save(dict(state), replace(config, prediction_type=VELOCITY), of_v, force=True)
    before = picture(client, "unet", file=of_v.name)
    path = saved(client, base_directory, "unet", "of_v", file=of_v.name)
    assert np.array_equal(picture(client, "unet", file=path.name), before)
    assert np.abs(picture(client, "unet") - before).mean() > 1
    of_v.unlink()


def test_a_lora_that_was_saved_with_it_stays(client, base_directory, lora):
    path = saved(client, base_directory, "lora", "styled")
    styled = picture(client, "lora")
    assert np.abs(styled - picture(client, "unet")).mean() > 1
    assert np.abs(styled - picture(client, "unet", file=path.name)).max() <= 1


def test_a_whole_checkpoint_is_refused_with_the_way(client, base_directory):
    """As CheckpointSave writes it, with a text tower and a VAE in it."""
    path = saved(client, base_directory, "unet", "for_a_checkpoint")
    state = load_file(path) | {"first_stage_model.decoder.conv_in.weight": torch.zeros(4, 4, 3, 3)}
    save_file(state, base_directory / "models" / "diffusion_models" / "whole.safetensors")
    with pytest.raises(ExecutionFailed, match="a whole SDXL checkpoint.*with ModelSave, not with CheckpointSave"):
        picture(client, "unet", file="whole.safetensors")


@pytest.mark.parametrize("weight_dtype", ["default", "fp8_e4m3fn"])
def test_a_saved_flux_makes_the_same_picture(client, base_directory, flux, weight_dtype):
    path = saved(client, base_directory, "unet", f"flux_{weight_dtype}", FLUX_PROMPT, weight_dtype=weight_dtype)
    before = picture(client, "unet", FLUX_PROMPT, weight_dtype=weight_dtype)
    assert np.array_equal(picture(client, "unet", FLUX_PROMPT, file=path.name, weight_dtype=weight_dtype), before)


def test_a_lora_that_was_saved_with_a_flux_stays(client, base_directory, flux):
    path = saved(client, base_directory, "lora", "flux_styled", FLUX_PROMPT)
    styled = picture(client, "lora", FLUX_PROMPT)
    assert np.abs(styled - picture(client, "unet", FLUX_PROMPT)).mean() > 1
    assert np.abs(styled - picture(client, "unet", FLUX_PROMPT, file=path.name)).max() <= 1
