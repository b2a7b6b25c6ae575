"""Stock nodes on our MODEL and CONDITIONING in a real server: each has its effect, and at neutral settings none."""

import copy
import io
import json

import inside_compatible
import numpy
import pytest
import torch
from astronaut import astronaut_face_png
from inprocess import run_in_host
from PIL import Image, ImageDraw
from safetensors.torch import load_file, save_file
from seeded import seeded

from faceclip.comfy.environment import PACK_ROOT
from faceclip.comfy.workflow import SMALL_FILES, fill_in, use_aligned_face
from faceclip.sampling.unet_config import expected_shapes
from faceclip.small import models as small

SIZE, STEPS = 128, 3
FACE, LORA, CONTROLNET = "compatible_face.png", "compatible_lora.safetensors", "compatible_controlnet.safetensors"
ROUNDING = 1  # of 255: sums in another order can round a pixel to its neighbour
LONG = ", ".join(f"a {colour} {thing}" for colour in ("red", "blue") for thing in ("door", "lamp", "ship", "tree"))
LONG = ", ".join([LONG] * 4)  # more than 77 tokens, fewer than 154


@pytest.fixture(scope="module")
def plain(client, base_directory, comfyui, tmp_path_factory) -> dict:
    """The example's prompt on the small model, with a ready-made crop and a second prompt, `other`."""
    client.upload_image(astronaut_face_png(), FACE)
    write_lora(base_directory / "models" / "loras" / LORA)
    controlnet = base_directory / "models" / "controlnet" / CONTROLNET
    run_in_host(
        inside_compatible.write_controlnet, controlnet, comfyui=comfyui, base=tmp_path_factory.mktemp("controlnet")
    )
    api = json.loads((PACK_ROOT / "workflows" / "api" / "portrait.json").read_text("utf-8"))
    prompt = fill_in(api, SMALL_FILES, {"width": SIZE, "height": SIZE, "steps": STEPS})
    prompt = use_aligned_face(prompt, FACE)
    prompt["other"] = copy.deepcopy(prompt["positive"])
    prompt["other"]["inputs"]["text"] = "An astronaut swims in a lake of green paint."
    return prompt


def write_lora(path) -> None:
    """A LoRA of rank 2 on the queries and keys of every attention, under kohya's names, alpha = rank."""
    state = {}
    for key, shape in expected_shapes(small.UNET).items():
        if key.endswith(("to_q.weight", "to_k.weight")):
            name = "lora_unet_" + key.removesuffix(".weight").replace(".", "_")
            shapes = {f"{name}.lora_down.weight": (2, shape[1]), f"{name}.lora_up.weight": (shape[0], 2)}
            state |= seeded(shapes) | {f"{name}.alpha": torch.tensor(2.0)}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(state, path)


@pytest.fixture(scope="module")
def picture(client):
    """Runs a prompt; its pictures as integers, (batch, height, width, 3)."""
    known = {}

    def run(prompt: dict) -> numpy.ndarray:
        key = json.dumps(prompt, sort_keys=True)
        if key not in known:
            files = client.run(prompt).images("save")
            pictures = [Image.open(io.BytesIO(client.view(file))).convert("RGB") for file in files]
            known[key] = numpy.stack([numpy.asarray(one) for one in pictures]).astype(int)
        return known[key]

    return run


def changed(prompt: dict, nodes: dict | None = None, **inputs) -> dict:
    """A copy with further nodes, id -> (class, inputs), and other inputs of nodes, id -> {name: value}."""
    prompt = copy.deepcopy(prompt)
    for node_id, (class_type, values) in (nodes or {}).items():
        prompt[node_id] = {"class_type": class_type, "inputs": values}
    for node_id, values in inputs.items():
        prompt[node_id]["inputs"] |= values
    return prompt


def positive(prompt: dict, nodes: dict, source: str) -> dict:
    return changed(prompt, nodes, sample={"positive": [source, 0]})


