"""A list of pictures, which may differ in size, is one batch to the nodes that decide over all of it."""

import io

import graphs
import numpy as np
import pytest
from graphs import node
from PIL import Image

from faceclip.comfy.server_errors import ExecutionFailed
from faceclip.comfy.workflow import SMALL_FILES

PHOTOS = {
    "photo": node("LoadImage", image="astronaut.png"),
    "empty": node("EmptyImage", width=200, height=240, batch_size=1, color=0x406080),
    "list": node("TestMakeList", first=["empty", 0], second=["photo", 0]),
}
STITCH = {"direction": "right", "match_image_size": True, "spacing_width": 0, "spacing_color": "white"}
FACECLIP = {"faceclip": node("FaceCLIPLoader", file=SMALL_FILES["FaceCLIPLoader"], precision="auto")}


def aligned(image: str, **inputs) -> dict:
    prompt = {**PHOTOS, **graphs.detected(image, **inputs)}
    prompt["crops"] = node("PreviewImage", images=["align", 1])
    prompt["report"] = node("PreviewAny", source=["align", 2])
    return prompt


def test_a_faceless_picture_of_a_list_is_skipped(client, yunet_name):
    prompt = aligned("list", on_no_face="skip image")
    prompt |= FACECLIP
    prompt["identity"] = node("FaceCLIPEncodeIdentity", faceclip=["faceclip", 0], face=["align", 0])
    prompt["used"] = node("PreviewAny", source=["identity", 0])
    result = client.run(prompt, timeout=120)
    assert len(result.images("crops")) == 1 and len(result.images("align")) == 2
    (text,) = result.outputs["align"]["text"]
    assert text.splitlines()[0] == "picture 1: no face, skipped"
    assert text.splitlines()[1].startswith("picture 2: face 0 of 1")
    assert result.outputs["report"]["text"] == [text]
    assert result.outputs["identity"]["text"] == ["One reference."]


def test_a_list_without_any_face_and_one_that_must_have_faces_stop_with_the_number(client, yunet_name):
    with pytest.raises(ExecutionFailed, match="No face was found in picture 1 of 2"):
        client.run(aligned("list"), timeout=120)
    prompt = aligned("nobody", on_no_face="skip image")
    prompt["nobody"] = node("TestMakeList", first=["empty", 0], second=["empty", 0])
    with pytest.raises(ExecutionFailed, match=r"No face was found in picture 1 of 2 .*also pictures 2"):
        client.run(prompt, timeout=120)


def test_a_list_of_one_batch_is_the_batch(client, yunet_name):
    """What a saved workflow with one batch gave, to the bit."""
    shown = []
    for image in ("photo", "rebatched"):
        prompt = aligned(image)
        prompt["rebatched"] = node("RebatchImages", images=["photo", 0], batch_size=8)
        result = client.run(prompt, timeout=120)
        picture = Image.open(io.BytesIO(client.view(result.images("crops")[0])))
        shown.append((np.asarray(picture), result.outputs["align"]["text"]))
    assert np.array_equal(shown[0][0], shown[1][0]) and shown[0][1] == shown[1][1]


def test_a_list_of_indices_takes_several_faces_of_one_picture(client, yunet_name):
    """As the host did when it called the node once for each."""
    prompt = aligned("wide", input_faces_index=["indices", 0], input_faces_order="left-right")
    prompt["wide"] = node("ImageStitch", image1=["photo", 0], image2=["photo", 0], **STITCH)
    prompt["zero"], prompt["one"] = node("TestHandOn", value=0), node("TestHandOn", value=1)
    prompt["indices"] = node("TestMakeList", first=["zero", 0], second=["one", 0])
    result = client.run(prompt, timeout=120)
    assert len(result.images("crops")) == 2
    assert "picture 2: face 1 of 2" in result.outputs["align"]["text"][0]


def test_a_picture_without_a_second_face_is_skipped_when_the_second_is_asked_for(client, yunet_name):
    prompt = aligned("list", input_faces_index=1, on_no_face="skip image")
    prompt["wide"] = node("ImageStitch", image1=["photo", 0], image2=["photo", 0], **STITCH)
    prompt["list"] = node("TestMakeList", first=["photo", 0], second=["wide", 0])
    result = client.run(prompt, timeout=120)
    assert len(result.images("crops")) == 1
    first = result.outputs["align"]["text"][0].splitlines()[0]
    assert first == "picture 1: 1 face was found, none has the index 1, skipped"


