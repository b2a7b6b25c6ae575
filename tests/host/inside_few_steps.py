"""What test_few_steps.py does inside the host; see inprocess.py."""

import logging

import torch

_SIZE = {"width": 64, "height": 64}


def _conditioning(host, text: str):
    (faceclip,) = host.node("FaceCLIPLoader", file="faceclip_tiny.safetensors", precision="auto")
    return host.node("FaceCLIPEncodeText", faceclip=faceclip, text=text, **_SIZE)[0]


def _draw(host, model, recipe: str = "published", steps: int = 2, size: dict = _SIZE, text: str = "a park"):
    sigmas, sampler, latent, *_, guidance = host.node(
        "FaceCLIPSampling", **size, steps=steps, batch_size=1, recipe=recipe
    )
    positive, negative = _conditioning(host, text), _conditioning(host, "blurry")
    made = host.node(
        "SamplerCustom",
        model=model,
        add_noise=True,
        noise_seed=3,
        cfg=guidance,
        positive=positive,
        negative=negative,
        sampler=sampler,
        sigmas=sigmas,
        latent_image=latent,
    )
    return made[0]["samples"]


def _formats(host, model) -> dict[str, dict]:
    """One LoRA of rank 2 on every matrix and convolution, under the names of each format."""
    from comfy.utils import unet_to_diffusers

    names = {place: key for key, place in unet_to_diffusers(model.model.model_config.unet_config).items()}
    found = {kind: {} for kind in ("kohya", "kohya, SDXL's own names", "diffusers, processors", "diffusers, peft")}
    torch.manual_seed(5)
    for place, weight in model.model.diffusion_model.state_dict().items():
        if weight.ndim < 2:
            continue
        name, own = names[place].removesuffix(".weight"), place.removesuffix(".weight")
        down = torch.randn(2, *weight.shape[1:]) * 0.05
        up = torch.randn(weight.shape[0], 2, *[1] * (weight.ndim - 2)) * 0.05
        kohya, peft = (".lora_down.weight", ".lora_up.weight"), (".lora_A.weight", ".lora_B.weight")
        processor = name.replace(".to_", ".processor.to_").replace(".to_out.0", ".to_out")
        for kind, key, (first, second) in (
            ("kohya", "lora_unet_" + name.replace(".", "_"), kohya),
            ("kohya, SDXL's own names", "lora_unet_" + own.replace(".", "_"), kohya),
            ("diffusers, processors", "unet." + processor, ("_lora.down.weight", "_lora.up.weight")),
            ("diffusers, peft", "unet." + name, peft),
        ):
            found[kind] |= {f"{key}{first}": down, f"{key}{second}": up}
    return found


def lora_formats(host, unet: str) -> dict:
    """Each format loaded by the stock loader: weights patched, weights in the file, those that the log says it lost."""
    from safetensors.torch import save_file

    (model,) = host.node("FaceCLIPUNETLoader", file=unet, weight_dtype="fp32")
    loader = host.nodes.NODE_CLASS_MAPPINGS["LoraLoaderModelOnly"]()
    folder = host.base / "models" / "loras"
    folder.mkdir(parents=True, exist_ok=True)
    found = {}
    for number, (kind, state) in enumerate(_formats(host, model).items()):
        save_file({key: value.contiguous() for key, value in state.items()}, folder / f"{number}.safetensors")
        with _Listener() as said:
            (patched,) = loader.load_lora_model_only(model, f"{number}.safetensors", 1.0)
        lost = [line.split()[-1] for line in said if line.startswith("lora key not loaded")]
        found[kind] = [len(patched.patches), len(state) // 2, lost]
        if number == 0:
            found["far"] = (_draw(host, patched) - _draw(host, model)).abs().max().item()
    return found


class _Listener(logging.Handler):
    """The messages of the host's log."""

    def __enter__(self) -> list[str]:
        self.said = []
        logging.getLogger().addHandler(self)
        return self.said

    def __exit__(self, *_):
        logging.getLogger().removeHandler(self)

    def emit(self, record):
        self.said.append(record.getMessage())


def recipes(host, unet: str) -> dict:
    """For each recipe: calls of the UNet, pictures in each, guidance, and whether the picture is finite."""
    (model,) = host.node("FaceCLIPUNETLoader", file=unet, weight_dtype="fp32")
    seen = []

    def watch(apply, given):
        seen.append(len(given["input"]))
        return apply(given["input"], given["timestep"], **given["c"])

    watched = model.clone()
    watched.set_model_unet_function_wrapper(watch)
    names = host.pack("faceclip.sampling.recipes").RECIPES
    found = {}
    for name in names:
        seen.clear()
        drawn = _draw(host, watched, name, steps=6)
        found[name] = [list(seen), bool(drawn.isfinite().all())]
    return found


def unread_negative(host, unet: str) -> dict:
    """A negative that is not encoded at guidance 1: what is loaded for it, the picture, and what other samplers say."""
    import comfy.model_management as mm

    (model,) = host.node("FaceCLIPUNETLoader", file=unet, weight_dtype="fp32")
    (faceclip,) = host.node("FaceCLIPLoader", file="faceclip_tiny.safetensors", precision="auto")
    encode = faceclip.model.encode_prompt
    prompts = []
    faceclip.model.encode_prompt = lambda texts, *given, **more: prompts.append(texts) or encode(texts, *given, **more)
    mm.unload_all_models()

    def negative(**guidance):
        return host.node("FaceCLIPEncodeText", faceclip=faceclip, text="blurry", **_SIZE, **guidance)[0]

    left_out = negative(guidance=1.0)
    found = {"encoded": list(prompts), "loaded": len(mm.loaded_models())}
    read = {guidance: len(prompts) for guidance in (0.5, 1.01) if negative(guidance=guidance)}
    positive, full = _conditioning(host, "a park"), negative()
    found |= {"read": list(read.values()), "shapes": [list(left_out[0][0].shape), list(full[0][0].shape)]}

    def draw(negative, cfg=1.0, sampler="euler", model=model):
        chosen = host.pack("nodes.host_sampling").stock(sampler)
        sigmas, _, latent, *_ = host.node("FaceCLIPSampling", **_SIZE, steps=3, batch_size=1)
        prompts = {"positive": positive, "negative": negative}
        options = {"add_noise": True, "noise_seed": 3, "cfg": cfg, "sampler": chosen, "sigmas": sigmas}
        return host.node("SamplerCustom", model=model, latent_image=latent, **options, **prompts)[0]["samples"]

    found["equal"] = torch.equal(draw(left_out), draw(full))
    error = host.pack("faceclip.errors").InputError
    refused = {"cfg 3": {"cfg": 3.0}, "cfg_pp": {"sampler": "euler_cfg_pp"}}
    for name, options in refused.items():
        try:
            draw(left_out, **options)
        except error as refusal:
            found[name] = str(refusal)
    return found


def everything(host, unet: str) -> dict:
    return {
        "formats": lora_formats(host, unet),
        "recipes": recipes(host, unet),
        "unread": unread_negative(host, unet),
    }
