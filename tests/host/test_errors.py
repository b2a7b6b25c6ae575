"""Bad input in a real server: what the user reads, and that the server works on afterwards.

Every prompt is `workflows/api/portrait.json` with one thing wrong in it.
"""

import io
import json

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from faceclip.comfy.demo import WORKFLOW
from faceclip.comfy.server_errors import ExecutionFailed, ExecutionInterrupted, PromptRejected
from faceclip.comfy.workflow import SMALL_FILES, fill_in
from faceclip.files.state_dict import read_state_dict
from faceclip.small import models as small

ENCODER_NODE, UNET_NODE, ALIGN_NODE = "FaceCLIPLoader", "FaceCLIPUNETLoader", "FaceCLIPAlignFace"
SETTINGS = {"width": 64, "height": 64, "steps": 1}


@pytest.fixture
def portrait(yunet_name) -> dict:
    """The example prompt on the small model; a test changes it."""
    return fill_in(json.loads(WORKFLOW.read_text("utf-8")), SMALL_FILES, SETTINGS)


@pytest.fixture(scope="module")
def bad_files(base_directory) -> None:
    """Files that a user may put into the wrong place, or that a broken download leaves."""
    folder = base_directory / "models" / "faceclip"
    good = (folder / SMALL_FILES[ENCODER_NODE]).read_bytes()
    unet = base_directory / "models" / "diffusion_models"
    (folder / "a_unet.safetensors").write_bytes((unet / SMALL_FILES[UNET_NODE]).read_bytes())
    (folder / "short.safetensors").write_bytes(good[: len(good) // 2])
    for name in ("page.safetensors", "page.pt"):
        (folder / name).write_text("<!DOCTYPE html><html>Please log in</html>")
    torch.save(torch.nn.Linear(2, 2), folder / "pickled.pt")
    state, metadata = read_state_dict(small.FOLDER / small.ENCODER_FILE)
    damaged = "face_clip_g.ln_final.weight"
    state[damaged] = state[damaged].clone()
    state[damaged][3] = float("nan")
    save_file(state, folder / "nan.safetensors", metadata)
    (unet / "an_encoder.safetensors").write_bytes(good)
    whole = (unet / SMALL_FILES[UNET_NODE]).read_bytes()
    (unet / "short_unet.safetensors").write_bytes(whole[:-64])


def failure(client, prompt: dict, node_type: str, kind: str) -> str:
    """Run a prompt that must fail in a node of this class, and return the message its user reads."""
    with pytest.raises(ExecutionFailed) as failed:
        client.run(prompt, timeout=120)
    assert (failed.value.node_type, failed.value.exception_type) == (node_type, f"faceclip.{kind}")
    return failed.value.exception_message


def assert_says(message: str, *words: str) -> None:
    for word in words:
        assert word in message, f"{word!r} is not in: {message}"


def assert_makes_a_picture(client, prompt: dict, seed: int) -> None:
    """A new seed, so that the host does not answer from its cache."""
    prompt["sample"]["inputs"]["noise_seed"] = seed
    result = client.run(prompt, timeout=120)
    assert client.view(result.images("save")[0])[:8] == b"\x89PNG\r\n\x1a\n"


def put_before(prompt: dict, node_id: str, name: str, class_type: str, link: str, **inputs) -> str:
    """Put a node between an input and what it was linked to; returns the new node's id."""
    new = f"before {node_id}.{name}"
    source = prompt[node_id]["inputs"][name]
    prompt[new] = {"class_type": class_type, "inputs": {link: source, **inputs}}
    prompt[node_id]["inputs"][name] = [new, 0]
    return new


# Pictures


def test_no_face(client, portrait):
    portrait["photo"] = {
        "class_type": "EmptyImage",
        "inputs": {"width": 320, "height": 240, "batch_size": 1, "color": 0x8090A0},
    }
    message = failure(client, portrait, ALIGN_NODE, "NoFaceError")
    assert_says(message, "No face was found in the picture (320 x 240 px)", "from the front")


def test_no_face_in_one_picture_of_a_batch(client, portrait):
    portrait["empty"] = {
        "class_type": "EmptyImage",
        "inputs": {"width": 512, "height": 512, "batch_size": 1, "color": 0},
    }
    put_before(portrait, "align", "image", "ImageBatch", "image1", image2=["empty", 0])
    assert_says(failure(client, portrait, ALIGN_NODE, "NoFaceError"), "No face was found in picture 2 of 2")


def test_a_picture_of_one_pixel(client, portrait):
    portrait["photo"] = {
        "class_type": "EmptyImage",
        "inputs": {"width": 1, "height": 1, "batch_size": 1, "color": 0},
    }
    message = failure(client, portrait, ALIGN_NODE, "InputError")
    assert_says(message, "The picture is 1 x 1 px; at least 16 px a side", "Give the original photo")


def test_a_picture_with_alpha(client, portrait):
    portrait["alpha"] = {"class_type": "SolidMask", "inputs": {"value": 0.5, "width": 512, "height": 512}}
    put_before(portrait, "align", "image", "JoinImageWithAlpha", "image", alpha=["alpha", 0])
    message = failure(client, portrait, ALIGN_NODE, "InputError")
    assert_says(message, "4 channels", "3 are wanted", "it has an alpha channel. Lay it on a background")


@pytest.mark.parametrize("mode", ["RGBA", "L"])
def test_photo_files_with_alpha_or_grey_are_fine(client, portrait, base_directory, mode):
    data = io.BytesIO()
    Image.open(base_directory / "input" / "astronaut.png").convert(mode).save(data, "PNG")
    portrait["photo"]["inputs"]["image"] = client.upload_image(data.getvalue(), f"astronaut_{mode}.png")
    assert_makes_a_picture(client, portrait, seed=len(mode))


def test_a_face_index_past_the_last(client, portrait):
    portrait["align"]["inputs"]["input_faces_index"] = 7
    message = failure(client, portrait, ALIGN_NODE, "InputError")
    assert_says(message, "Face index 7 is past the last", "the last index is 0", "Choose a lower index")


def test_an_unaligned_photo_is_no_aligned_face(client, portrait):
    put_before(
        portrait, "align", "image", "ImageScale", "image", upscale_method="area", width=300, height=200, crop="disabled"
    )
    portrait["align"] = {
        "class_type": "FaceCLIPAlignedFace",
        "inputs": {"image": portrait["align"]["inputs"]["image"]},
    }
    message = failure(client, portrait, "FaceCLIPAlignedFace", "InputError")
    assert_says(message, "300 x 200 px", "an aligned face is square", "Align Face")


# Files


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("a_unet.safetensors", ["a_unet.safetensors is not a FaceCLIP encoder", "UNet", "Choose the right file"]),
        ("short.safetensors", ["short.safetensors", "is not a whole safetensors file", "download it again"]),
        ("page.safetensors", ["page.safetensors (41 bytes)", "is not a whole safetensors file", "of another kind"]),
        ("page.pt", ["page.pt (41 bytes) is no checkpoint", "<!DOCTYPE", "Wanted: a .safetensors file"]),
        ("pickled.pt", ["pickled.pt holds pickled Python objects", "refused", "state dict"]),
        ("nan.safetensors", ["nan.safetensors has NaN", "face_clip_g.ln_final.weight"]),
    ],
)
def test_a_wrong_file_for_the_encoder(client, portrait, bad_files, file, words):
    portrait["faceclip"]["inputs"]["file"] = file
    assert_says(failure(client, portrait, ENCODER_NODE, "CheckpointError"), *words)


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("an_encoder.safetensors", ["an_encoder.safetensors is no SDXL UNet", "FaceCLIP encoder", "Wanted"]),
        ("short_unet.safetensors", ["short_unet.safetensors", "is not a whole safetensors file", "download it again"]),
    ],
)
def test_a_wrong_file_for_the_unet(client, portrait, bad_files, file, words):
    portrait["unet"]["inputs"]["file"] = file
    assert_says(failure(client, portrait, UNET_NODE, "CheckpointError"), *words)


