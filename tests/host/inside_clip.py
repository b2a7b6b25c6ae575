"""What test_as_clip.py does inside the host; see inprocess.py."""

import importlib

import torch

TEXTS = ("a chef in a (white:1.3) kitchen", "", "a red door, a blue lamp, a green ship, " * 8)
SIZE = {"width": 136, "height": 184}


def _person(host, model, references: int):
    if not references:
        return {}
    picture = torch.rand(references, 112, 112, 3, generator=torch.Generator().manual_seed(1))
    (face,) = host.node("FaceCLIPAlignedFace", image=picture)
    made = host.node("FaceCLIPEncodeIdentity", faceclip=[model], face=[face], outliers=["keep"])
    return {"identity": made[0]}


def _same(made: list, wanted: list, sizes: bool = True) -> bool:
    """Whether two CONDITIONINGs are equal to the last bit; the node that an entry came from is another."""
    ((one, told), (other, wanted_told)) = (made[0], wanted[0])
    keys = {key for key in wanted_told if key not in ("faceclip_acts", "pooled_output")} if sizes else set()
    equal = torch.equal(one, other) and torch.equal(told["pooled_output"], wanted_told["pooled_output"])
    marked = ("faceclip_acts" in told) == ("faceclip_acts" in wanted_told)
    return len(made) == len(wanted) == 1 and equal and marked and all(told[key] == wanted_told[key] for key in keys)


def _extra(module: str, name: str):
    return getattr(importlib.import_module(f"comfy_extras.{module}"), name)


def _said(host, work) -> str:
    try:
        work()
    except host.pack("faceclip.errors").InputError as error:
        return str(error)
    return "nothing"


def everything(host, encoder: str, unet: str, t5: str, names: dict) -> dict:
    """All of the below in one process: starting a host takes longer than what is done in it."""
    return {
        "equal": against_prompt(host, encoder),
        "forms": forms(host, encoder),
        "loras": loras(host, encoder, unet, names),
        "refused": refusals(host, encoder),
        "facet5": facet5(host, t5),
    }


def against_prompt(host, file: str) -> dict:
    """Stock nodes through FaceCLIP as CLIP against FaceCLIP Prompt: name of the case -> equal."""
    (model,) = host.node("FaceCLIPLoader", file=file, precision="auto")
    encode, sdxl = host.nodes.CLIPTextEncode(), _extra("nodes_clip_sdxl", "CLIPTextEncodeSDXL")
    equal = {}
    for references, strength in ((0, 1.0), (1, 1.0), (2, 0.5)):
        given = {"faceclip": model, "strength": strength, **_person(host, model, references)}
        for long_prompt in ("continue in further chunks", "cut at 77"):
            (clip,) = host.node("FaceCLIPAsClip", **given, **SIZE, long_prompt=long_prompt)
            (unsized,) = host.node("FaceCLIPAsClip", **given, long_prompt=long_prompt)
            for text in TEXTS if long_prompt.startswith("continue") else TEXTS[2:]:
                case = f"{references} references at {strength}, {long_prompt}, {text[:12]}"
                (wanted,) = host.node("FaceCLIPEncodePrompt", **given, **SIZE, text=text, long_prompt=long_prompt)
                (made,) = encode.encode(clip, text)
                equal[f"CLIPTextEncode: {case}"] = _same(made, wanted)
                target = {"crop_w": 0, "crop_h": 0, "target_width": 136, "target_height": 184}
                made = sdxl.execute(unsized, **SIZE, **target, text_g=text, text_l=text).result[0]
                equal[f"CLIPTextEncodeSDXL: {case}"] = _same(made, wanted)
                (made,) = encode.encode(unsized, text)
                equal[f"no size: {case}"] = _same(made, wanted, sizes=False) and "width" not in made[0][1]
    return equal


