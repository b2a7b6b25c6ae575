"""What benchmarks/cards.py does inside a host; see tests/host/inprocess.py."""

import importlib.util

import torch

SIZE = {"width": 64, "height": 64}


def cards(host, device_file: str, encoder: str, unet: str, vae: str, gigabytes: list[float], scale: float) -> dict:
    """[weights and mode][card]: how much of each model is on the card while it works, and whether pictures are equal.

    scale: of our UNet's bytes to the published one's; what a card has for weights is made smaller by it.
    """
    import comfy.model_management as mm

    spec = importlib.util.spec_from_file_location("ram_device", device_file)
    ram = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(ram)
    gpu = ram.StandInGPU(mm, total=8 * 2**30)
    mm.should_use_bf16 = lambda *args, **kwargs: False  # it asks NVIDIA's driver
    working = mm.minimum_inference_memory()  # what the host keeps free for arithmetic, on any card
    ours = host.pack("nodes.host")
    found = {}
    for mode in ("default", "fp8_e4m3fn", "default, --lowvram"):
        mm.vram_state = mm.VRAMState.LOW_VRAM if "lowvram" in mode else mm.VRAMState.NORMAL_VRAM
        found[mode], wanted = {}, None
        for card in sorted(gigabytes, reverse=True):
            mm.unload_all_models()
            gpu.total = working + (card * 1e9 - working) * scale
            faceclip = ours.ManagedFaceCLIP(encoder, None, ours.Progress())
            (model,) = host.node("FaceCLIPUNETLoader", file=unet, weight_dtype=mode.split(",")[0])
            (decoder,) = host.nodes.VAELoader().load_vae(vae)
            picture, told = _picture(host, mm, faceclip, model, decoder)
            wanted = picture if wanted is None else wanted
            found[mode][f"{card:g}"] = {**told, "apart": (picture - wanted).abs().max().item()}
            del faceclip, model, decoder
    return found


def _picture(host, mm, faceclip, model, decoder):
    def share(patcher) -> float:
        return round(patcher.loaded_size() / patcher.model_size(), 2)

    face = torch.rand(1, 3, 112, 112, generator=torch.Generator().manual_seed(3))
    joint = faceclip.encode_prompt(["a street"], faceclip.encode_identity(face))
    told = {"encoder while it encodes": share(faceclip.patcher)}
    config = model.model.model_config.unet_config
    tokens = torch.ones(1, 77, config["context_dim"]) * joint.embeddings.std()
    pooled = torch.ones(1, config["adm_in_channels"] - 6 * 256)
    conditioning = [[tokens, {"pooled_output": pooled, **SIZE}]]
    sigmas, sampler, latent, *_ = host.node("FaceCLIPSampling", steps=2, batch_size=1, **SIZE)
    options = {"add_noise": True, "noise_seed": 0, "cfg": 3.0, "sampler": sampler, "sigmas": sigmas}
    prompts = {"positive": conditioning, "negative": conditioning}
    (samples, _) = host.node("SamplerCustom", model=model, latent_image=latent, **options, **prompts)
    told |= {"UNet while it samples": share(model), "encoder then": share(faceclip.patcher)}
    picture = decoder.decode(samples["samples"])
    told |= {"VAE while it decodes": share(decoder.patcher), "UNet then": share(model)}
    return picture.float().cpu(), told