def test_a_gguf_file_is_refused_with_the_node_that_loads_it(portrait, client):
    portrait["unet"]["inputs"]["file"] = "unet-Q8_0.gguf"
    with pytest.raises(PromptRejected, match=r"unet-Q8_0.*is a GGUF file.*UnetLoaderGGUF"):
        client.run(portrait)


@pytest.mark.parametrize(
    ("node", "folder", "wanted"),
    [("faceclip", "faceclip", "face_clip_encoder.pt"), ("unet", "diffusion_models", "unet.pt")],
)
def test_a_missing_model(client, portrait, base_directory, comfyui, node, folder, wanted):
    portrait[node]["inputs"]["file"] = "gone.safetensors"
    with pytest.raises(PromptRejected) as refused:
        client.run(portrait)
    assert list(refused.value.node_errors) == [node]
    (message,) = refused.value.messages()
    assert_says(message, "'gone.safetensors'", "Folders searched:", str(base_directory / "models" / folder))
    assert_says(message, f"{wanted}: ", "https://", "CC BY-NC 4.0", "press R to refresh")


def test_a_missing_yunet(client, portrait, base_directory, yunet_name):
    file = base_directory / "models" / "face_detection" / yunet_name
    hidden = file.with_suffix(".hidden")
    portrait["detector"]["inputs"]["provider"] = "CPU"  # unlike other tests: the host remembers a loaded detector
    file.rename(hidden)
    try:
        message = failure(client, portrait, "FaceCLIPDetectorLoader", "ModelNotFoundError")
    finally:
        hidden.rename(file)
    assert_says(message, "The YuNet face detector was not found", "Folders searched:", str(file.parent))
    assert_says(message, f"File wanted: {yunet_name}", "https://", "licence: MIT")


