"""Training modules of the small model's parts: they learn a batch, and what they write is what the library reads."""

import numpy as np
import pytest
import torch

from faceclip.model.face_encoder import FaceEncoder
from faceclip.small import models as small
from faceclip.train import towers
from faceclip.train.small.cartoons import character, dataset
from faceclip.train.small.classifier import CLASSIFIER_FILE, ClassifierTraining, load_classifier
from faceclip.train.small.clip import ClipTraining
from faceclip.train.small.face_tower import FACE_FILE, FaceTraining, frozen_encoder


@pytest.fixture(scope="module")
def batch(tmp_path_factory):
    data = dataset.build(tmp_path_factory.mktemp("small") / "data", character.people(8, 2), 2, seed=3, processes=1)
    return {name: torch.from_numpy(np.array(values)) for name, values in data.arrays.items()}


def losses(module, batch, steps, learning_rate):
    torch.manual_seed(0)
    optimiser = torch.optim.AdamW((p for p in module.parameters() if p.requires_grad), learning_rate)
    seen = []
    for _ in range(steps):
        loss = module(batch)["loss"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        seen.append(loss.item())
    return seen


def test_face_encoder_learns_and_is_read_back(tmp_path, batch):
    torch.manual_seed(0)
    module = FaceTraining(small.ENCODER.face, people=8, warmup=2)
    seen = losses(module, batch, 8, 2e-3)
    assert seen[-1] < seen[0]
    module.eval().export(tmp_path)
    state, config = towers.read_face_encoder(tmp_path / FACE_FILE, heads=small.ENCODER.face.heads)
    assert config == small.ENCODER.face
    encoder = FaceEncoder(config, dtype=torch.float32)
    encoder.load_state_dict(state)
    faces = batch["crops"].float() / 255
    with torch.no_grad():
        wanted = module.encoder(faces)
        for read in (encoder(faces), frozen_encoder(module)(faces)):
            torch.testing.assert_close(read.class_token, wanted.class_token, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(read.patch_tokens, wanted.patch_tokens, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("letter", ["l", "g"])
def test_clip_learns_and_its_text_tower_is_ours(tmp_path, batch, letter):
    torch.manual_seed(0)
    text = getattr(small.ENCODER, letter)
    module = ClipTraining(text)
    seen = losses(module, batch, 6, 2e-3)
    assert seen[-1] < seen[0]
    module.eval().export(tmp_path, letter)
    clip, config = towers.load_clip(tmp_path / f"clip_{letter}.safetensors")
    assert towers.text_config(config) == text
    rows = clip.token_embedding.weight.abs().sum(dim=-1) > 0
    assert set(rows.nonzero().flatten().tolist()) <= set(batch["joint_ids"].flatten().tolist())
    with torch.no_grad():
        pictures = batch["pictures"].float() / 255
        vision = towers.VisionTower(clip.visual)
        torch.testing.assert_close(vision(pictures), module.vision(pictures), rtol=1e-4, atol=1e-5)
        for name in ("ids", "joint_ids"):
            ids = batch[name].long()
            wanted = clip.encode_text(ids, normalize=True)
            ours = _branch(clip, config, letter, ids)
            assert (ours - wanted).abs().max() < 1e-5
            assert (module.text_feature(ids) - wanted).abs().max() < 1e-5


def _branch(clip, config, letter, ids):
    """The text feature of the library's tower with the CLIP's weights."""
    face = FaceEncoder(small.ENCODER.face, dtype=torch.float32).state_dict()
    other = {"l": "g", "g": "l"}[letter]
    fresh = ClipTraining(getattr(small.ENCODER, other))
    clips = {letter: (clip, config), other: (fresh.clip, fresh.config)}
    model = towers.new_faceclip(clips, (face, small.ENCODER.face), small.ENCODER.fuser)
    branch = getattr(model, f"face_clip_{letter}")
    hidden = branch.encode_text(ids)
    end = hidden[torch.arange(len(ids)), ids.argmax(dim=-1)]
    return torch.nn.functional.normalize(end @ branch.text_projection, dim=-1)


def test_classifier_learns_and_is_read_back(tmp_path, batch):
    torch.manual_seed(0)
    module = ClassifierTraining()
    trips = {**batch, "round_trips": batch["pictures"]}
    seen = losses(module, trips, 8, 3e-3)
    assert seen[-1] < seen[0]
    module.eval().export(tmp_path)
    classifier = load_classifier(tmp_path / CLASSIFIER_FILE)
    with torch.no_grad():
        pictures = batch["pictures"].float() / 255
        ours, read = module.classifier(pictures), classifier(pictures)
    assert torch.equal(ours.attributes, read.attributes) and torch.equal(ours.landmarks, read.landmarks)
    assert read.attributes.shape == (16, 8) and read.landmarks.shape == (16, 5, 2)
