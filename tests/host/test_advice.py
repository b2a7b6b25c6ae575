"""What our errors and notices advise works: each prompt is one with a fault, mended only by what its message says."""

import json
import re

import graphs
import pytest
from graphs import node

from faceclip.comfy.server_errors import ExecutionFailed
from faceclip.comfy.workflow import SMALL_FILES
from faceclip.model import syntax

SIZE = {"width": 128, "height": 128}
FACES = {
    "ada": node("LoadImage", image="cartoon_ada_face.png"),
    "bo": node("LoadImage", image="cartoon_bo_face.png"),
    "face": node("FaceCLIPAlignedFace", image=["ada", 0]),
    "other": node("FaceCLIPAlignedFace", image=["bo", 0]),
    "faceclip": node("FaceCLIPLoader", file=SMALL_FILES["FaceCLIPLoader"], precision="auto"),
    "identity": node("FaceCLIPEncodeIdentity", faceclip=["faceclip", 0], face=["face", 0]),
    "photo": node("LoadImage", image="astronaut.png"),
}


def run(client, prompt: dict, shown: str, output: int = 0, **inputs) -> None:
    """Run up to one node, some of whose inputs are other than in the prompt."""
    prompt = json.loads(json.dumps({**FACES, **prompt, "shown": node("PreviewAny", source=[shown, output])}))
    prompt[shown]["inputs"].update(inputs)
    client.run(prompt, timeout=120)


def fault(client, prompt: dict, shown: str, **inputs) -> str:
    with pytest.raises(ExecutionFailed) as failed:
        run(client, prompt, shown, **inputs)
    return failed.value.exception_message


def number_after(words: str, message: str) -> float:
    return float(re.search(re.escape(words) + r" (-?[0-9.]*[0-9])", message).group(1))


TWO = {"identity": node("FaceCLIPEncodeIdentity", faceclip=["faceclip", 0], face=["face", 0], face_2=["other", 0])}
SURE = {"min_similarity": 0.6}


def test_two_references_that_differ_cannot_be_outvoted_and_are_not_advised_to(client):
    for outliers in ("refuse", "drop"):
        message = fault(client, TWO, "identity", outliers=outliers, **SURE)
        assert "None can be told to be the wrong one, so outliers = drop would leave nobody" in message
        run(client, TWO, "identity", outliers=outliers, min_similarity=number_after("set min_similarity to", message))
    run(client, TWO, "identity", outliers="keep", **SURE)
    alone = {"identity": node("FaceCLIPEncodeIdentity", faceclip=["faceclip", 0], face=["face", 0], **SURE)}
    run(client, alone, "identity")  # the other picture is taken out


def test_a_wrong_one_among_three_can_be_dropped_as_advised(client):
    three = json.loads(json.dumps(TWO))
    three["identity"]["inputs"]["face_3"] = ["face", 0]
    sure = {"min_similarity": 0.4}
    message = fault(client, three, "identity", **sure)
    assert "Reference 2 does not look like" in message and "choose outliers = drop, which leaves out 1" in message
    run(client, three, "identity", outliers="drop", **sure)
    run(client, three, "identity", outliers="keep", **sure)
    run(client, three, "identity", min_similarity=number_after("set min_similarity to", message))


def test_an_empty_range_becomes_none_at_strength_0(client):
    prompt = {
        "asked": node("FaceCLIPEncodePrompt", faceclip=["faceclip", 0], text="a", identity=["identity", 0], **SIZE)
    }
    empty = {"start_percent": 0.6, "end_percent": 0.4}
    assert "For no identity at all set strength to 0" in fault(client, prompt, "asked", **empty)
    run(client, prompt, "asked", strength=0.0, **empty)


def test_the_lower_minimum_score_that_is_named_finds_the_face(client, yunet_name):
    tiny = {
        "small": node("ImageScale", image=["photo", 0], upscale_method="area", width=64, height=64, crop="disabled")
    }
    prompt = {**tiny, **graphs.detected("small", min_score=0.99)}
    message = fault(client, prompt, "align")
    run(client, prompt, "align", min_score=number_after("Lower the minimum score to", message))


