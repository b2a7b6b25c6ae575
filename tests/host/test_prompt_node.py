"""What the prompt nodes say: who is in a prompt, what brackets do, and which words do nothing here."""

import pytest
from graphs import node

from faceclip.comfy.server_errors import ExecutionFailed
from faceclip.comfy.workflow import SMALL_FILES

SIZE = {"width": 128, "height": 128}
PERSON = {
    "photo": node("LoadImage", image="cartoon_ada_face.png"),
    "face": node("FaceCLIPAlignedFace", image=["photo", 0]),
    "faceclip": node("FaceCLIPLoader", file=SMALL_FILES["FaceCLIPLoader"], precision="auto"),
    "identity": node("FaceCLIPEncodeIdentity", faceclip=["faceclip", 0], face=["face", 0]),
}


def told(client, class_type: str = "FaceCLIPEncodeText", **inputs) -> list[str]:
    """The lines that the node shows."""
    asked = node(class_type, faceclip=["faceclip", 0], **{"text": "a park", **SIZE, **inputs})
    prompt = {**PERSON, "asked": asked, "used": node("PreviewAny", source=["asked", 0])}
    (text,) = client.run(prompt, timeout=120).outputs["asked"]["text"]
    return text.splitlines()


def test_a_prompt_without_an_identity_says_that_nobody_is_in_it(client):
    """As after bypassing or muting Encode Identity: the page leaves the input out."""
    assert told(client, "FaceCLIPEncodePrompt")[0] == "! No identity: no person is in this prompt, only words."
    first, *_ = told(client, "FaceCLIPEncodePrompt", identity=["identity", 0], end_percent=0.4)
    assert first == "Identity: 1 reference, strength 1, from 0.0% to 40.0% of the sampling."
    first, *_ = told(client, "FaceCLIPEncodePrompt", identity=["identity", 0], strength=0.0)
    assert first == "! Identity: 1 reference, strength 0: nobody's face acts."


def test_a_text_prompt_speaks_of_no_person(client):
    assert told(client) == ["4 tokens, in 1 chunk of 77."]


@pytest.mark.parametrize("class_type", ["FaceCLIPEncodeText", "FaceCLIPEncodePrompt"])
def test_words_that_do_nothing_are_named_in_the_node_and_in_the_log(client, server, class_type):
    lines = told(client, class_type, text="embedding:negativeXL_D, ugly <lora:a:1> {x|y} BREAK (1990)")
    text = "\n".join(lines)
    for words in ("! embedding:negativeXL_D is read as plain words", "! <lora:a:1>", "! {x|y}", "! BREAK"):
        assert words in text
    assert "Weighed: 1990 1.1. For brackets that are no weight write" in text
    assert "embedding:negativeXL_D is read as plain words. Textual inversion" in server.log_text()


def test_what_is_left_out_of_a_long_text_is_said(client):
    long = "a red coat, " * 40
    assert told(client, text=long)[0] == "166 tokens, in 3 chunks of 77."
    cut = told(client, text=long, long_prompt="cut at 77")
    assert cut == ["77 tokens, in 1 chunk of 77.", "! The text is longer than 77 tokens: the rest is left out."]


def test_a_text_of_200_kilobytes_is_refused(client):
    with pytest.raises(ExecutionFailed, match="204,800 characters; at most 50,000"):
        told(client, text="a cat " * 34133 + "a ")
    with pytest.raises(ExecutionFailed, match="chunks of 77 tokens; at most 64"):
        told(client, text="a cat " * 8000)
