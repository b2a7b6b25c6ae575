"""The proof: our nodes in ComfyUI and diffusers' SDXL pipeline make the same latents from the same UNet."""

import json
import logging
from dataclasses import replace

import pytest
import torch
from inprocess import run_in_host
from inside_unet import sample
from safetensors.torch import load_file, save_file

from faceclip.sampling import unet_file
from faceclip.sampling.unet_config import PREDICTIONS, UNetConfig

CONFIG = UNetConfig(
    in_channels=4,
    out_channels=4,
    down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    block_out_channels=(32, 64, 128),
    layers_per_block=2,
    transformer_layers_per_block=(1, 1, 2),
    attention_head_dim=(1, 1, 2),
    cross_attention_dim=96,
    addition_time_embed_dim=256,
    projection_class_embeddings_input_dim=64 + 6 * 256,
)
log = logging.getLogger(__name__)

WIDTH, HEIGHT, STEPS, SEED = 192, 320, 10, 7  # not square, so that width and height cannot be mixed up unseen


@pytest.fixture(scope="module")
def reference():
    """diffusers' UNet with random weights, large enough that every layer shows in the result."""
    diffusers = pytest.importorskip("diffusers", reason="diffusers is the reference here")
    torch.manual_seed(0)
    model = diffusers.UNet2DConditionModel.from_config(json.loads(CONFIG.to_json())).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return model


@pytest.fixture(scope="module")
def base(reference, tmp_path_factory):
    base = tmp_path_factory.mktemp("parity")
    folder = base / "models" / "diffusion_models"
    folder.mkdir(parents=True)
    for prediction in PREDICTIONS:
        config = replace(CONFIG, prediction_type=prediction)
        unet_file.save(reference.state_dict(), config, folder / f"{prediction}.safetensors")
    generator = torch.Generator().manual_seed(1)
    tensors = {}
    for name in ("positive", "negative"):
        tensors[f"{name}.embeddings"] = torch.randn(1, 77, CONFIG.cross_attention_dim, generator=generator)
        tensors[f"{name}.pooled"] = torch.randn(1, CONFIG.pooled_width, generator=generator)
    save_file(tensors, base / "conditioning.safetensors")
    return base


def diffusers_latents(
    model, conditioning, noise, steps=STEPS, width=WIDTH, height=HEIGHT, prediction="epsilon"
) -> torch.Tensor:
    """Latents of the published pipeline class, SDXL-base-1.0's scheduler config, guidance 5."""
    import diffusers

    scheduler = diffusers.EulerDiscreteScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type=prediction,
        timestep_spacing="leading",
        steps_offset=1,
        interpolation_type="linear",
        use_karras_sigmas=False,
    )
    pipeline = diffusers.StableDiffusionXLPipeline(
        vae=None,
        text_encoder=None,
        text_encoder_2=None,
        tokenizer=None,
        tokenizer_2=None,
        unet=model,
        scheduler=scheduler,
        add_watermarker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline(
        prompt_embeds=conditioning["positive.embeddings"],
        pooled_prompt_embeds=conditioning["positive.pooled"],
        negative_prompt_embeds=conditioning["negative.embeddings"],
        negative_pooled_prompt_embeds=conditioning["negative.pooled"],
        width=width,
        height=height,
        num_inference_steps=steps,
        guidance_scale=5.0,
        latents=noise,
        output_type="latent",
    ).images


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a.double() - b.double()).norm() / b.double().norm())


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_ten_euler_steps_equal_those_of_the_diffusers_pipeline(reference, comfyui, base, prediction):
    file = f"{prediction}.safetensors"
    figures = run_in_host(sample, str(base), file, "fp32", WIDTH, HEIGHT, STEPS, SEED, comfyui=comfyui, base=base)
    assert figures["shape"] == [1, 4, HEIGHT // 8, WIDTH // 8]
    ours = load_file(base / "host.safetensors")
    conditioning, noise = load_file(base / "conditioning.safetensors"), ours["noise"]
    theirs = diffusers_latents(reference, conditioning, noise, prediction=prediction)
    error = relative(ours["latents"], theirs)
    log.info("relative error against diffusers: %.2e", error)
    assert error < 1e-3, f"relative error {error:.2e}"

    # The comparison would notice what it is there for.
    if prediction != PREDICTIONS[0]:
        assert relative(diffusers_latents(reference, conditioning, noise), theirs) > 1e-2
        return
    swapped = diffusers_latents(reference, conditioning, noise.transpose(2, 3), width=HEIGHT, height=WIDTH)
    assert relative(swapped.transpose(2, 3), theirs) > 1e-2
    unguided = {key: conditioning[key.replace("negative", "positive")] for key in conditioning}
    assert relative(diffusers_latents(reference, unguided, noise), theirs) > 1e-2