def same(one: numpy.ndarray, other: numpy.ndarray, within: int = ROUNDING) -> bool:
    return one.shape == other.shape and int(abs(one - other).max()) <= within


def differ(one: numpy.ndarray, other: numpy.ndarray) -> bool:
    """Whether more than rounding sets two pictures apart: at least 1 % of the values, by more than 2 of 255."""
    return float((abs(one - other) > 2).mean()) > 0.01


def mask(value: float, node_id: str = "mask", size: int = SIZE) -> dict:
    return {node_id: ("SolidMask", {"value": value, "width": size, "height": size})}


def half_mask() -> dict:
    """1 on the right half, 0 on the left."""
    right = {"destination": ["left", 0], "source": ["right", 0], "x": SIZE // 2, "y": 0, "operation": "add"}
    return mask(0.0, "left") | mask(1.0, "right") | {"mask": ("MaskComposite", right)}


def test_the_plain_picture_depends_on_the_prompt_and_repeats(plain, picture, client):
    first = picture(plain)
    assert first.shape == (1, SIZE, SIZE, 3) and first.std() > 5
    again = changed(plain, save={"filename_prefix": "again"})
    assert same(picture(again), first, 0)
    assert differ(picture(positive(plain, {}, "other")), first)


# Model patches.


def test_lora(plain, picture, server):
    def at(strength: float) -> numpy.ndarray:
        values = {"model": ["unet", 0], "lora_name": LORA, "strength_model": strength}
        return picture(changed(plain, {"lora": ("LoraLoaderModelOnly", values)}, sample={"model": ["lora", 0]}))

    before = picture(plain)
    assert same(at(0.0), before, 0)
    assert differ(at(1.0), before)
    assert differ(at(0.5), at(1.0))
    assert same(picture(changed(plain, save={"filename_prefix": "after_lora"})), before, 0), "the LoRA stayed"
    assert "lora key not loaded" not in server.log_text()


def controlled(plain: dict, hint: str = "hint", **values) -> dict:
    nodes = {
        "net": ("ControlNetLoader", {"control_net_name": CONTROLNET}),
        "hint": ("LoadImage", {"image": FACE}),
        "blank": ("EmptyImage", {"width": SIZE, "height": SIZE, "batch_size": 1, "color": 0xFFFFFF}),
        "apply": (
            "ControlNetApplyAdvanced",
            {"positive": ["positive", 0], "negative": ["negative", 0], "control_net": ["net", 0], "image": [hint, 0]}
            | {"strength": 1.0, "start_percent": 0.0, "end_percent": 1.0}
            | values,
        ),
    }
    return changed(plain, nodes, sample={"positive": ["apply", 0], "negative": ["apply", 1]})


def test_controlnet(plain, picture, server):
    before, full = picture(plain), picture(controlled(plain))
    assert same(picture(controlled(plain, strength=0.0)), before, 0)
    assert differ(full, before)
    assert differ(picture(controlled(plain, hint="blank")), full), "the hint has no effect"
    assert differ(picture(controlled(plain, end_percent=0.5)), full)
    assert "missing controlnet keys" not in server.log_text()
    assert "leftover keys" not in server.log_text()


def test_the_template_with_a_pose(plain, picture):
    """On this file's ControlNet: the edges of the picture act, and so does when the identity starts."""
    api = json.loads((PACK_ROOT / "workflows" / "api" / "pose.json").read_text("utf-8"))
    prompt = fill_in(api, SMALL_FILES | {"ControlNetLoader": CONTROLNET}, {"width": SIZE, "height": SIZE, "steps": 2})
    prompt = use_aligned_face(prompt, FACE)
    full = picture(prompt)
    assert differ(picture(changed(prompt, apply={"strength": 0.0})), full)
    assert differ(picture(changed(prompt, positive={"start_percent": 0.9})), full)


def skeleton() -> Image.Image:
    """Coloured limbs on black, as openpose draws them."""
    shown = Image.new("RGB", (SIZE, SIZE))
    draw = ImageDraw.Draw(shown)
    for start, end, colour in (
        ((64, 30), (64, 70), "red"),
        ((64, 70), (30, 110), "lime"),
        ((64, 70), (98, 110), "blue"),
    ):
        draw.line((*start, *end), colour, 6)
    return shown


def depth() -> Image.Image:
    """Near is light."""
    return Image.radial_gradient("L").resize((SIZE, SIZE)).convert("RGB")


@pytest.mark.parametrize("kind", [skeleton, depth])
def test_the_template_with_a_pose_that_is_drawn_already(kind, plain, picture, client):
    """Openpose's and depth's pictures go to the ControlNet as they are: Canny is taken out, as the note says."""
    file = io.BytesIO()
    kind().save(file, "png")
    client.upload_image(file.getvalue(), f"{kind.__name__}.png")
    api = json.loads((PACK_ROOT / "workflows" / "api" / "pose.json").read_text("utf-8"))
    prompt = fill_in(api, SMALL_FILES | {"ControlNetLoader": CONTROLNET}, {"width": SIZE, "height": SIZE, "steps": 2})
    prompt = use_aligned_face(prompt, FACE)
    edges = picture(prompt)
    drawn = changed(prompt, pose={"image": f"{kind.__name__}.png"}, apply={"image": ["fitted", 0]})
    del drawn["edges"]
    full = picture(drawn)
    assert differ(full, edges)
    assert differ(picture(changed(drawn, apply={"strength": 0.0})), full)
    assert differ(picture(changed(drawn, positive={"strength": 0.0})), full), "the identity has no effect"


# Conditioning.


def test_combine(plain, picture):
    def of(one: str, other: str) -> numpy.ndarray:
        values = {"conditioning_1": [one, 0], "conditioning_2": [other, 0]}
        return picture(positive(plain, {"both": ("ConditioningCombine", values)}, "both"))

    assert same(of("positive", "positive"), picture(plain))
    assert differ(of("positive", "other"), picture(plain))
    assert differ(of("positive", "other"), picture(positive(plain, {}, "other")))
    assert same(of("positive", "other"), of("other", "positive"))


def test_set_mask(plain, picture):
    def on(nodes: dict, strength: float = 1.0) -> dict:
        values = {"conditioning": ["positive", 0], "mask": ["mask", 0], "strength": strength}
        return nodes | {"set": ("ConditioningSetMask", values | {"set_cond_area": "default"})}

    before = picture(plain)
    assert same(picture(positive(plain, on(mask(1.0)), "set")), before)
    assert same(picture(positive(plain, on(mask(1.0, size=40)), "set")), before), "a mask of another size"
    both = {"both": ("ConditioningCombine", {"conditioning_1": ["set", 0], "conditioning_2": ["other", 0]})}
    half = picture(positive(plain, on(half_mask()) | both, "both"))
    assert differ(half, before)
    assert differ(half, picture(positive(plain, on(mask(1.0)) | both, "both"))), "where the mask is has no effect"


def test_set_area(plain, picture):
    def area(**values) -> numpy.ndarray:
        values = {"conditioning": ["positive", 0], "strength": 1.0, "x": 0, "y": 0} | values
        both = {"conditioning_1": ["set", 0], "conditioning_2": ["other", 0]}
        nodes = {"set": ("ConditioningSetArea", values), "both": ("ConditioningCombine", both)}
        return picture(positive(plain, nodes, "set" if values["width"] == SIZE else "both"))

    assert same(area(width=SIZE, height=SIZE), picture(plain))
    left, right = area(width=SIZE // 2, height=SIZE), area(width=SIZE // 2, height=SIZE, x=SIZE // 2)
    assert differ(left, picture(positive(plain, {}, "other")))
    assert differ(left, right)


def test_set_timestep_range(plain, picture):
    def part(name: str, source: str, start: float, end: float) -> dict:
        return {name: ("ConditioningSetTimestepRange", {"conditioning": [source, 0], "start": start, "end": end})}

    both = {"both": ("ConditioningCombine", {"conditioning_1": ["early", 0], "conditioning_2": ["late", 0]})}
    before = picture(plain)
    assert same(picture(positive(plain, part("early", "positive", 0.0, 1.0), "early")), before, 0)
    halves = part("early", "positive", 0.0, 0.5) | part("late", "positive", 0.5, 1.0) | both
    assert same(picture(positive(plain, halves, "both")), before)
    halves = part("early", "positive", 0.0, 0.5) | part("late", "other", 0.5, 1.0) | both
    mixed = picture(positive(plain, halves, "both"))
    assert differ(mixed, before)
    assert differ(mixed, picture(positive(plain, {}, "other")))


def test_concat(plain, picture):
    def then(source: str) -> numpy.ndarray:
        values = {"conditioning_to": ["positive", 0], "conditioning_from": [source, 0]}
        return picture(positive(plain, {"concat": ("ConditioningConcat", values)}, "concat"))

    # The same tokens twice share each token's attention between two equal copies.
    assert same(then("positive"), picture(plain), 2)
    assert differ(then("other"), picture(plain))


@pytest.mark.parametrize("text", [None, LONG], ids=["77 tokens", "another number of tokens"])
def test_average(plain, picture, text):
    prompt = changed(plain, other={"text": text}) if text else plain

    def at(strength: float) -> numpy.ndarray:
        values = {"conditioning_to": ["positive", 0], "conditioning_from": ["other", 0]}
        values["conditioning_to_strength"] = strength
        return picture(positive(prompt, {"average": ("ConditioningAverage", values)}, "average"))

    assert same(at(1.0), picture(plain))
    assert differ(at(0.5), picture(plain))
    if text is None:  # what the host does not average is cut to the shorter of the two
        assert same(at(0.0), picture(positive(prompt, {}, "other")))


# Prompts and latents of other lengths.


def test_prompts_of_different_lengths(plain, picture):
    def of(long: str, **inputs) -> numpy.ndarray:
        return picture(changed(plain, **{long: {"text": LONG, **inputs}}))

    long, cut = of("positive"), of("positive", long_prompt="cut at 77")
    assert differ(long, picture(plain)) and differ(long, cut), "the further chunks have no effect"
    assert differ(of("negative"), of("negative", long_prompt="cut at 77"))


def test_a_batch_of_two(plain, picture):
    two = picture(changed(plain, settings={"batch_size": 2}))
    assert two.shape[0] == 2
    assert same(two[:1], picture(plain), 2)
    assert differ(two[:1], two[1:])
    prompt = positive(changed(plain, settings={"batch_size": 2}), {}, "both")
    values = {"conditioning_1": ["positive", 0], "conditioning_2": ["other", 0]}
    assert picture(changed(prompt, {"both": ("ConditioningCombine", values)})).shape[0] == 2


# Samplers, img2img, inpaint.


def ksampler(plain: dict, denoise: float, latent: list, nodes: dict | None = None) -> dict:
    values = {"model": ["unet", 0], "positive": ["positive", 0], "negative": ["negative", 0], "latent_image": latent}
    values |= {"seed": 7, "steps": STEPS, "cfg": 5.0, "sampler_name": "euler", "scheduler": "normal"}
    k = {"k": ("KSampler", values | {"denoise": denoise})}
    return changed(plain, source() | (nodes or {}) | k, decode={"samples": ["k", 0]})


def source() -> dict:
    """The photo as a latent, `encoded`."""
    scale = {"image": ["photo64", 0], "upscale_method": "area", "width": SIZE, "height": SIZE, "crop": "center"}
    return {
        "photo64": ("LoadImage", {"image": FACE}),
        "scaled": ("ImageScale", scale),
        "encoded": ("VAEEncode", {"pixels": ["scaled", 0], "vae": ["vae", 0]}),
    }


def untouched(plain: dict) -> dict:
    return changed(plain, source(), decode={"samples": ["encoded", 0]})


def test_ksampler_is_the_custom_sampler_with_its_parts(plain, picture):
    parts = {
        "sigmas": (
            "BasicScheduler",
            {"model": ["unet", 0], "scheduler": "normal", "steps": STEPS, "denoise": 1.0},
        ),
        "euler": ("KSamplerSelect", {"sampler_name": "euler"}),
    }
    inputs = {"noise_seed": 7, "sampler": ["euler", 0], "sigmas": ["sigmas", 0]}
    custom = picture(changed(plain, parts, sample=inputs))
    stock = picture(ksampler(plain, 1.0, ["settings", 2]))
    assert same(stock, custom)
    assert differ(stock, picture(changed(plain, sample={"noise_seed": 7}))), "the published noise levels have no effect"


def test_img2img_with_ksampler(plain, picture):
    kept, half, whole = picture(untouched(plain)), *(picture(ksampler(plain, d, ["encoded", 0])) for d in (0.5, 1.0))
    assert same(picture(ksampler(plain, 0.0, ["encoded", 0])), kept)
    assert differ(half, kept) and differ(half, whole)


def test_img2img_with_our_noise_levels(plain, picture):
    def from_step(step: int) -> numpy.ndarray:
        nodes = source() | {"split": ("SplitSigmas", {"sigmas": ["settings", 0], "step": step})}
        inputs = {"sigmas": ["split", 1], "latent_image": ["encoded", 0]}
        return picture(changed(plain, nodes, sample=inputs))

    assert differ(from_step(2), picture(untouched(plain)))
    assert differ(from_step(1), from_step(2))
    blank = {"split": ("SplitSigmas", {"sigmas": ["settings", 0], "step": 0})}
    assert same(picture(changed(plain, blank, sample={"sigmas": ["split", 1]})), picture(plain), 0)


def test_inpaint_with_a_noise_mask(plain, picture):
    def inside(nodes: dict) -> numpy.ndarray:
        masked = {"masked": ("SetLatentNoiseMask", {"samples": ["encoded", 0], "mask": ["mask", 0]})}
        return picture(ksampler(plain, 1.0, ["masked", 0], nodes | masked))

    everywhere = picture(ksampler(plain, 1.0, ["encoded", 0]))
    assert same(inside(mask(1.0)), everywhere)
    assert same(inside(mask(0.0)), picture(untouched(plain)))
    half = inside(half_mask())
    assert differ(half, everywhere) and differ(half, picture(untouched(plain)))


@pytest.mark.parametrize("how", ["SetLatentNoiseMask", "VAEEncodeForInpaint"])
def test_inpaint_keeps_the_latent_outside_the_mask(plain, client, base_directory, how):
    nodes = source() | half_mask()
    nodes["masked"] = ("SetLatentNoiseMask", {"samples": ["encoded", 0], "mask": ["mask", 0]})
    if how == "VAEEncodeForInpaint":
        pixels = {"pixels": ["scaled", 0], "vae": ["vae", 0], "mask": ["mask", 0], "grow_mask_by": 0}
        nodes["masked"] = (how, pixels)
    prompt = ksampler(plain, 1.0, ["masked", 0], nodes)
    for name, latent in (("before", "masked"), ("after", "k")):
        values = {"samples": [latent, 0], "filename_prefix": f"compatible/{how}_{name}"}
        prompt[name] = {"class_type": "SaveLatent", "inputs": values}
    client.run(prompt)
    found = [base_directory / "output" / "compatible" / f"{how}_{name}_00001_.latent" for name in ("before", "after")]
    before, after = (load_file(path)["latent_tensor"] for path in found)
    change, middle = (after - before).abs(), SIZE // 16
    assert change[..., : middle - 1].max() < 1e-4
    assert change[..., middle:].mean() > 0.05
