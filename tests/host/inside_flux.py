"""What the FLUX tests do inside the host; see inprocess.py."""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file


def sample(host, folder: str, file: str, sizes: list, steps: int, seed: int) -> dict:
    """Load, take the published steps with guidance 3.5 from FOLDER/conditioning.safetensors at each size.

    Returns figures of the runs, and the published config where ours and the host's differ;
    FOLDER/host.safetensors has `noise WxH` and `latents WxH` (in the model's own scale).
    """
    import comfy.sample

    tensors = load_file(Path(folder) / "conditioning.safetensors")
    given = {name: _conditioning(host, tensors, name) for name in ("positive", "negative")}
    (model,) = host.node("FaceCLIPUNETLoader", file=file, weight_dtype="fp32")
    (guider,) = host.node("CFGGuider", model=model, cfg=3.5, **given)
    (random,) = host.node("RandomNoise", noise_seed=seed)
    kept, figures = {}, {"told by the node": []}
    for width, height in sizes:
        settings = host.node("FaceT5Sampling", width=width, height=height, steps=steps, batch_size=1)
        sigmas, sampler, latent, *told = settings
        output, _ = host.node(
            "SamplerCustomAdvanced", noise=random, guider=guider, sampler=sampler, sigmas=sigmas, latent_image=latent
        )
        kept[f"noise {width}x{height}"] = comfy.sample.prepare_noise(latent["samples"], seed)
        kept[f"latents {width}x{height}"] = model.model.process_latent_in(output["samples"]).contiguous()
        figures["told by the node"].append(told)
    save_file(kept, Path(folder) / "host.safetensors")
    return {**figures, "config": _config_differences(host), "percents": _percents(host, model)}


def _conditioning(host, tensors: dict, name: str) -> list:
    """A CONDITIONING as FaceCLIP Prompt makes it."""
    joint = host.pack("faceclip.model.encoder").JointConditioning
    targets, config = host.pack("nodes.targets"), host.pack("faceclip.model.config").FaceT5Config
    part = (joint(tensors[f"{name}.embeddings"], tensors[f"{name}.pooled"]), 0.0, 1.0)
    return host.pack("nodes.conditioning").entries(targets.TARGETS[config], [part], 864, 1152)


def _percents(host, model) -> list:
    """Percents of the sampling, each with where our nodes say that its noise level lies."""
    percents = [0.05, 0.2, 0.5, 0.8, 0.95]
    levels = [model.model.model_sampling.percent_to_sigma(percent) for percent in percents]
    ours = host.pack("faceclip.sampling.flux_schedule").parts_of_sampling(torch.tensor(levels, dtype=torch.float64))
    return list(zip(percents, ours, strict=True))


def _config_differences(host) -> list:
    """The published config in our words and in the host's own, entry by entry where they differ."""
    import comfy.model_detection

    flux_config = host.pack("faceclip.sampling.flux_config")
    ours = host.pack("nodes.host_flux").host_config(flux_config.FLUX)
    state = {
        key: torch.empty(shape, device="meta") for key, shape in flux_config.expected_shapes(flux_config.FLUX).items()
    }
    state = comfy.model_detection.convert_diffusers_mmdit(state, "")
    theirs = comfy.model_detection.detect_unet_config(state, "")
    return [[key, ours.get(key), theirs.get(key)] for key in {*ours, *theirs} if ours.get(key) != theirs.get(key)]