def test_a_yunet_file_that_would_end_the_server(client, portrait, base_directory, yunet_name):
    file = base_directory / "models" / "face_detection" / yunet_name
    good = file.read_bytes()
    portrait["detector"]["inputs"]["provider"] = "CoreML"  # see above
    file.write_bytes(good[:1234] + b"\x22" + good[1235:])  # one flipped bit
    try:
        message = failure(client, portrait, "FaceCLIPDetectorLoader", "CheckpointError")
    finally:
        file.write_bytes(good)
    assert_says(message, str(file), "is not the published YuNet", "allow-detector")
    assert_makes_a_picture(client, portrait, seed=11)


def test_a_missing_insightface_pack(client, portrait, base_directory):
    portrait["detector"]["inputs"]["detector"] = "InsightFace antelopev2"
    message = failure(client, portrait, "FaceCLIPDetectorLoader", "ModelNotFoundError")
    folder = base_directory / "models" / "insightface" / "models" / "antelopev2"
    assert_says(message, "InsightFace pack antelopev2 was not found", str(folder), "antelopev2.zip", "non-commercial")


@pytest.mark.parametrize(
    ("node", "folder"), [(ENCODER_NODE, "faceclip"), (UNET_NODE, "diffusion_models")], ids=["encoder", "unet"]
)
def test_a_model_file_that_is_cut_while_the_server_runs(client, portrait, base_directory, node, folder):
    """What is loaded is a copy; the next prompt looks at the file again, and works once it is whole."""
    assert_makes_a_picture(client, portrait, seed=21)
    file = base_directory / "models" / folder / SMALL_FILES[node]
    good = file.read_bytes()
    with open(file, "r+b") as opened:  # in place, as cp over it does
        opened.truncate(len(good) // 2)
    try:
        portrait["positive"]["inputs"]["text"] = "another prompt"
        message = failure(client, portrait, node, "CheckpointError")
    finally:
        file.write_bytes(good)
    assert_says(message, file.name, "is truncated", f"{len(good) // 2} of {len(good)} bytes")
    assert_makes_a_picture(client, portrait, seed=22)


# Graphs


@pytest.mark.parametrize(
    ("node", "name", "source", "types"),
    [
        ("identity", "face", ["photo", 0], ["IMAGE", "FACECLIP_FACE"]),
        ("identity", "face", ["align", 1], ["IMAGE", "FACECLIP_FACE"]),
        ("positive", "identity", ["align", 0], ["FACECLIP_FACE", "FACECLIP_IDENTITY"]),
        ("sample", "positive", ["identity", 0], ["FACECLIP_IDENTITY", "CONDITIONING"]),
    ],
)
def test_bad_wiring(client, portrait, node, name, source, types):
    portrait[node]["inputs"][name] = source
    with pytest.raises(PromptRejected) as refused:
        client.run(portrait)
    (problem,) = refused.value.node_errors[node]["errors"]
    assert problem["type"] == "return_type_mismatch"
    assert_says(str(refused.value), name, *types)


def test_different_faces_with_one_prompt(client, portrait):
    """A batch is several references of one person; the small encoder sees little difference, hence the bound of 1."""
    put_before(portrait, "align", "image", "ImageBatch", "image1", image2=["other", 0])
    portrait["other"] = {
        "class_type": "ImageBlur",
        "inputs": {"image": ["photo", 0], "blur_radius": 2, "sigma": 1.0},
    }
    portrait["identity"]["inputs"]["min_similarity"] = 1.0
    message = failure(client, portrait, "FaceCLIPEncodeIdentity", "InputError")
    assert "not look like the same person" in message
    assert "outliers" in message


@pytest.mark.parametrize("name", ["width", "height"])
@pytest.mark.parametrize(
    ("node", "node_type"), [("positive", "FaceCLIPEncodePrompt"), ("settings", "FaceCLIPSampling")]
)
def test_a_size_that_is_no_multiple_of_8(client, portrait, node, node_type, name):
    portrait[node]["inputs"][name] = 100
    message = failure(client, portrait, node_type, "InputError")
    assert_says(message, f"The {name} is 100 px, wanted a multiple of 8", "Use 96 or 104")


def test_an_empty_prompt_is_allowed(client, portrait):
    portrait["positive"]["inputs"]["text"] = ""
    portrait["negative"]["inputs"]["text"] = ""
    assert_makes_a_picture(client, portrait, seed=11)


def test_the_server_works_on_after_an_error(client, portrait, bad_files):
    wrong = json.loads(json.dumps(portrait))
    wrong["faceclip"]["inputs"]["file"] = "short.safetensors"
    failure(client, wrong, ENCODER_NODE, "CheckpointError")
    assert_makes_a_picture(client, portrait, seed=12)


def test_cancel_while_many_faces_are_encoded(client, portrait):
    many = json.loads(json.dumps(portrait))
    many["small"] = {
        "class_type": "ImageScale",
        "inputs": {"image": ["align", 1], "upscale_method": "area", "width": 112, "height": 112, "crop": "disabled"},
    }
    many["many"] = {"class_type": "RepeatImageBatch", "inputs": {"image": ["small", 0], "amount": 1024}}
    many["faces"] = {"class_type": "FaceCLIPAlignedFace", "inputs": {"image": ["many", 0]}}
    many["identity"]["inputs"]["face"] = ["faces", 0]
    asked = []

    def cancel(event):
        if event.type == "executing" and event.data.get("node") == "identity" and not asked:
            asked.append(event)
            client.interrupt()

    with pytest.raises(ExecutionInterrupted) as stopped:
        client.run(many, timeout=120, on_event=cancel)
    assert stopped.value.node_type == "FaceCLIPEncodeIdentity"
    assert_makes_a_picture(client, portrait, seed=13)
