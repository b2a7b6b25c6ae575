"""What the tests of merging do inside the host; see inprocess.py."""

import torch

_UNET = "diffusion_model."


def _load(host, file: str):
    (model,) = host.node("FaceCLIPUNETLoader", file=file, weight_dtype="fp32")
    return model


def _merge(host, model, style, base, strength: float, reading: str):
    choices = {"strength": strength, "reading_weights": reading}
    return host.node("FaceCLIPStyleMerge", model=model, style_model=style, base_model=base, **choices)[0]


def _weights(model) -> dict[str, torch.Tensor]:
    """The UNet's weights as they are while it samples, and then taken off again."""
    import comfy.model_management as mm

    mm.load_models_gpu([model], force_patch_weights=True)
    found = {key: value.clone() for key, value in model.model_state_dict(_UNET).items()}
    mm.unload_all_models()
    return found


def _equal(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def merged_weights(host, ours: str, style: str, base: str) -> dict:
    """Facts about merging three files of models/diffusion_models."""
    model, theirs, origin = (_load(host, name) for name in (ours, style, base))
    keep, everything = host.pack("nodes.host_merge").READING_WEIGHTS
    plain, wanted, start = _weights(model), _weights(theirs), _weights(origin)

    def weights(*models, strength=1.0, reading=keep):
        return _weights(_merge(host, *models, strength, reading))

    full, half = weights(model, theirs, origin, reading=everything), weights(model, theirs, origin, strength=0.5)
    readers = [key for key in plain if ".attn2.to_k." in key or ".attn2.to_v." in key or ".label_emb." in key]
    by_hand = {key: plain[key] + (wanted[key] - start[key]) for key in plain}
    merged = _merge(host, model, theirs, origin, 1.0, everything)
    own = {value.data_ptr() for one in (theirs, origin) for value in one.model_state_dict(_UNET).values()}
    sources = [patch[1] for patches in merged.patches.values() for patch in patches]
    held = [weight[0][0] for source in sources for weight in (source, source[-1][1])]
    return {
        "strength 0": _equal(weights(model, theirs, origin, strength=0.0), plain),
        "style = base": _equal(weights(model, origin, origin), plain),
        "style = base, all": _equal(weights(model, theirs, theirs, reading=everything), plain),
        "error of the sum": max((full[key] - by_hand[key]).abs().max().item() for key in plain),
        "readers kept": all(torch.equal(half[key], plain[key]) for key in readers),
        "readers": len(readers),
        "rest moved": all(not torch.equal(half[key], plain[key]) for key in plain if key not in readers),
        "removable": _equal(_weights(model), plain),
        "weights of its own": sum(value.data_ptr() not in own for value in held),
        "patched": len(held),
    }


def companion(host, ours: str, lora: str) -> dict:
    """The small model's style companion through the stock LoRA loader, and merged as a style at the same strength."""
    model = _load(host, ours)
    loader = host.nodes.NODE_CLASS_MAPPINGS["LoraLoaderModelOnly"]()

    def styled(strength):
        return loader.load_lora_model_only(model, lora, strength)[0]

    half, whole, plain = _weights(styled(0.5)), _weights(styled(1.0)), _weights(model)
    merged = _weights(_merge(host, model, styled(1.0), model, 0.5, host.pack("nodes.host_merge").READING_WEIGHTS[1]))
    return {
        "keys": len(styled(1.0).patches) / len(plain),
        "moved": sum(not torch.equal(whole[key], plain[key]) for key in plain) / len(plain),
        "apart": max((half[key] - merged[key]).abs().max().item() for key in plain),
    }


def refusals(host, ours: str) -> dict:
    """What is said of models that cannot be merged."""
    import comfy.model_patcher
    import comfy.supported_models as kinds

    small = host.pack("faceclip.small.models").UNET
    sizes = host.pack("nodes.host_unet").host_config(small)
    error = host.pack("faceclip.errors").InputError
    model = _load(host, ours)

    def patcher(kind, state=None, **changed):
        config = kind({**sizes, **changed})
        config.set_inference_dtype(torch.float32, None)
        built = config.get_model(state or {}, "", device="meta")
        return comfy.model_patcher.ModelPatcher(built, load_device="cpu", offload_device="cpu")

    others = {
        "inpainting": patcher(kinds.SDXL, in_channels=9),
        "v-prediction": patcher(kinds.SDXL, {"v_pred": torch.zeros(0)}),
        "refiner": patcher(kinds.SDXLRefiner, adm_in_channels=2560),
        "SD 1.5": patcher(kinds.SD15, num_classes=None, adm_in_channels=None, context_dim=768),
        "fewer layers": patcher(kinds.SDXL, transformer_depth_middle=2),
    }
    said = {}
    for name, other in others.items():
        try:
            _merge(host, model, other, model, 1.0, "merge")
        except error as refusal:
            said[name] = str(refusal)
    try:
        _merge(host, model, model, others["inpainting"], 1.0, "merge")
    except error as refusal:
        said["base"] = str(refusal)
    return said
