"""FaceT5 and FLUX in a real ComfyUI: the examples of the family run, and each setting means what its page says."""

import copy
import io
import json
import re

import flux_models
import graphs
import numpy as np
import pytest
from golden_t5 import TINY_T5, golden_t5_model
from PIL import Image

from faceclip.comfy.environment import PACK_ROOT
from faceclip.comfy.server_errors import ExecutionFailed
from faceclip.comfy.workflow import SMALL_FILES, example, fill_in
from faceclip.model import checkpoint

NAMES = sorted(path.stem for path in (PACK_ROOT / "workflows" / "api").glob("facet5_*.json"))
SETTINGS = {"width": 128, "height": 96, "steps": 2}
BARE = "facet5_without_clip.safetensors"


@pytest.fixture(scope="module", autouse=True)
def files(base_directory, yunet_name):
    """The random models beside the small one, for these tests only."""
    written = flux_models.write_family(base_directory / "models")
    checkpoint.save(golden_t5_model("tiny"), base_directory / "models" / "faceclip" / BARE, TINY_T5)
    yield
    for path in (*written, base_directory / "models" / "faceclip" / BARE):
        path.unlink()


def prompt_of(name: str) -> dict:
    """The example on the random models, small and short."""
    files = {node: file for node, (_, file) in flux_models.FILES.items()}
    return fill_in(json.loads(example(name).read_text("utf-8")), files, SETTINGS)


def changed(prompt: dict, node: str, **inputs) -> dict:
    prompt = copy.deepcopy(prompt)
    prompt[node]["inputs"].update(inputs)
    return prompt


def picture(client, prompt: dict) -> np.ndarray:
    image = client.run(prompt).images("save")[-1]
    return np.asarray(Image.open(io.BytesIO(client.view(image))).convert("RGB")).astype(int)


def said(client, prompt: dict, node: str) -> str:
    return "\n".join(client.run(prompt).outputs[node]["text"])


def refused(client, prompt: dict) -> str:
    with pytest.raises(ExecutionFailed) as error:
        client.run(prompt)
    return str(error.value)


@pytest.fixture(scope="module")
def portrait() -> dict:
    return prompt_of("facet5_portrait")


@pytest.fixture(scope="module")
def plain(client, portrait) -> np.ndarray:
    return picture(client, portrait)


@pytest.mark.parametrize("name", NAMES)
def test_the_examples_of_the_family_run(client, name):
    prompt = prompt_of(name)
    assert graphs.problems(prompt, client.object_info()) == []
    assert picture(client, prompt).shape == (96, 128, 3)


@pytest.mark.parametrize(
    ("node", "inputs"),
    [
        ("positive", {"strength": 1.0, "start_percent": 0.0, "end_percent": 1.0}),
        ("positive", {"long_prompt": "cut at 77"}),
        ("positive", {"width": 512, "height": 768}),
        ("identity", {"weights": "1", "outliers": "keep"}),
    ],
    ids=str,
)
def test_what_is_neutral_or_means_nothing_changes_nothing(client, portrait, plain, node, inputs):
    assert np.array_equal(picture(client, changed(portrait, node, **inputs)), plain)


def test_a_weight_of_one_changes_nothing(client, portrait, plain):
    text = portrait["positive"]["inputs"]["text"]
    assert np.array_equal(picture(client, changed(portrait, "positive", text=f"({text}:1.0)")), plain)


@pytest.mark.parametrize(
    ("node", "inputs"),
    [
        ("positive", {"strength": 0.0}),
        ("positive", {"end_percent": 0.5}),
        ("positive", {"text": "A (woman:1.8) wearing a blue denim shirt."}),
        ("sample", {"cfg": 1.0}),
    ],
    ids=str,
)
def test_a_setting_that_is_not_neutral_shows(client, portrait, plain, node, inputs):
    assert not np.array_equal(picture(client, changed(portrait, node, **inputs)), plain)


def test_a_person_over_the_whole_picture_is_the_prompt(client, portrait, plain):
    prompt = copy.deepcopy(portrait)
    size = {"width": ["settings", 3], "height": ["settings", 4]}
    links = {"faceclip": ["faceclip", 0], **size}
    prompt["scene"] = {"class_type": "FaceCLIPEncodeText", "inputs": {"text": "a desert", **links}}
    prompt["person"] = {
        "class_type": "FaceCLIPAddPerson",
        "inputs": {
            "conditioning": ["scene", 0], "identity": ["identity", 0], "text": prompt["positive"]["inputs"]["text"],
            "region": "whole picture", "strength": 1.0, "scene_share": 0.0, **links,
        },
    }  # fmt: skip
    prompt["sample"]["inputs"]["positive"] = ["person", 0]
    del prompt["positive"]
    assert np.abs(picture(client, prompt) - plain).max() <= 1


def test_a_saved_person_draws_the_same_picture_again(client, portrait, plain):
    kept = copy.deepcopy(portrait)
    kept["keep"] = {
        "class_type": "FaceCLIPSaveIdentity",
        "inputs": {"identity": ["identity", 0], "name": "facet5 test", "existing": "replace"},
    }
    client.run(kept)
    again = copy.deepcopy(portrait)
    again["identity"] = {"class_type": "FaceCLIPLoadIdentity", "inputs": {"file": "facet5 test.safetensors"}}
    for node in ("photo", "detector", "align"):
        del again[node]
    assert np.array_equal(picture(client, again), plain)
    # FaceCLIP's small model has another face encoder.
    again["faceclip"]["inputs"]["file"] = "faceclip_tiny.safetensors"
    assert "was read by another face encoder" in refused(client, again)


