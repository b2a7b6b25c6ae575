"""What switches, bypassed nodes and reroutes of any type bring to our inputs: nothing, or something else."""

import graphs
import pytest
from graphs import node

from faceclip.comfy.server import PACK_NAME
from faceclip.comfy.server_errors import ExecutionFailed
from faceclip.comfy.workflow import SMALL_FILES

CROPPED = {"input_faces_order": "large-small", "input_faces_index": 0, "margin": 2.0, "size": 64, "min_score": 0.3}
SOURCES = {
    "photo": node("LoadImage", image="cartoon_ada_face.png"),
    "face": node("FaceCLIPAlignedFace", image=["photo", 0]),
    "faceclip": node("FaceCLIPLoader", file=SMALL_FILES["FaceCLIPLoader"], precision="auto"),
    "identity": node("FaceCLIPEncodeIdentity", faceclip=["faceclip", 0], face=["face", 0]),
    "detector": node("FaceCLIPDetectorLoader", detector="YuNet", provider="auto"),
    "scene": node("FaceCLIPEncodePrompt", faceclip=["faceclip", 0], text="a street", width=128, height=128),
    "latent": node("EmptyLatentImage", width=128, height=128, batch_size=1),
    "crop": node("FaceCLIPCropFace", image=["photo", 0], detector=["detector", 0], **CROPPED),
    "unet": node("FaceCLIPUNETLoader", file=SMALL_FILES["FaceCLIPUNETLoader"], weight_dtype="default"),
    "nothing": node("TestGiveNothing"),
}
WIRED = {
    "FACECLIP": ["faceclip", 0],
    "FACECLIP_FACE": ["face", 0],
    "FACECLIP_IDENTITY": ["identity", 0],
    "FACECLIP_DETECTOR": ["detector", 0],
    "FACECLIP_PLACEMENT": ["crop", 2],
    "IMAGE": ["photo", 0],
    "MASK": ["photo", 1],
    "CONDITIONING": ["scene", 0],
    "LATENT": ["latent", 0],
    "MODEL": ["unet", 0],
}


@pytest.fixture(scope="module")
def ours(client) -> dict:
    return {key: info for key, info in client.object_info().items() if PACK_NAME in info.get("python_module", "")}


def prompt_of(ours: dict, node_id: str, **changed) -> dict:
    """A prompt that ends in this node, with something right in every required input, apart from what is changed."""
    inputs = {}
    for name, (type_, options, choices, required) in graphs.specs(ours[node_id]).items():
        if type_ in WIRED and required:
            inputs[name] = WIRED[type_]
        elif required:
            inputs[name] = choices[0] if choices else options.get("default", "")
    prompt = {**SOURCES, "asked": node(node_id, **inputs | changed)}
    for number in range(len(ours[node_id]["output"])):
        prompt[f"shown {number}"] = node("PreviewAny", source=["asked", number])
    return prompt


def failure(client, prompt: dict) -> str:
    with pytest.raises(ExecutionFailed) as failed:
        client.run(prompt, timeout=120)
    assert failed.value.node_id == "asked"
    assert failed.value.exception_type.endswith("InputError"), failed.value
    return failed.value.exception_message


def test_every_input_of_every_node_says_in_words_that_nothing_arrives(client, ours, yunet_name):
    silent = []
    for node_id, info in ours.items():
        for name, (type_, _, _, required) in graphs.specs(info).items():
            if name == "file":  # a name that is looked up in the host's folders has errors of its own
                continue
            message = failure(client, prompt_of(ours, node_id, **{name: ["nothing", 0]}))
            says = f"input {name}" in message and "gives nothing" in message
            says = says and ("unplug" in message) == (not required) and (type_ in WIRED) == ("Wire" in message)
            if not says:
                silent.append((node_id, name, message))
    assert not silent


@pytest.mark.parametrize("type_", WIRED)
def test_every_type_says_what_else_arrives(client, ours, yunet_name, type_):
    """By way of a node that hands on anything, an unloaded model's name or another type comes in."""
    wrong = "scene" if type_ != "CONDITIONING" else "photo"
    for node_id, info in ours.items():
        for name, spec in graphs.specs(info).items():
            if spec[0] == type_:
                prompt = prompt_of(ours, node_id, **{name: ["other", 0]})
                prompt["other"] = node("TestHandOn", value=[wrong, 0])
                message = failure(client, prompt)
                assert f"What arrives at {name} is a {'Tensor' if wrong == 'photo' else 'list'}" in message
                assert "Wire" in message
                break


@pytest.mark.parametrize(
    ("node_id", "name", "value", "said"),
    [
        ("FaceCLIPEncodePrompt", "long_prompt", "wrap", "long_prompt is 'wrap'; wanted one of: continue"),
        ("FaceCLIPEncodePrompt", "strength", 7.5, "strength is 7.5, wanted a number from 0 to 2"),
        ("FaceCLIPEncodePrompt", "width", 100000, "width is 100000, wanted a whole number from 16 to 16384"),
        ("FaceCLIPEncodePrompt", "width", 128.5, "width is 128.5, wanted a whole number"),
        ("FaceCLIPEncodePrompt", "height", "tall", "height is 'tall', wanted a whole number"),
        ("FaceCLIPEncodePrompt", "text", 5, "text is a int (5), wanted text"),
        ("FaceCLIPAlignFace", "min_score", float("nan"), "min_score is nan, wanted a number from 0.3 to 1"),
        ("FaceCLIPAlignFace", "on_no_face", "guess", "on_no_face is 'guess'; wanted one of: error"),
        ("FaceCLIPSimilarity", "judge", "../secret", "judge is '../secret'; wanted one of: FaceCLIP's"),
        ("FaceCLIPSampling", "steps", 0, "steps is 0, wanted a whole number from 1 to 999"),
    ],
)
def test_a_linked_value_is_held_to_what_may_be_typed_in(client, ours, yunet_name, node_id, name, value, said):
    prompt = prompt_of(ours, node_id, **{name: ["value", 0]})
    prompt["value"] = node("TestHandOn", value=value)
    assert said in failure(client, prompt)


def test_a_whole_number_that_comes_as_a_float_is_taken(client, ours):
    prompt = prompt_of(ours, "FaceCLIPSampling", width=["value", 0])
    prompt["value"] = node("TestHandOn", value=256.0)
    assert client.run(prompt).outputs


def test_an_identity_that_is_wired_and_empty_makes_no_picture_of_nobody(client, ours):
    message = failure(client, prompt_of(ours, "FaceCLIPEncodePrompt", identity=["nothing", 0]))
    assert "No identity arrives at the input identity" in message
    assert "Wire Encode Identity or Load Identity or unplug the input" in message
