"""Identities in a real server: several references, saved characters, strength, ranges, two people."""

import io
import json
import shutil

import inside_people
import numpy as np
import pytest
from astronaut import astronaut_face_png
from inprocess import run_in_host
from PIL import Image

from faceclip import save
from faceclip.comfy.environment import PACK_ROOT
from faceclip.comfy.server import ComfyServer
from faceclip.comfy.server_errors import ExecutionFailed, PromptRejected
from faceclip.comfy.workflow import SMALL_FILES, fill_in, use_aligned_face
from faceclip.model.checkpoint import read_faceclip
from faceclip.small.models import write_small_model

PORTRAIT = json.loads((PACK_ROOT / "workflows" / "api" / "portrait.json").read_text("utf-8"))
SMALL = {"width": 128, "height": 192, "steps": 3}


@pytest.fixture(scope="module")
def portrait(client) -> dict:
    """The portrait prompt on aligned faces, small, so that no detector is needed."""
    name = client.upload_image(astronaut_face_png(), "face.png")
    return use_aligned_face(fill_in(PORTRAIT, SMALL_FILES, SMALL), name)


def of_class(prompt: dict, kind: str) -> list[str]:
    return [key for key, node in prompt.items() if node["class_type"] == kind]


def positive(prompt: dict) -> dict:
    return next(n for n in prompt.values() if n["class_type"] == "FaceCLIPEncodePrompt" and "identity" in n["inputs"])


def picture(client, prompt: dict) -> np.ndarray:
    image = client.run(prompt).images()[-1]
    return np.asarray(Image.open(io.BytesIO(client.view(image))).convert("RGB")).astype(int)


def copied(prompt: dict) -> dict:
    return json.loads(json.dumps(prompt))


def test_neutral_settings_give_exactly_the_plain_picture(client, portrait):
    plain = picture(client, portrait)
    prompt = copied(portrait)
    positive(prompt)["inputs"].update(strength=1.0, start_percent=0.0, end_percent=1.0)
    (identity,) = of_class(prompt, "FaceCLIPEncodeIdentity")
    prompt[identity]["inputs"].update(weights="1", outliers="keep", min_similarity=0.5)
    assert np.array_equal(picture(client, prompt), plain)
    positive(prompt)["inputs"].update(strength=0.3)
    assert not np.array_equal(picture(client, prompt), plain)


def test_an_identity_that_acts_in_a_part_lies_between_all_and_none(client, portrait):
    shots = {}
    for name, options in {
        "all": {},
        "none": {"strength": 0.0},
        "late": {"start_percent": 0.5},
        "early": {"end_percent": 0.5},
    }.items():
        prompt = copied(portrait)
        positive(prompt)["inputs"].update(options)
        shots[name] = picture(client, prompt)
    for part in ("late", "early"):
        assert not np.array_equal(shots[part], shots["all"]) and not np.array_equal(shots[part], shots["none"])


def test_a_range_is_exactly_the_two_conditionings_one_after_the_other(client, portrait):
    ranged, stock = copied(portrait), copied(portrait)
    positive(ranged)["inputs"].update(end_percent=0.5)
    full = next(key for key, node in stock.items() if node is positive(stock))
    reader = next(node for node in stock.values() if node["inputs"].get("positive") == [full, 0])
    stock["free"] = {"class_type": "FaceCLIPEncodePrompt", "inputs": {**stock[full]["inputs"], "strength": 0.0}}
    for name, source, start, end in (("early", full, 0.0, 0.5), ("late", "free", 0.5, 1.0)):
        inputs = {"conditioning": [source, 0], "start": start, "end": end}
        stock[name] = {"class_type": "ConditioningSetTimestepRange", "inputs": inputs}
    both = {"conditioning_1": ["early", 0], "conditioning_2": ["late", 0]}
    stock["both"] = {"class_type": "ConditioningCombine", "inputs": both}
    reader["inputs"]["positive"] = ["both", 0]
    assert np.array_equal(picture(client, ranged), picture(client, stock))


def test_an_empty_range_is_refused_in_words(client, portrait):
    prompt = copied(portrait)
    positive(prompt)["inputs"].update(start_percent=0.6, end_percent=0.4)
    with pytest.raises(ExecutionFailed, match="0 <= start < end <= 1"):
        client.run(prompt)


