"""A range in which no step of the sampling lies is said: by the prompt, by the settings, and where it is sampled."""

import json

import pytest
from graphs import node

from faceclip.comfy.workflow import SMALL_FILES
from faceclip.sampling.schedule import parts_of_sampling, published_sigmas

SIZE = {"width": 64, "height": 64}
PROMPT = {
    "photo": node("LoadImage", image="cartoon_ada_face.png"),
    "face": node("FaceCLIPAlignedFace", image=["photo", 0]),
    "faceclip": node("FaceCLIPLoader", file=SMALL_FILES["FaceCLIPLoader"], precision="auto"),
    "identity": node("FaceCLIPEncodeIdentity", faceclip=["faceclip", 0], face=["face", 0]),
    "positive": node("FaceCLIPEncodePrompt", faceclip=["faceclip", 0], text="a park", identity=["identity", 0], **SIZE),
    "negative": node("FaceCLIPEncodeText", faceclip=["faceclip", 0], text="", **SIZE),
    "unet": node("FaceCLIPUNETLoader", file=SMALL_FILES["FaceCLIPUNETLoader"], weight_dtype="default"),
    "settings": node("FaceCLIPSampling", steps=4, batch_size=1, **SIZE),
    "latent": node("EmptyLatentImage", batch_size=1, **SIZE),
    "show": node("PreviewAny", source=["sample", 0]),
}
LINKS = {"positive": ["positive", 0], "negative": ["negative", 0], "latent_image": ["latent", 0], "model": ["unet", 0]}
USUAL = {"seed": 1, "cfg": 2.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0}


def custom(sigmas: str, output: int = 0) -> dict:
    inputs = {**LINKS, "add_noise": True, "noise_seed": 1, "cfg": 2.0, "sampler": ["settings", 1]}
    return node("SamplerCustom", sigmas=[sigmas, output], **inputs)


def settings(batch_size: int) -> dict:
    """The same four steps, in a node that the host has not asked before."""
    return {"settings": node("FaceCLIPSampling", steps=4, batch_size=batch_size, **SIZE)}


def run(client, changes: dict, **ranged) -> dict:
    """What the nodes show when the identity acts in a part; `changes` are further or other nodes."""
    prompt = json.loads(json.dumps({**PROMPT, **changes}))
    prompt["positive"]["inputs"].update(ranged)
    return {key: out["text"][0] for key, out in client.run(prompt, timeout=120).outputs.items() if "text" in out}


