"""Saved identities as the gallery shows them, on real files of the small model."""

import json

import cv2
import numpy as np
import pytest
import torch

from faceclip.errors import CheckpointError, InputError, NameTakenError
from faceclip.identity import shelf
from faceclip.identity.file import load_person, save_person
from faceclip.identity.person import Person
from faceclip.model.config import FACE_GRID
from faceclip.model.encoder import Identity
from faceclip.model.face_encoder import FaceFeatures


@pytest.fixture
def ada(tmp_path):
    """The file of a person of two references, a red and a blue one."""
    features = FaceFeatures(torch.randn(2, 64), torch.randn(2, FACE_GRID**2, 64))
    thumbnails = torch.zeros(2, 3, 112, 112, dtype=torch.uint8)
    thumbnails[0, 0], thumbnails[1, 2] = 255, 255
    person = Person(Identity(features, features), (0.5, 0.5), thumbnails, "0123456789abcdef", "ada")
    return save_person(person, tmp_path, "ada")


def test_it_is_described_from_its_header(ada):
    wanted = {"name": "ada", "references": 2, "encoder": "0123456789abcdef", "problem": ""}
    assert shelf.describe(ada) == wanted
    ada.write_bytes(ada.read_bytes()[:-100])
    assert "truncated" in shelf.describe(ada)["problem"]


def test_each_reference_has_a_picture(ada):
    red, blue = (cv2.imdecode(np.frombuffer(shelf.picture(ada, i), np.uint8), cv2.IMREAD_COLOR)[0, 0] for i in (0, 1))
    assert (red.tolist(), blue.tolist()) == ([0, 0, 255], [255, 0, 0])


def test_it_is_renamed_in_its_file_too(ada):
    new = shelf.rename(ada, "Ada Lovelace")
    assert not ada.exists() and new.name == "Ada Lovelace.safetensors"
    assert load_person(new).name == "Ada Lovelace"


@pytest.mark.parametrize("name", ["../ada", "a/b", "", "..", "con"])
def test_no_name_leaves_the_folder(ada, name):
    with pytest.raises(InputError, match="name"):
        shelf.rename(ada, name)
    assert ada.exists() and len(list(ada.parent.iterdir())) == 1


def test_a_taken_name_is_refused_and_nothing_lost(ada):
    bo = save_person(load_person(ada), ada.parent, "bo")
    with pytest.raises(NameTakenError, match="'bo' already"):
        shelf.rename(ada, "bo")
    assert ada.exists() and load_person(bo).name == "bo"


def test_a_file_from_elsewhere_comes_in_checked(ada, tmp_path):
    folder = tmp_path / "shelf"
    assert shelf.bring_in(ada, folder, "ada").name == "ada.safetensors"
    assert shelf.bring_in(ada, folder, "ada").name == "ada (2).safetensors"
    for wrong in (b"no model", json.dumps({}).encode(), ada.read_bytes()[:-1]):
        (tmp_path / "wrong.safetensors").write_bytes(wrong)
        with pytest.raises(CheckpointError):
            shelf.bring_in(tmp_path / "wrong.safetensors", folder, "wrong")
    assert len(list(folder.iterdir())) == 2