def forms(host, file: str) -> dict:
    """The forms in which the host and other packs ask a CLIP."""
    import comfy.sd

    (model,) = host.node("FaceCLIPLoader", file=file, precision="auto")
    given = {"faceclip": model, **_person(host, model, 1)}
    (clip,) = host.node("FaceCLIPAsClip", **given, **SIZE)
    ((wanted, told),) = host.node("FaceCLIPEncodePrompt", **given, **SIZE, text=TEXTS[0])[0]
    tokens = clip.tokenize(TEXTS[0])
    pair, whole = clip.encode_from_tokens(tokens, return_pooled=True), clip.encode_from_tokens(tokens, return_dict=True)
    words = clip.tokenize("a chef", return_word_ids=True)
    twice = {key: rows + rows for key, rows in clip.tokenize("a chef").items()}
    other = clip.clone()
    other.apply_hooks_to_conds = "hooks"
    sdxl = _extra("nodes_clip_sdxl", "CLIPTextEncodeSDXL")
    numbers = {"crop_w": 0, "crop_h": 0, "target_width": 136, "target_height": 184}
    mixed = sdxl.execute(clip, **SIZE, **numbers, text_g=TEXTS[2], text_l=TEXTS[0]).result[0][0]
    ((long, long_told),) = host.node("FaceCLIPEncodePrompt", **given, **SIZE, text=TEXTS[2])[0]
    width = model.config.l.width
    return {
        "a CLIP of the host": isinstance(clip, comfy.sd.CLIP) and isinstance(other, type(clip)),
        "tensor alone": torch.equal(clip.encode_from_tokens(tokens), wanted),
        "with pooled": torch.equal(pair[0], wanted) and torch.equal(pair[1], told["pooled_output"]),
        "as a dict": torch.equal(whole["cond"], wanted) and whole["width"] == 136,
        "encode": torch.equal(clip.encode(TEXTS[0]), wanted),
        "word ids": [entry[2] for entry in words["g"][0][7:11]],
        "a clone": torch.equal(other.encode_from_tokens(tokens), wanted),
        "hooks of a clone": other.encode_from_tokens(tokens, return_dict=True)["hooks"],
        "the first has none": "hooks" not in whole and clip.patcher is not other.patcher is not model.patcher,
        "two chunks by hand": list(clip.encode_from_tokens(twice).shape),
        "g of one text": torch.equal(mixed[0][..., width:], long[..., width:]),
        "l of another": torch.allclose(mixed[0][:, :77, :width], wanted[..., :width], atol=1e-5),
        "pooled of g": torch.equal(mixed[1]["pooled_output"], long_told["pooled_output"]),
        "load_model": clip.load_model() is clip.patcher,
        "tokens without the identity's place": _said(
            host, lambda: clip.encode_from_tokens({key: [[(49406, 1.0)] * 77] for key in "gl"})
        ),
        "tokens of another model": _said(host, lambda: clip.encode_from_tokens({"t5xxl": [[(1, 1.0)] * 256]})),
    }


def loras(host, file: str, unet: str, names: dict) -> dict:
    """Stock LoRA loaders and hooks with FaceCLIP as CLIP. names: file of each kind of LoRA."""
    import comfy.hooks

    (faceclip,) = host.node("FaceCLIPLoader", file=file, precision="auto")
    (model,) = host.node("FaceCLIPUNETLoader", file=unet, weight_dtype="fp32")
    (clip,) = host.node("FaceCLIPAsClip", faceclip=faceclip)
    hooks_module = importlib.import_module("comfy_extras.nodes_hooks")

    def load(kind: str, strength_clip: float = 1.0):
        return host.nodes.LoraLoader().load_lora(model, clip, names[kind], 1.0, strength_clip)

    def hooked(kind: str, strength_clip: float = 1.0, schedule: bool = False):
        (hooks,) = hooks_module.CreateHookLora().create_hook(names[kind], 1.0, strength_clip)
        if schedule:
            hooks.set_keyframes_on_hooks(_two_keyframes(comfy.hooks))
        (given,) = hooks_module.SetClipHooks().apply_hooks(clip, schedule, True, hooks)
        return host.nodes.CLIPTextEncode().encode(given, "a chef")[0]

    plain = host.nodes.CLIPTextEncode().encode(clip, "a chef")[0]
    patched, still = load("unet alone")
    off, _ = load("kohya", 0.0)
    scheduled = hooked("unet alone", schedule=True)
    return {
        "unet alone": len(patched.patches),
        "its CLIP": _same(host.nodes.CLIPTextEncode().encode(still, "a chef")[0], plain),
        "kohya": _said(host, lambda: load("kohya")),
        "diffusers": _said(host, lambda: load("diffusers")),
        "kohya at strength_clip 0": len(off.patches),
        "hooks": "hooks" in hooked("unet alone")[0][1],
        "hooks with a text encoder": _said(host, lambda: hooked("kohya")),
        "hooks at strength_clip 0": _said(host, lambda: hooked("kohya", 0.0)),
        "scheduled": [entry[1]["clip_start_percent"] for entry in scheduled],
        "scheduled as plain": all(torch.equal(entry[0], plain[0][0]) for entry in scheduled),
    }