def test_blend_similarity_and_pick_best_take_the_family(client, portrait, plain):
    prompt = copy.deepcopy(portrait)
    prompt["blend"] = {
        "class_type": "FaceCLIPBlendIdentities",
        "inputs": {"identity_1": ["identity", 0], "identity_2": ["identity", 0], "ratio": 0.0},
    }
    prompt["positive"]["inputs"]["identity"] = ["blend", 0]
    assert np.array_equal(picture(client, prompt), plain)
    judged = {
        "image": ["photo", 0], "identity": ["identity", 0], "detector": ["detector", 0],
        "faceclip": ["faceclip", 0], "judge": "FaceCLIP's face encoder", "min_score": 0.6,
    }  # fmt: skip
    prompt["best"] = {"class_type": "FaceCLIPPickBest", "inputs": {**judged, "count": 1}}
    prompt["like"] = {"class_type": "FaceCLIPSimilarity", "inputs": judged}
    prompt["show"] = {"class_type": "PreviewImage", "inputs": {"images": ["best", 0]}}
    texts = client.run(prompt).outputs
    assert "picture 1: 1.000 <- kept" in texts["best"]["text"][0]
    assert "picture 1: 1.000" in texts["like"]["text"][0]


def test_a_range_without_a_step_is_said(client, portrait):
    text = said(client, changed(portrait, "positive", start_percent=0.001, end_percent=0.002), "positive")
    assert "none of its 2 steps lies between 0.1% and 0.2%" in text


def test_merging_is_for_sdxl_alone(client, portrait):
    prompt = {"unet": copy.deepcopy(portrait["unet"])}
    models = {name: ["unet", 0] for name in ("model", "style_model", "base_model")}
    prompt["merge"] = {
        "class_type": "FaceCLIPStyleMerge",
        "inputs": {**models, "strength": 1.0, "reading_weights": "merge"},
    }
    prompt["save"] = {"class_type": "ModelSave", "inputs": {"model": ["merge", 0], "filename_prefix": "never"}}
    assert "model is FLUX, wanted an SDXL model" in refused(client, prompt)


def test_what_does_not_apply_is_said_in_the_node(client, portrait):
    text = said(client, changed(portrait, "positive", text="word " * 600, long_prompt="cut at 77"), "positive")
    assert "longer than 512 tokens: the rest is left out" in text
    assert "FLUX is not told the picture's size" in text and "long_prompt means nothing here" in text
    text = said(client, changed(portrait, "positive", text="word " * 500), "positive")
    assert "left out" not in text and "tokens, in 1 chunk of 512." in text


@pytest.mark.parametrize(
    ("node", "inputs", "words"),
    [
        ("faceclip", {"file": BARE}, "has no CLIP-L, so it gives no pooled vector"),
        ("faceclip", {"precision": "fp16"}, "T5's numbers go beyond fp16's largest"),
        ("settings", {"width": 120}, "wanted a multiple of 16"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_in_words(client, portrait, node, inputs, words):
    assert words in refused(client, changed(portrait, node, **inputs))


def small_sdxl(prompt: dict) -> dict:
    """The same with FaceCLIP's small model in all three places."""
    return fill_in(copy.deepcopy(prompt), SMALL_FILES, {})


@pytest.mark.parametrize(
    ("of_sdxl", "words"),
    [
        (["faceclip"], "reads tokens that are 64 wide, and these are 96.*Choose files of one family"),
        (["unet"], "reads tokens that are 96 wide, and these are 64.*Choose files of one family"),
        (["recipe"], r"begin at 1\.62, and FLUX's largest is 1\..*wire FaceT5 Sampling Settings"),
        (["faceclip", "unet"], "begin at 1, which on an empty latent.*wire FaceCLIP Sampling Settings"),
    ],
    ids=str,
)
def test_parts_of_the_two_models_are_not_mixed(client, portrait, of_sdxl, words):
    """Each had ended in words on the shapes of matrices, or in a picture of noise."""
    sdxl, prompt = small_sdxl(portrait), copy.deepcopy(portrait)
    for node in of_sdxl:
        if node == "recipe":
            prompt["settings"]["class_type"] = "FaceCLIPSampling"
        else:
            prompt[node] = sdxl[node]
    assert re.search(words, refused(client, prompt))


def test_the_same_identity_needs_no_clip(client, portrait):
    """Only what needs the pooled vector refuses a file without it: faces are read and compared all the same."""
    prompt = {key: portrait[key] for key in ("photo", "detector", "align", "faceclip", "identity")}
    prompt = changed(prompt, "faceclip", file=BARE)
    prompt["keep"] = {
        "class_type": "FaceCLIPSaveIdentity",
        "inputs": {"identity": ["identity", 0], "name": "facet5 bare", "existing": "replace"},
    }
    assert "Saved as facet5 bare" in said(client, prompt, "keep")


def test_fp8_keeps_the_identity_and_draws(client, portrait, plain):
    eight = picture(client, changed(portrait, "faceclip", precision="fp8_e4m3fn"))
    assert eight.shape == plain.shape and not np.array_equal(eight, plain)
