"""What benchmarks/style.py does inside a host; see tests/host/inprocess.py."""

import numpy as np
import torch

SIZE = {"width": 128, "height": 128}


def draw(host, files: dict, style: str, people: str, captions: list[str], strengths: list[float], out: str) -> None:
    """People in a style of each strength, put on in each way, all from the same noise, as uint8 [N, H, W, 3] in `out`.

    files: loader's class -> file. style: the LoRA's name. people: their aligned faces, uint8 [N, 3, S, S].
    """
    positive, negative = _conditioning(host, files, np.load(people), captions)
    (plain,) = host.node("FaceCLIPUNETLoader", file=files["FaceCLIPUNETLoader"], weight_dtype="fp32")
    (vae,) = host.nodes.VAELoader().load_vae(files["VAELoader"])
    styled = _with_lora(host, plain, style, 1.0)
    drawn = {}
    for strength in strengths:
        models = {"lora": _with_lora(host, plain, style, strength)}
        if strength:
            for way, reading in zip(("merge, keep", "merge, all"), _reading_weights(host), strict=True):
                choices = {"strength": strength, "reading_weights": reading}
                merged = host.node("FaceCLIPStyleMerge", model=plain, style_model=styled, base_model=plain, **choices)
                models[way] = merged[0]
        for way, model in models.items():
            pictures = vae.decode(_sample(host, model, positive, negative, len(captions)))
            drawn[f"{way} {strength:g}"] = (pictures.clamp(0, 1) * 255).round().byte().cpu().numpy()
    np.savez(out, **drawn)


def _reading_weights(host) -> tuple[str, ...]:
    return host.pack("nodes.host_merge").READING_WEIGHTS


def _with_lora(host, model, file: str, strength: float):
    """By the host's own loader, which gives the model itself at strength 0."""
    return host.nodes.NODE_CLASS_MAPPINGS["LoraLoaderModelOnly"]().load_lora_model_only(model, file, strength)[0]


def _conditioning(host, files: dict, crops, captions: list[str]):
    """The prompts of all people as one batch, and the empty negative."""
    (faceclip,) = host.node("FaceCLIPLoader", file=files["FaceCLIPLoader"], precision="auto")
    entries = []
    for crop, text in zip(crops, captions, strict=True):
        picture = torch.from_numpy(crop).permute(1, 2, 0)[None].float() / 255  # CHW -> BHWC
        (face,) = host.node("FaceCLIPAlignedFace", image=picture)
        (identity,) = host.node("FaceCLIPEncodeIdentity", faceclip=[faceclip], face=[face])
        (made,) = host.node("FaceCLIPEncodePrompt", faceclip=faceclip, text=text, identity=identity, **SIZE)
        entries += made
    together = torch.cat([embeddings for embeddings, _ in entries])
    pooled = torch.cat([told["pooled_output"] for _, told in entries])
    (negative,) = host.node("FaceCLIPEncodeText", faceclip=faceclip, text="", **SIZE)
    told = {key: value for key, value in entries[0][1].items() if not key.startswith("faceclip")}
    return [[together, {**told, "pooled_output": pooled}]], negative


def _sample(host, model, positive, negative, count: int):
    sigmas, sampler, latent, *_ = host.node("FaceCLIPSampling", steps=25, batch_size=count, **SIZE)
    options = {"add_noise": True, "noise_seed": 0, "cfg": 3.0, "sampler": sampler, "sigmas": sigmas}
    prompts = {"positive": positive, "negative": negative}
    return host.node("SamplerCustom", model=model, latent_image=latent, **options, **prompts)[0]["samples"]


def peak_memory(host, unet: str, merge: bool) -> dict[str, int]:
    """MiB of this process before sampling with one UNet or with a style merged into it, and at most while it samples.

    All three models of a merge are read from the same file, each on its own as three checkpoints are.
    """
    import comfy.model_management as mm

    def load():
        return host.node("FaceCLIPUNETLoader", file=unet, weight_dtype="default")[0]

    begin = _memory("VmRSS")
    model = load()
    one = _memory("VmRSS") - begin
    if merge:
        choices = {"strength": 0.5, "reading_weights": _reading_weights(host)[1]}
        (model,) = host.node("FaceCLIPStyleMerge", model=model, style_model=load(), base_model=load(), **choices)
    held = _memory("VmRSS") - begin
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the peak begins anew
    mm.load_models_gpu([model], force_patch_weights=True)
    return {"one": one, "held": held, "peak": _memory("VmHWM") - begin}


def _memory(name: str) -> int:
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) // 1024 for line in file if line.startswith(name))