def _two_keyframes(hooks):
    frames = hooks.HookKeyframeGroup()
    for start in (0.0, 0.5):
        frames.add(hooks.HookKeyframe(strength=1.0 - start, start_percent=start))
    return frames


def refusals(host, file: str) -> dict:
    (faceclip,) = host.node("FaceCLIPLoader", file=file, precision="auto")
    (clip,) = host.node("FaceCLIPAsClip", faceclip=faceclip)
    merging = importlib.import_module("comfy_extras.nodes_model_merging")
    encode, last = host.nodes.CLIPTextEncode(), host.nodes.CLIPSetLastLayer()

    def looked_into() -> str:
        try:
            return str(clip.cond_stage_model.clip_g)
        except AttributeError as error:
            return str(error)

    return {
        "embedding": _said(host, lambda: encode.encode(clip, "a chef, (embedding:negativeXL_D:1.2)")),
        "layer": _said(host, lambda: last.set_last_layer(clip, -1)),
        "layer of SDXL": _said(host, lambda: encode.encode(*last.set_last_layer(clip, -2), "a chef")),
        "save": _said(host, lambda: merging.CLIPSave().save(clip, "clip")),
        "save, newer hosts": _said(host, lambda: clip.state_dict_for_saving()),
        "merge": _said(host, lambda: merging.CLIPMergeSimple().merge(clip, clip, 0.5)),
        "weights": _said(host, lambda: clip.load_sd({})),
        "attribute": looked_into(),
    }


def facet5(host, file: str) -> dict:
    (model,) = host.node("FaceCLIPLoader", file=file, precision="auto")
    given = {"faceclip": model, **_person(host, model, 2)}
    (clip,) = host.node("FaceCLIPAsClip", **given)
    flux = _extra("nodes_flux", "CLIPTextEncodeFlux")
    equal = {}
    for text in TEXTS[:2]:
        (wanted,) = host.node("FaceCLIPEncodePrompt", **given, **SIZE, text=text)
        equal[f"CLIPTextEncode {text}"] = _same(host.nodes.CLIPTextEncode().encode(clip, text)[0], wanted)
        made = flux.execute(clip, clip_l=text, t5xxl=text, guidance=wanted[0][1]["guidance"]).result[0]
        equal[f"CLIPTextEncodeFlux {text}"] = _same(made, wanted)
    other = flux.execute(clip, clip_l="a dog", t5xxl=TEXTS[0], guidance=2.0).result[0][0]
    first = flux.execute(clip, clip_l=TEXTS[0], t5xxl=TEXTS[0], guidance=2.0).result[0][0]
    equal["clip_l makes the pooled vector"] = not torch.equal(other[1]["pooled_output"], first[1]["pooled_output"])
    equal["t5xxl makes the rest"] = torch.equal(other[0], first[0])
    equal["guidance is the node's"] = other[1]["guidance"] == 2.0
    return equal