@pytest.fixture
def compared(yunet_name) -> dict:
    """The identity of the photo, and a list of nobody and the photo to compare with it."""
    prompt = {**PHOTOS, **FACECLIP, **graphs.detected("photo")}
    prompt["identity"] = node("FaceCLIPEncodeIdentity", faceclip=["faceclip", 0], face=["align", 0])
    return prompt


COMPARED = {name: [name, 0] for name in ("identity", "detector", "faceclip")}
COMPARED |= {"image": ["list", 0], "judge": "FaceCLIP's face encoder", "min_score": 0.6}


def test_likeness_is_one_table_for_the_whole_list(client, compared):
    compared["like"] = node("FaceCLIPSimilarity", **COMPARED)
    lines = client.run(compared).outputs["like"]["text"][0].splitlines()
    assert lines[1] == "picture 1: no face found, counts as the worst" and lines[2].startswith("picture 2: 1.000")


def test_the_best_of_a_list_is_the_best_of_all_and_its_latent_comes_along(client, compared):
    latent = node("VAEEncode", pixels=["list", 0], vae=["vae", 0])  # the host runs it once for each
    best = node("FaceCLIPPickBest", **COMPARED, count=2, latent=["latent", 0])
    compared |= {"vae": node("VAELoader", vae_name=SMALL_FILES["VAELoader"]), "latent": latent, "best": best}
    compared["decoded"] = node("VAEDecode", samples=["best", 1], vae=["vae", 0])
    compared["pictures"] = node("PreviewImage", images=["best", 0])
    compared["latents"] = node("PreviewImage", images=["decoded", 0])
    compared["numbers"] = node("PreviewAny", source=["best", 2])
    result = client.run(compared)
    assert "picture 2: 1.000 <- kept" in result.outputs["best"]["text"][0]
    for shown in ("pictures", "latents"):
        sizes = [Image.open(io.BytesIO(client.view(one))).size for one in result.images(shown)]
        assert sizes == [(512, 512), (200, 240)], "best first"
    assert [float(text) for text in result.outputs["numbers"]["text"]] == [pytest.approx(1, abs=1e-4), -1]


def test_one_picture_is_compared_with_each_identity_of_a_list(client, compared):
    compared["cartoon"] = node("LoadImage", image="cartoon_bo_face.png")
    compared["other face"] = node("FaceCLIPAlignedFace", image=["cartoon", 0])
    compared["other"] = node("FaceCLIPEncodeIdentity", faceclip=["faceclip", 0], face=["other face", 0])
    compared["people"] = node("TestMakeList", first=["identity", 0], second=["other", 0])
    compared["like"] = node("FaceCLIPSimilarity", **COMPARED | {"image": ["photo", 0], "identity": ["people", 0]})
    lines = client.run(compared).outputs["like"]["text"][0].splitlines()
    assert lines[1] == "picture 1, identity 1: 1.000" and lines[2].startswith("picture 2, identity 2: ")


def test_a_list_of_settings_for_what_is_decided_together_is_refused(client, compared):
    compared["low"], compared["high"] = node("TestHandOn", value=1), node("TestHandOn", value=2)
    compared["counts"] = node("TestMakeList", first=["low", 0], second=["high", 0])
    compared["best"] = node("FaceCLIPPickBest", **COMPARED, count=["counts", 0])
    compared["show"] = node("PreviewImage", images=["best", 0])
    with pytest.raises(ExecutionFailed, match=r"count comes as a list of different values \(1, 2\)"):
        client.run(compared)


def test_each_picture_of_a_list_has_the_face_chosen_in_it(client, yunet_name):
    prompt = aligned("list", chosen_faces="0, 1", input_faces_order="left-right")
    prompt["wide"] = node("ImageStitch", image1=["photo", 0], image2=["photo", 0], **STITCH)
    prompt["list"] = node("TestMakeList", first=["photo", 0], second=["wide", 0])
    result = client.run(prompt, timeout=120)
    (text,) = result.outputs["align"]["text"]
    assert "picture 1: face 0 of 1" in text and "picture 2: face 1 of 2" in text
    shown = result.outputs["align"]["faceclip_faces"]
    assert [(len(one["faces"]), one["chosen"]) for one in shown] == [(1, 0), (2, 1)]
    assert all(client.view(one["photo"])[:4] == b"\x89PNG" for one in shown)
    with pytest.raises(ExecutionFailed, match="Faces were chosen for 3 pictures .*but 2 came in. Press Find faces"):
        prompt["align"]["inputs"]["chosen_faces"] = "0, 1, 0"
        client.run(prompt, timeout=120)
