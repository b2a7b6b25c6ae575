"""What acts on a scene acts on its people; whose mask it is; and nothing is refused that the host samples."""

import inside_people
import pytest
from graphs import node
from inprocess import run_in_host

from faceclip.comfy.server_errors import ExecutionFailed
from faceclip.comfy.workflow import SMALL_FILES
from faceclip.small.models import write_small_model


@pytest.fixture(scope="module")
def found(comfyui, tmp_path_factory) -> dict:
    """What inside_people.py found in a host with the small model."""
    base = tmp_path_factory.mktemp("people")
    (base / "models").mkdir()
    write_small_model(base / "models")
    files = SMALL_FILES["FaceCLIPLoader"], SMALL_FILES["FaceCLIPUNETLoader"]
    return run_in_host(inside_people.all_about_people, *files, comfyui=comfyui, base=base)


def test_a_controlnet_on_the_scene_acts_on_the_person_as_one_that_comes_after(found):
    changed = found["controlnet"]
    assert changed["equal"] < 1e-5, changed
    assert changed["after"] > 0.02 and changed["apart"] < changed["before"] / 2, changed


def test_a_person_takes_over_all_that_the_scene_carries_and_can_stand_apart(found):
    assert all(same and apart for same, apart in found["taken over"].values()), found


def test_a_person_lies_within_the_scenes_own_masks(found):
    assert found["masks"] == {
        "a person in a masked scene": [1, 1, 0, 0],
        "the next one is not pushed back by the first": [1, 1, 0, 0],
        "a mask set between two people counts for the second": [1, 0, 0, 0],
        "two masked scenes that carry the same are one place": [[0.2, 0.2, 0, 0], [0, 0, 0.2, 0.2], [1, 1, 1, 1]],
        "scenes that act in different parts give an entry each": 4,
        "one mask for each picture": [[0, 1], [1, 0]],
        "the scene is left alone": True,
    }


def test_what_the_host_samples_is_not_refused(found):
    assert found["sampled"] == [True] * 5


def test_region_only_gives_the_unet_the_persons_part_and_changes_the_person_most(found):
    seen = found["region"]
    assert seen["usual"] == [16, 16, 16], "scene, person and negative"
    # The host puts a negative of the same place beside each area.
    assert seen["alone"] == [12, 12, 16, 16], "half, and a margin that is not to be seen"
    # A scene that is covered takes the smallest box there is.
    assert seen["nothing left of the scene"] == [8, 8, 12, 12, 12, 12, 16]
    assert seen["with a ControlNet"] == [16, 16, 16], "its picture would be squeezed into the region"
    assert seen["off is as before"] and not seen["the next one is told to"]
    assert seen["changed"][0] > 1.3 * seen["changed"][1] > 0, seen


# In the server


SIZE = {"width": 128, "height": 128}
PEOPLE = {
    "photo": node("LoadImage", image="cartoon_ada_face.png"),
    "face": node("FaceCLIPAlignedFace", image=["photo", 0]),
    "faceclip": node("FaceCLIPLoader", file=SMALL_FILES["FaceCLIPLoader"], precision="auto"),
    "identity": node("FaceCLIPEncodeIdentity", faceclip=["faceclip", 0], face=["face", 0]),
    "scene": node("FaceCLIPEncodePrompt", faceclip=["faceclip", 0], text="a park", **SIZE),
    "unet": node("FaceCLIPUNETLoader", file=SMALL_FILES["FaceCLIPUNETLoader"], weight_dtype="default"),
    "latent": node("EmptyLatentImage", batch_size=2, **SIZE),
    "vae": node("VAELoader", vae_name=SMALL_FILES["VAELoader"]),
    "sample": node(
        "KSampler",
        model=["unet", 0],
        seed=1,
        steps=2,
        cfg=3.0,
        sampler_name="euler",
        scheduler="normal",
        positive=["person", 0],
        negative=["scene", 0],
        latent_image=["latent", 0],
        denoise=1.0,
    ),
    "decode": node("VAEDecode", samples=["sample", 0], vae=["vae", 0]),
    "save": node("PreviewImage", images=["decode", 0]),
}


def person(conditioning: str, **inputs) -> dict:
    usual = {"text": "a person", "region": "left half", "strength": 1.0, "scene_share": 0.2, **SIZE}
    links = {"conditioning": [conditioning, 0], "faceclip": ["faceclip", 0], "identity": ["identity", 0]}
    return node("FaceCLIPAddPerson", **links | usual | inputs)