def test_references_that_disagree_are_refused_with_the_table(client, portrait):
    prompt = copied(portrait)
    (identity,) = of_class(prompt, "FaceCLIPEncodeIdentity")
    prompt["grey"] = {"class_type": "EmptyImage", "inputs": {"width": 448, "height": 448, "batch_size": 1, "color": 0}}
    prompt["other"] = {"class_type": "FaceCLIPAlignedFace", "inputs": {"image": ["grey", 0]}}
    prompt[identity]["inputs"].update(face_2=["other", 0], min_similarity=1.0)
    with pytest.raises(ExecutionFailed, match=r"not look like the same person(.|\n)*similarity"):
        client.run(prompt)
    prompt[identity]["inputs"].update(outliers="keep")
    texts = client.run(prompt).outputs[identity]["text"]
    assert "not like the others" in texts[0]
    prompt[identity]["inputs"].update(outliers="keep", weights="1, half")
    with pytest.raises(ExecutionFailed, match="wanted numbers such as"):
        client.run(prompt)


def test_a_saved_character_makes_the_same_picture_without_photo_or_detector(client, portrait, server):
    (identity,) = of_class(portrait, "FaceCLIPEncodeIdentity")
    prompt = copied(portrait)
    prompt["keep"] = {
        "class_type": "FaceCLIPSaveIdentity",
        "inputs": {"identity": [identity, 0], "name": "Zoë", "existing": "replace"},
    }
    plain = picture(client, prompt)
    assert (server.base_directory / "models" / "faceclip_identities" / "Zoë.safetensors").is_file()
    files = client.object_info("FaceCLIPLoadIdentity")["input"]["required"]["file"][1]["options"]
    assert "Zoë.safetensors" in files
    loaded = copied(portrait)
    for key in [*of_class(loaded, "LoadImage"), *of_class(loaded, "FaceCLIPAlignedFace")]:
        del loaded[key]
    loaded[identity] = {"class_type": "FaceCLIPLoadIdentity", "inputs": {"file": "Zoë.safetensors"}}
    assert np.array_equal(picture(client, loaded), plain)


def test_a_saved_character_loads_where_no_detector_and_no_photo_is(client, portrait, server, comfyui, tmp_path):
    (identity,) = of_class(portrait, "FaceCLIPEncodeIdentity")
    prompt = copied(portrait)
    inputs = {"identity": [identity, 0], "name": "carried", "existing": "replace"}
    prompt["keep"] = {"class_type": "FaceCLIPSaveIdentity", "inputs": inputs}
    plain = picture(client, prompt)
    folder = tmp_path / "models" / "faceclip_identities"
    folder.mkdir(parents=True)
    write_small_model(tmp_path / "models")
    shutil.copy(server.base_directory / "models" / "faceclip_identities" / "carried.safetensors", folder)
    loaded = copied(portrait)
    photos = [loaded[key]["inputs"]["image"] for key in of_class(loaded, "LoadImage")]
    for key in [*of_class(loaded, "LoadImage"), *of_class(loaded, "FaceCLIPAlignedFace")]:
        del loaded[key]
    loaded[identity] = {"class_type": "FaceCLIPLoadIdentity", "inputs": {"file": "carried.safetensors"}}
    with ComfyServer(comfyui, tmp_path) as elsewhere:
        assert np.array_equal(picture(elsewhere.client, loaded), plain)
    there = [path.name for path in tmp_path.rglob("*.*") if path.suffix in (".onnx", ".jpg")]
    assert there == [] and not any((tmp_path / "input" / photo).exists() for photo in photos)


def test_a_character_of_another_encoder_is_refused_in_words(client, portrait, server):
    folder = server.base_directory / "models"
    (identity,) = of_class(portrait, "FaceCLIPEncodeIdentity")
    state, config = read_faceclip(folder / "faceclip" / SMALL_FILES["FaceCLIPLoader"])
    state = {key: value * 2 if key.endswith("feature.2.weight") else value for key, value in state.items()}
    save(state, folder / "faceclip" / "another.safetensors", config, force=True)
    prompt = copied(portrait)
    prompt["keep"] = {
        "class_type": "FaceCLIPSaveIdentity",
        "inputs": {"identity": [identity, 0], "name": "stranger", "existing": "replace"},
    }
    client.run(prompt)
    for key in of_class(prompt, "FaceCLIPLoader"):
        prompt[key]["inputs"]["file"] = "another.safetensors"
    del prompt["keep"]
    prompt[identity] = {"class_type": "FaceCLIPLoadIdentity", "inputs": {"file": "stranger.safetensors"}}
    with pytest.raises(ExecutionFailed, match="stranger was read by another face encoder"):
        client.run(prompt)