ADVANCED = {"add_noise": "enable", "noise_seed": 1, "return_with_leftover_noise": "disable", "start_at_step": 2}
CASES = {
    "the published settings": ({"sample": custom("settings")}, {"end_percent": 0.2}, "24.8%"),
    "KSampler": (
        {"sample": node("KSampler", **LINKS, **USUAL, steps=3)},
        {"start_percent": 0.6, "end_percent": 0.9},
        "3",
    ),
    "image to image": (
        {"sample": node("KSampler", **LINKS, **{**USUAL, "denoise": 0.5}, steps=4)},
        {"end_percent": 0.4},
        "an end_percent of",
    ),
    "KSampler (Advanced)": (
        {
            "sample": node(
                "KSamplerAdvanced",
                **LINKS,
                **ADVANCED,
                end_at_step=4,
                steps=4,
                cfg=2.0,
                sampler_name="euler",
                scheduler="normal",
            )
        },
        {"end_percent": 0.3},
        "none of its 2 steps",
    ),
    "a part of a schedule, by a guider": (
        {
            "steps": node("BasicScheduler", model=["unet", 0], scheduler="karras", steps=6, denoise=1.0),
            "split": node("SplitSigmas", sigmas=["steps", 0], step=3),
            "guider": node("CFGGuider", model=["unet", 0], positive=["positive", 0], negative=["negative", 0], cfg=2.0),
            "noise": node("RandomNoise", noise_seed=1),
            "sample": node(
                "SamplerCustomAdvanced",
                noise=["noise", 0],
                guider=["guider", 0],
                sampler=["settings", 1],
                sigmas=["split", 1],
                latent_image=["latent", 0],
            ),
        },
        {"end_percent": 0.3},
        "none of its 3 steps",
    ),
    "AlignYourSteps": (
        {"steps": node("AlignYourStepsScheduler", model_type="SDXL", steps=4, denoise=1.0), "sample": custom("steps")},
        {"start_percent": 0.01, "end_percent": 0.1},
        "none of its 4 steps",
    ),
    "steps from a node with nothing but a number": (
        {"number": node("PrimitiveInt", value=2), "sample": node("KSampler", **LINKS, **USUAL, steps=["number", 0])},
        {"start_percent": 0.1, "end_percent": 0.9},
        "none of its 2 steps",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_the_prompt_says_that_its_range_holds_no_step_and_its_advice_works(client, server, name):
    changes, ranged, said = CASES[name]
    before = len(server.log_text())
    text = run(client, changes, **ranged)["positive"]
    assert "so the identity does nothing" in text and said in text
    assert "in the range of this identity, so it does nothing in them" in server.log_text()[before:], "at the sampling"
    for advised in ("end_percent", "start_percent"):
        if f"{advised} of " in text:
            number = float(text.partition(f"{advised} of ")[2].split()[0])
            before = len(server.log_text())
            assert "does nothing" not in run(client, changes, **{**ranged, advised: number})["positive"]
            assert "does nothing" not in server.log_text()[before:]


def test_a_range_with_steps_is_not_spoken_of_and_the_settings_count_them(client):
    shown = run(client, {**settings(2), "sample": custom("settings")}, end_percent=0.5)
    assert "does nothing" not in shown["positive"]
    assert "acts in 2 of 4 steps. (FaceCLIPEncodePrompt)" in shown["settings"]


def test_the_settings_show_where_each_step_lies(client):
    text = run(client, {**settings(3), "sample": custom("settings")})["settings"]
    assert text == "4 steps, noise 4.12 at 24.8%, 1.62 at 49.8%, 0.698 at 74.9%, 0.0413 at 99.9% of the sampling."


def test_when_only_the_steps_change_the_settings_and_the_sampling_say_it(client, server):
    """The host does not ask the prompt again then."""
    many = {"settings": node("FaceCLIPSampling", steps=20, batch_size=1, **SIZE), "sample": custom("settings")}
    assert "does nothing" not in run(client, many, end_percent=0.15)["settings"]
    before = len(server.log_text())
    assert "so the identity does nothing" in run(client, {"sample": custom("settings")}, end_percent=0.15)["settings"]
    assert "none of the 4 steps lie in the range" in server.log_text()[before:]


def test_a_timestep_range_behind_a_prompt_replaces_its_own(client, server):
    """What the host's node does is documented on the help page: both parts act in the whole new range."""
    late = node("ConditioningSetTimestepRange", conditioning=["positive", 0], start=0.3, end=1.0)
    sample = custom("settings")
    sample["inputs"]["positive"] = ["late", 0]
    before = len(server.log_text())
    text = run(client, {"late": late, "sample": sample}, end_percent=0.4)["positive"]
    assert "ConditioningSetTimestepRange behind this node replaces its range" in text
    assert "With and without the identity both act from 30.0% to 100.0%, half each" in text
    assert "own range was replaced behind this node, by 30.0% to 100.0%" in server.log_text()[before:]
    late["inputs"].update(start=0.0, end=0.2)
    text = run(client, {"late": late, "sample": sample})["positive"]
    assert "none of its 4 steps lies between 0.0% and 20.0%" in text


def test_the_help_pages_table_is_the_published_schedule():
    from faceclip.comfy.environment import PACK_ROOT

    sigmas = published_sigmas(50)[:-1]
    parts = parts_of_sampling(sigmas)
    page = (PACK_ROOT / "web" / "docs" / "FaceCLIPSampling.md").read_text("utf-8")
    rows = [row.strip("| ").split(" | ") for row in page.splitlines() if row.startswith("| ") and "%" in row]
    assert len(rows) >= 8
    for percent, step, time, noise in rows:
        number = int(step) - 1
        assert f"{parts[number]:.1%}" == percent.replace(" ", "")
        assert time == str(1 + (49 - number) * 20) and noise == f"{float(sigmas[number]):.3g}"