def test_a_lower_index_as_named_is_there(client, yunet_name):
    prompt = graphs.detected("photo", input_faces_index=4)
    message = fault(client, prompt, "align")
    run(client, prompt, "align", input_faces_index=int(number_after("the last index is", message)))


@pytest.mark.parametrize("node_id", ["FaceCLIPSampling", "FaceCLIPEncodeText"])
def test_a_size_as_named_is_taken(client, node_id):
    inputs = {"width": 100, "height": 128}
    inputs |= (
        {"steps": 2, "batch_size": 1} if node_id == "FaceCLIPSampling" else {"faceclip": ["faceclip", 0], "text": ""}
    )
    prompt = {"asked": node(node_id, **inputs)}
    message = fault(client, prompt, "asked")
    for words in ("Use", "or"):
        run(client, prompt, "asked", width=int(number_after(words, message)))


PICTURES = {
    "alpha, split off": (
        {
            "half": node("SolidMask", value=0.5, width=448, height=448),
            "wrong": node("JoinImageWithAlpha", image=["ada", 0], alpha=["half", 0]),
        },
        "split the alpha off",
        node("SplitImageWithAlpha", image=["wrong", 0]),
    ),
    "0 to 255, divided": (
        {"wrong": node("TestRescale", value=["ada", 0], factor=255.0, offset=0.0)},
        "divide by 255",
        node("TestRescale", value=["wrong", 0], factor=1 / 255, offset=0.0),
    ),
    "-1 to 1, halved": (
        {"wrong": node("TestRescale", value=["ada", 0], factor=2.0, offset=-1.0)},
        "add 1 and halve it",
        node("TestRescale", value=["wrong", 0], factor=0.5, offset=0.5),
    ),
}


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_mended_as_advised_is_taken(client, name):
    wrong, said, mended = PICTURES[name]
    prompt = {**wrong, "asked": node("FaceCLIPAlignedFace", image=["wrong", 0]), "mended": mended}
    assert said in fault(client, prompt, "asked")
    run(client, prompt, "asked", image=["mended", 0])


def test_a_picture_for_a_mask_becomes_one_by_the_node_that_is_named(client):
    scene = node("FaceCLIPEncodeText", faceclip=["faceclip", 0], text="a park", **SIZE)
    inputs = {"conditioning": ["scene", 0], "faceclip": ["faceclip", 0], "identity": ["identity", 0], "text": "a man"}
    settings = {"region": "left half", "strength": 1.0, "scene_share": 0.2, **SIZE}
    prompt = {"scene": scene, "asked": node("FaceCLIPAddPerson", **inputs, **settings, mask=["any", 0])}
    prompt["any"] = node("TestHandOn", value=["ada", 0])
    assert "put Convert Image to Mask between" in fault(client, prompt, "asked")
    prompt["mask"] = node("ImageToMask", image=["ada", 0], channel="red")
    run(client, prompt, "asked", mask=["mask", 0])


def test_the_nodes_that_are_named_are_there(client):
    """In our messages the host's nodes have the names that its menu has."""
    shown = {info["display_name"] or key for key, info in client.object_info().items()} | set(client.object_info())
    notices = " ".join(told for _, told in syntax._ELSEWHERE)
    for name in ("LoraLoaderModelOnly", "Conditioning (Concat)", "Conditioning (Combine)", "Conditioning (Set Mask)"):
        assert name in notices and name in shown
    for name in (
        "Load FaceCLIP Diffusion Model",
        "Add Person",
        "Convert Image to Mask",
        "ConditioningSetTimestepRange",
    ):
        assert name in shown
    assert {"Load Image (as Mask)", "Load Image", "FaceCLIP Text Prompt", "Load Checkpoint"} <= shown