def test_references_of_different_sizes_are_taken_together(client, portrait):
    prompt = copied(portrait)
    (identity,) = of_class(prompt, "FaceCLIPEncodeIdentity")
    prompt["small"] = {"class_type": "EmptyImage", "inputs": {"width": 128, "height": 128, "batch_size": 2, "color": 9}}
    prompt["others"] = {"class_type": "FaceCLIPAlignedFace", "inputs": {"image": ["small", 0]}}
    prompt[identity]["inputs"].update(face_2=["others", 0], outliers="keep")
    table = client.run(prompt).outputs[identity]["text"][0]
    assert len(table.splitlines()) == 4, table


def test_any_number_of_references_come_as_a_list(client, portrait):
    prompt = copied(portrait)
    (identity,) = of_class(prompt, "FaceCLIPEncodeIdentity")
    (photo,) = of_class(prompt, "LoadImage")
    six = {"image": [photo, 0], "amount": 6}
    prompt["six"] = {"class_type": "RepeatImageBatch", "inputs": six}
    prompt["list"] = {"class_type": "RebatchImages", "inputs": {"images": ["six", 0], "batch_size": 1}}
    prompt["faces"] = {"class_type": "FaceCLIPAlignedFace", "inputs": {"image": ["list", 0]}}
    prompt[identity]["inputs"].update(face=["faces", 0])
    table = client.run(prompt).outputs[identity]["text"][0]
    assert len(table.splitlines()) == 7, table
    difference = np.abs(picture(client, prompt) - picture(client, portrait))
    assert difference.max() <= 1, "six times the same reference is that reference"


def test_a_blend_ends_in_its_two_people_and_can_be_blended_again(client, portrait):
    prompt = copied(portrait)
    (identity,) = of_class(prompt, "FaceCLIPEncodeIdentity")
    prompt["grey"] = {"class_type": "EmptyImage", "inputs": {"width": 128, "height": 128, "batch_size": 1, "color": 99}}
    prompt["face2"] = {"class_type": "FaceCLIPAlignedFace", "inputs": {"image": ["grey", 0]}}
    second = {**prompt[identity]["inputs"], "face": ["face2", 0]}
    prompt["second"] = {"class_type": "FaceCLIPEncodeIdentity", "inputs": second}

    def of(source: str, *mixed: tuple[str, float]) -> np.ndarray:
        made = copied(prompt)
        positive(made)["inputs"]["identity"] = [source, 0]
        for number, (first, ratio) in enumerate(mixed):
            inputs = {"identity_1": [first, 0], "identity_2": ["second", 0], "ratio": ratio}
            made[f"mix{number}"] = {"class_type": "FaceCLIPBlendIdentities", "inputs": inputs}
        return picture(client, made)

    ends = of(identity), of("second")
    assert not np.array_equal(*ends)
    for ratio, end in ((0.0, ends[0]), (1.0, ends[1])):
        assert np.array_equal(of("mix0", (identity, ratio)), end)
    half = of("mix0", (identity, 0.5))
    assert not np.array_equal(half, ends[0]) and not np.array_equal(half, ends[1])
    chain = of("mix1", (identity, 0.5), ("mix0", 0.5))
    assert np.abs(chain - of("mix0", (identity, 0.75))).max() <= 1


def test_a_name_that_leaves_the_folder_is_refused_before_anything_runs(client, portrait):
    (identity,) = of_class(portrait, "FaceCLIPEncodeIdentity")
    prompt = copied(portrait)
    prompt["keep"] = {
        "class_type": "FaceCLIPSaveIdentity",
        "inputs": {"identity": [identity, 0], "name": "../../evil", "existing": "replace"},
    }
    del prompt[of_class(prompt, "SaveImage")[0]]  # the host runs the other outputs of a half-valid prompt
    with pytest.raises(PromptRejected, match="cannot be used for an identity"):
        client.run(prompt)


