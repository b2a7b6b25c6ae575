"""What the memory tests do inside the host, with a RAM-backed device for its GPU; see inprocess.py."""

import gc
import importlib.util

import torch

PROMPTS = ["a (chef:1.2) in a kitchen", "a sailor"]


def _device_module(path: str):
    spec = importlib.util.spec_from_file_location("ram_device", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _encode(encoder) -> list[torch.Tensor]:
    """A fixed face pass and prompt passes with and without a face; all results."""
    faces = torch.rand(2, 3, 112, 112, generator=torch.Generator().manual_seed(3))
    identity = encoder.encode_identity(faces)
    joint = encoder.encode_prompt(PROMPTS, identity, weighted=True)
    alone = encoder.encode_prompt(PROMPTS[:1], None)
    results = [identity.embedding, identity.g.patch_tokens, joint.embeddings, joint.pooled]
    return [*results, alone.embeddings, alone.pooled]


def _difference(one: list[torch.Tensor], other: list[torch.Tensor]) -> float:
    """The largest relative difference; both must be on the CPU."""
    assert all(tensor.device.type == "cpu" and tensor.isfinite().all() for tensor in (*one, *other))
    return max(float((a - b).norm() / b.norm()) for a, b in zip(one, other, strict=True))


# The host's name for the kind of diffusion model -> its recipe's node, and how wide its conditioning is.
RECIPES = {
    "SDXL": (
        "FaceCLIPSampling",
        lambda model: (model.model_config.unet_config["context_dim"], model.adm_channels - 6 * 256),
    ),
    "Flux": (
        "FaceT5Sampling",
        lambda model: [model.model_config.unet_config[k] for k in ("context_in_dim", "vec_in_dim")],
    ),
}


def _sample(host, unet) -> torch.Tensor:
    recipe, widths = RECIPES[type(unet.model).__name__]
    context, pooled_width = widths(unet.model)
    positive, pooled = torch.ones(1, 77, context), torch.ones(1, pooled_width)
    sigmas, sampler, latent, *_ = host.node(recipe, width=64, height=64, steps=2, batch_size=1)
    conditioning = [[positive, {"pooled_output": pooled, "width": 64, "height": 64}]]
    output, _ = host.node(
        "SamplerCustom",
        model=unet,
        add_noise=True,
        noise_seed=0,
        cfg=5.0,
        positive=conditioning,
        negative=conditioning,
        sampler=sampler,
        sigmas=sigmas,
        latent_image=latent,
    )
    return output["samples"]


def life_of_an_encoder(host, device_file: str, encoder_file: str, unet_file: str) -> dict:
    """Figures, in bytes on the device, of an encoder from loading to its end; and how equal its results stay."""
    import comfy.model_management as mm

    ours, unets = host.pack("nodes.host"), host.pack("nodes.host_unet")
    on_cpu = _encode(ours.ManagedFaceCLIP(encoder_file, None, ours.Progress()))

    ram = _device_module(device_file)
    gpu = ram.StandInGPU(mm, total=8 * 2**30)
    working = int(mm.minimum_inference_memory())  # what the host keeps free for arithmetic
    figures = {}

    encoder = ours.ManagedFaceCLIP(encoder_file, None, ours.Progress())
    size = figures["size"] = encoder.patcher.model_size()
    figures["before use"] = ram.bytes_held()
    loaded = _encode(encoder)
    figures["in use"] = ram.bytes_held()
    figures["in use, difference"] = _difference(loaded, on_cpu)

    unet = unets.load_unet(unet_file, "fp32")
    figures["unet size"] = unet.model_size()
    gpu.total = working + figures["unet size"] + 2**20
    samples = _sample(host, unet)
    figures["unet, finite"] = bool(samples.isfinite().all())
    figures["encoder beside the unet"] = encoder.patcher.loaded_size()
    figures["all beside the unet"] = ram.bytes_held()

    gpu.total = working + size + 2**24
    figures["after the unet, difference"] = _difference(_encode(encoder), loaded)
    figures["after the unet"] = encoder.patcher.loaded_size()

    mm.unload_all_models()
    figures["after unloading all"] = ram.bytes_held()

    gpu.total = working + int(0.7 * size)
    half = _encode(encoder)
    figures["half loaded"] = encoder.patcher.loaded_size()
    figures["half loaded, held"] = ram.bytes_held()
    figures["half loaded, difference"] = _difference(half, loaded)
    mm.unload_all_models()
    figures["after unloading the half"] = ram.bytes_held()

    gpu.total = 8 * 2**30
    figures["once more, difference"] = _difference(_encode(encoder), loaded)
    figures["before the last reference goes"] = ram.bytes_held()
    del encoder
    gc.collect()
    mm.cleanup_models_gc()
    del unet
    gc.collect()
    figures["after the last reference"] = ram.bytes_held()
    figures["models known to the host"] = len(mm.current_loaded_models)
    return figures
