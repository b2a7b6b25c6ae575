"""The model that comes with the pack, in a real server: its pictures show the person and what the prompt says."""

import io
import json

import numpy as np
import pytest
import torch
from PIL import Image

from faceclip.comfy.environment import PACK_ROOT
from faceclip.comfy.workflow import for_small_model, use_aligned_face
from faceclip.small import models as small
from faceclip.train.small import scores, shipped
from faceclip.train.small.cartoons.scene import ATTRIBUTES

PORTRAIT = json.loads((PACK_ROOT / "workflows" / "api" / "portrait.json").read_text("utf-8"))
TEXT = (
    "A {expression} person wearing a {colour} {garment}, with no accessories, in the city, facing forward, "
    "in daylight, a flat cartoon."
)
SCENES = (
    {"expression": "smiling", "colour": "blue", "garment": "suit"},
    {"expression": "serious", "colour": "red", "garment": "hoodie"},
    {"expression": "surprised", "colour": "yellow", "garment": "t-shirt"},
    {"expression": "smiling", "colour": "green", "garment": "striped sweater"},
)
PEOPLE = ("ada", "bo")


def as_tensor(picture: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1).float() / 255  # HWC -> CHW


@pytest.fixture(scope="module")
def model():
    return shipped.load()


@pytest.fixture(scope="module")
def drawn(client) -> dict[str, torch.Tensor]:
    """Both people in all scenes, from the same noise: float [scenes, 3, 128, 128] by name."""
    pictures = {}
    for name in PEOPLE:
        shown = []
        for scene in SCENES:
            prompt = use_aligned_face(for_small_model("portrait", PORTRAIT), f"cartoon_{name}_face.png")
            prompt["positive"]["inputs"]["text"] = TEXT.format(**scene)
            result = client.run(prompt)
            saved = [image for image in result.images() if image["type"] == "output"]
            shown.append(as_tensor(Image.open(io.BytesIO(client.view(saved[0])))))
        pictures[name] = torch.stack(shown)
    return pictures


def test_each_picture_is_of_the_person_it_was_asked_for(model, drawn):
    references = torch.stack([as_tensor(Image.open(small.FOLDER / f"cartoon_{name}_face.png")) for name in PEOPLE])
    known = model.faceclip.encode_identity(references).embedding
    for i, name in enumerate(PEOPLE):
        faces = scores.cut_faces(drawn[name], model.classifier(drawn[name]).landmarks)
        similarity = model.faceclip.encode_identity(faces).embedding @ known.T
        assert similarity[:, i].mean() > similarity[:, 1 - i].mean() + 0.15, similarity


def test_the_pictures_show_what_the_prompts_say(model, drawn):
    right = []
    for pictures in drawn.values():
        read = model.classifier(pictures).attributes
        for row, scene in zip(read, SCENES, strict=True):
            wanted = {**scene, "background": "city", "pose": "facing forward", "style": "flat cartoon"}
            for i, (name, words) in enumerate(ATTRIBUTES.items()):
                if name in wanted:
                    right.append(words[row[i]] == wanted[name])
    assert np.mean(right) > 0.7, np.mean(right)