def test_a_missing_identity_names_the_folder(client, portrait):
    prompt = {
        "load": {"class_type": "FaceCLIPLoadIdentity", "inputs": {"file": "../nobody.safetensors"}},
        "show": {"class_type": "PreviewImage", "inputs": {"images": ["load", 1]}},
    }
    with pytest.raises(PromptRejected, match="faceclip_identities"):
        client.run(prompt)


def people_prompt(portrait: dict, regions: list[dict]) -> dict:
    """The portrait's scene without identity, with one person for each region."""
    prompt = copied(portrait)
    scene = next(key for key, node in prompt.items() if node is positive(prompt))
    identity = prompt[scene]["inputs"].pop("identity")
    faceclip, last = prompt[scene]["inputs"]["faceclip"], [scene, 0]
    reader = next(node for node in prompt.values() if node["inputs"].get("positive") == [scene, 0])
    for number, region in enumerate(regions):
        inputs = {"conditioning": last, "faceclip": faceclip, "identity": identity, "text": f"person {number}"}
        inputs |= {"width": SMALL["width"], "height": SMALL["height"], "region": "left half", "strength": 1.0}
        prompt[f"person{number}"] = {
            "class_type": "FaceCLIPAddPerson",
            "inputs": {**inputs, "scene_share": 0.2, **region},
        }
        last = [f"person{number}", 0]
    reader["inputs"]["positive"] = last
    return prompt


@pytest.mark.parametrize("count", [2, 3, 4])
def test_several_people_each_change_their_own_place(client, portrait, count):
    strips = [{"region": "box", "x": i / count, "box_width": 1 / count} for i in range(count)]
    together = picture(client, people_prompt(portrait, strips))
    strips[0]["strength"] = 0.0
    changed = np.abs(picture(client, people_prompt(portrait, strips)) - together).mean(axis=(0, 2))
    own, last = changed[: 128 // count].mean(), changed[-128 // count :].mean()
    assert own > last, "the first person's strength must matter most in their own strip"


def test_masks_of_other_sizes_and_odd_resolutions_work(client, portrait):
    prompt = people_prompt(portrait, [{"mask": ["mask", 0]}, {"region": "right third"}])
    prompt["mask"] = {"class_type": "SolidMask", "inputs": {"value": 1.0, "width": 517, "height": 333}}
    odd = {"width": 136, "height": 184}
    for node in prompt.values():
        if node["class_type"] != "SolidMask":
            node["inputs"].update({k: v for k, v in odd.items() if k in node["inputs"]})
    assert picture(client, prompt).shape == (184, 136, 3)


def test_a_person_over_the_whole_picture_without_the_scene_is_the_plain_prompt(client, portrait):
    whole = {"region": "whole picture", "scene_share": 0.0, "text": positive(portrait)["inputs"]["text"]}
    difference = np.abs(picture(client, people_prompt(portrait, [whole])) - picture(client, portrait))
    assert difference.max() <= 1


def test_a_persons_conditioning_is_exactly_that_of_the_prompt_node(comfyui, tmp_path):
    (tmp_path / "models").mkdir()
    write_small_model(tmp_path / "models")
    same = run_in_host(inside_people.compare_with_prompt, SMALL_FILES["FaceCLIPLoader"], comfyui=comfyui, base=tmp_path)
    assert all(same.values()), same


def test_the_hosts_conditioning_nodes_take_people(client, portrait):
    prompt = people_prompt(portrait, [{}, {"region": "right half"}])
    reader = next(n for n in prompt.values() if n["inputs"].get("positive") == ["person1", 0])
    prompt["early"] = {
        "class_type": "ConditioningSetTimestepRange",
        "inputs": {"conditioning": ["person1", 0], "start": 0.0, "end": 0.5},
    }
    prompt["both"] = {
        "class_type": "ConditioningCombine",
        "inputs": {"conditioning_1": ["early", 0], "conditioning_2": ["person0", 0]},
    }
    reader["inputs"]["positive"] = ["both", 0]
    assert picture(client, prompt).std() > 0


def test_an_empty_mask_is_refused_in_words(client, portrait):
    prompt = people_prompt(portrait, [{"mask": ["mask", 0]}])
    prompt["mask"] = {"class_type": "SolidMask", "inputs": {"value": 0.0, "width": 64, "height": 64}}
    with pytest.raises(ExecutionFailed, match="The person's mask is empty"):
        client.run(prompt)
