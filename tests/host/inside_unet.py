"""What the UNet tests do inside the host; see inprocess.py."""

import time
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file


def _conditioning(tensors: dict, name: str, width: int, height: int) -> list:
    """A CONDITIONING as FaceCLIP Prompt makes it."""
    return [
        [tensors[f"{name}.embeddings"], {"pooled_output": tensors[f"{name}.pooled"], "width": width, "height": height}]
    ]


def sample(
    host, folder: str, unet_name: str, weight_dtype: str, width: int, height: int, steps: int, seed: int
) -> dict:
    """Load, take the published steps with guidance 5 from FOLDER/conditioning.safetensors, and keep noise and latents.

    Returns the figures of the run; FOLDER/host.safetensors has `noise` and `latents` (in the model's own scale).
    """
    import comfy.sample

    tensors = load_file(Path(folder) / "conditioning.safetensors")
    (model,) = host.node("FaceCLIPUNETLoader", unet_name=unet_name, weight_dtype=weight_dtype)
    sigmas, sampler, latent = host.node("FaceCLIPSampling", width=width, height=height, steps=steps, batch_size=1)
    noise = comfy.sample.prepare_noise(latent["samples"], seed)
    begin = time.perf_counter()
    _, denoised = host.node(
        "SamplerCustom",
        model=model,
        add_noise=True,
        noise_seed=seed,
        cfg=5.0,
        positive=_conditioning(tensors, "positive", width, height),
        negative=_conditioning(tensors, "negative", width, height),
        sampler=sampler,
        sigmas=sigmas,
        latent_image=latent,
    )
    seconds = time.perf_counter() - begin
    latents = model.model.process_latent_in(denoised["samples"])
    save_file({"noise": noise, "latents": latents.contiguous()}, Path(folder) / "host.safetensors")
    return {"seconds": seconds, "dtype": str(model.model.get_dtype()), "shape": list(latents.shape)}