MASKS = {
    "MaskToImage and back": {
        "solid": node("SolidMask", value=1.0, width=90, height=70),
        "picture": node("MaskToImage", mask=["solid", 0]),
        "large": node("ImageScaleBy", image=["picture", 0], upscale_method="bicubic", scale_by=1.7),
        "mask": node("ImageToMask", image=["large", 0], channel="red"),
    },
    "grown, feathered, inverted": {
        "solid": node("SolidMask", value=0.0, width=64, height=64),
        "inverted": node("InvertMask", mask=["solid", 0]),
        "grown": node("GrowMask", mask=["inverted", 0], expand=3, tapered_corners=True),
        "mask": node("FeatherMask", mask=["grown", 0], left=9, top=9, right=9, bottom=9),
    },
    "LoadImageMask": {"mask": node("LoadImageMask", image="cartoon_ada.png", channel="red")},
    **{
        shape: {"mask": node("TestReshape", shape=shape, filled=0.6)}
        for shape in ("40,60", "1,40,60", "2,40,60", "3,40,60", "1,1,40,60", "2,1,40,60", "1,40,60,1")
    },
}


@pytest.mark.parametrize("name", MASKS)
def test_every_shape_of_mask_that_nodes_hand_out_is_used(client, name):
    prompt = {**PEOPLE, **MASKS[name], "person": person("scene", mask=["mask", 0])}
    result = client.run(prompt, timeout=120)
    assert len(result.images("save")) == 2
    assert " of the picture." in result.outputs["person"]["text"][0]


@pytest.mark.parametrize(
    ("mask", "said"),
    [
        ({"mask": node("SolidMask", value=0.0, width=64, height=64)}, "The person's mask is empty"),
        ({"mask": node("TestReshape", shape="1,64,64,3", filled=1.0)}, "put Convert Image to Mask between"),
        (
            {
                "ones": node("SolidMask", value=1.0, width=64, height=64),
                "mask": node("TestRescale", value=["ones", 0], factor=255.0, offset=0.0),
            },
            "The values of the person's mask run from 255",
        ),
    ],
)
def test_a_mask_that_cannot_be_meant_is_refused_as_the_persons(client, mask, said):
    prompt = {**PEOPLE, **mask, "person": person("scene", mask=["mask", 0])}
    with pytest.raises(ExecutionFailed, match=said):
        client.run(prompt, timeout=120)


def test_a_person_outside_of_the_scenes_mask_is_told_from_an_empty_mask(client):
    masked = {
        "mask": node("TestReshape", shape="1,64,64", filled=0.25),
        "masked": node(
            "ConditioningSetMask", conditioning=["scene", 0], mask=["mask", 0], strength=1.0, set_cond_area="default"
        ),
    }
    prompt = {**PEOPLE, **masked, "person": person("masked", region="right half")}
    with pytest.raises(ExecutionFailed, match=r"person's place lies outside of the scene's mask.*follow_scene"):
        client.run(prompt, timeout=120)
    prompt["person"] = person("masked", region="right half", follow_scene=False)
    assert client.run(prompt, timeout=120).images("save")
    picture = {"picture": node("TestReshape", shape="1,64,64,3", filled=1.0)}
    masked["masked"]["inputs"]["mask"] = ["picture", 0]
    with pytest.raises(ExecutionFailed, match=r"The shape of the scene's mask is \[1, 64, 64, 3\]"):
        client.run({**PEOPLE, **masked, **picture, "person": person("masked")}, timeout=120)


def test_three_people_who_leave_nothing_of_the_scene_make_a_picture(client):
    people = {
        "one": person("scene", scene_share=0.0),
        "two": person("one", scene_share=0.0, region="right half"),
        "person": person("two", scene_share=0.0, region="middle third"),
    }
    assert client.run({**PEOPLE, **people}, timeout=120).images("save")


def test_the_node_says_what_a_person_took_over_and_that_strength_0_is_nobody(client):
    late = {"conditioning": ["scene", 0], "start": 0.2, "end": 1.0}
    prompt = {**PEOPLE, "late": node("ConditioningSetTimestepRange", **late)}
    prompt["person"] = person("late", strength=0.0)
    (text,) = client.run(prompt, timeout=120).outputs["person"]["text"]
    assert "The person takes 50% of the picture." in text
    assert "Taken over from the scene: a part of the sampling." in text
    assert "! Identity: 1 reference, strength 0: nobody's face acts." in text
