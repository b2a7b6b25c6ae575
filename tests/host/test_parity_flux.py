"""The proof: our nodes in ComfyUI and diffusers' FLUX pipeline make the same latents from the same transformer."""

import logging

import pytest
import torch
from flux_models import FLUX, diffusers_flux, write_flux
from inprocess import run_in_host
from inside_flux import sample
from safetensors.torch import load_file, save_file

log = logging.getLogger(__name__)

STEPS, SEED = 10, 7
SIZES = [[192, 320], [176, 304], [208, 112]]  # px; the latter two of an odd number of tokens on a side


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    base = tmp_path_factory.mktemp("parity")
    write_flux(base / "models" / "diffusion_models" / "small.safetensors")
    generator = torch.Generator().manual_seed(1)
    tensors = {}
    for name in ("positive", "negative"):
        tensors[f"{name}.embeddings"] = torch.randn(1, 512, FLUX.joint_attention_dim, generator=generator)
        tensors[f"{name}.pooled"] = torch.randn(1, FLUX.pooled_projection_dim, generator=generator)
    save_file(tensors, base / "conditioning.safetensors")
    return base


def diffusers_latents(model, conditioning, noise, width: int, height: int) -> torch.Tensor:
    """Latents of the published pipeline class, FLUX.1-dev's scheduler config, guidance embedding 1, true guidance 3.5.

    noise and result: [1, 16, rows, columns].
    """
    import diffusers

    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(
        num_train_timesteps=1000, shift=3.0, use_dynamic_shifting=True, base_shift=0.5, max_shift=1.15,
        base_image_seq_len=256, max_image_seq_len=4096,
    )  # fmt: skip
    pipeline = diffusers.FluxPipeline(
        scheduler=scheduler, vae=None, text_encoder=None, tokenizer=None, text_encoder_2=None, tokenizer_2=None,
        transformer=model,
    )  # fmt: skip
    pipeline.set_progress_bar_config(disable=True)
    rows, columns = noise.shape[2:]
    latents = pipeline(
        prompt_embeds=conditioning["positive.embeddings"],
        pooled_prompt_embeds=conditioning["positive.pooled"],
        negative_prompt_embeds=conditioning["negative.embeddings"],
        negative_pooled_prompt_embeds=conditioning["negative.pooled"],
        width=width,
        height=height,
        num_inference_steps=STEPS,
        guidance_scale=1.0,
        true_cfg_scale=3.5,
        latents=pipeline._pack_latents(noise, 1, 16, rows, columns),
        output_type="latent",
    ).images
    return pipeline._unpack_latents(latents, height, width, pipeline.vae_scale_factor)


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a.double() - b.double()).norm() / b.double().norm())


@pytest.fixture(scope="module")
def figures(comfyui, base) -> dict:
    return run_in_host(sample, str(base), "small.safetensors", SIZES, STEPS, SEED, comfyui=comfyui, base=base)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_ten_euler_steps_equal_those_of_the_diffusers_pipeline(figures, base, size):
    assert size in figures["told by the node"]
    width, height = size
    ours, conditioning = load_file(base / "host.safetensors"), load_file(base / "conditioning.safetensors")
    noise, latents = ours[f"noise {width}x{height}"], ours[f"latents {width}x{height}"]
    assert latents.shape == (1, 16, height // 8, width // 8)
    model = diffusers_flux()
    theirs = diffusers_latents(model, conditioning, noise, width, height)
    error = relative(latents, theirs)
    log.info("relative error against diffusers at %d x %d: %.2e", width, height, error)
    assert error < 1e-3, f"relative error {error:.2e}"

    # The comparison would notice what it is there for.
    unguided = {key: conditioning[key.replace("negative", "positive")] for key in conditioning}
    assert relative(diffusers_latents(model, unguided, noise, width, height), theirs) > 1e-2


def test_a_percent_lies_where_the_host_has_it(figures):
    """By which an identity's start and end are told."""
    assert all(abs(percent - ours) < 1e-6 for percent, ours in figures["percents"])


def test_the_published_sizes_are_what_the_host_reads_off_the_weights(figures):
    assert figures["config"] == []
