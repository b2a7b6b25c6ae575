"""Similarity and the best of a batch, on real photos; the independent judge on a recognition model the test builds."""

import numpy as np
import pytest
import torch
from golden import golden_model
from recogniser import judge_of, recognition_model

from faceclip import InputError, ModelNotFoundError, find_faces
from faceclip.errors import CheckpointError
from faceclip.identity.judge import InsightFaceJudge, OwnJudge, SFaceJudge
from faceclip.identity.likeness import (
    NO_FACE_RANKED,
    best_per_picture,
    find_likeness,
    likeness_table,
    pick_best,
)
from faceclip.identity.person import Person, make_person
from faceclip.install.places import find_sface
from faceclip.install.published import SFACE, sha256


@pytest.fixture(scope="module")
def model():
    return golden_model("tiny")


@pytest.fixture
def batch(photos):
    """Four pictures of one size: nobody, the astronaut, the astronaut darker, another man."""
    size = (512, 512)

    def fit(photo):
        photo = torch.as_tensor(np.ascontiguousarray(photo)).float() / 255
        return torch.nn.functional.interpolate(photo.permute(2, 0, 1)[None], size=size, mode="area")[0].permute(1, 2, 0)

    astronaut = fit(photos["astronaut"])
    return torch.stack([torch.full((*size, 3), 0.5), astronaut, astronaut * 0.6, fit(photos["hanks"])])


@pytest.fixture
def person(model, batch, yunet) -> Person:
    face = find_faces(batch[1:2], yunet)
    return make_person(model.encode_identity(face.crops), list(face.crops))[0]


@pytest.fixture(params=["own", "insightface", "sface"])
def judge(request, model, tmp_path):
    return judge_of(request.param, model, tmp_path)


def test_the_same_face_comes_first_and_no_face_last(batch, person, yunet, judge):
    seen = []
    reference = judge.reference(person)
    found = find_likeness(batch, reference, yunet, judge, progress=lambda done, total: seen.append((done, total)))
    scores = best_per_picture(found)
    assert seen[-1] == (4, 4)
    # The independent judge sees the identity through a thumbnail, so not to the last digit.
    assert scores[1] == pytest.approx(1.0, abs=1e-5 if isinstance(judge, OwnJudge) else 1e-2)
    assert scores[0] == NO_FACE_RANKED and scores[1] == max(scores) and scores[3] < scores[1]
    assert pick_best(found, 2)[0] == 1 and pick_best(found, 4)[-1] == 0
    table = likeness_table(found, judge.name, [1])
    assert "no face found, counts as the worst" in table and "<- kept" in table.splitlines()[2]
    assert judge.name in table


def test_more_wanted_than_there_are_gives_all_and_none_is_refused(batch, person, yunet, model):
    judge = OwnJudge(model.encode_identity)
    found = find_likeness(batch[:2], judge.reference(person), yunet, judge)
    assert pick_best(found, 9) == [1, 0]
    with pytest.raises(InputError, match="at least 1"):
        pick_best(found, 0)


def test_an_identity_of_another_encoder_is_not_compared(person, model):
    other = Person(person.identity, person.shares, person.thumbnails, "a" * 64)
    with pytest.raises(InputError, match="another face encoder"):
        OwnJudge(model.encode_identity, "b" * 64).reference(other)


def test_a_pack_without_or_with_a_damaged_recogniser_says_so(tmp_path):
    with pytest.raises(ModelNotFoundError, match="no recognition model"):
        InsightFaceJudge(tmp_path)
    recognition_model(tmp_path / "w600k_r50.onnx")
    data = (tmp_path / "w600k_r50.onnx").read_bytes()
    (tmp_path / "w600k_r50.onnx").write_bytes(data[: len(data) // 2])
    with pytest.raises(CheckpointError, match="cannot be used to recognise"):
        InsightFaceJudge(tmp_path, "CPU")


def test_sface_is_opened_as_published_only(tmp_path, batch, yunet):
    """On a stand-in with SFace's interface: the published file cannot be had here."""
    sface = judge_of("sface", None, tmp_path)
    crops = find_faces(batch[[1, 3]], yunet).crops
    embedded = sface.embed(crops)
    assert torch.allclose(embedded.norm(dim=-1), torch.ones(2))
    assert embedded[0] @ embedded[1] < 0.999, "two people"
    with pytest.raises(CheckpointError, match="not the published SFace face recogniser.*was not opened"):
        SFaceJudge(sface.path)
    with pytest.raises(ModelNotFoundError, match="no file.*sface"):
        SFaceJudge(tmp_path / "nothing" / SFACE.name)
    with pytest.raises(ModelNotFoundError, match="download sface"):
        find_sface([tmp_path / "nothing"])
    assert find_sface([tmp_path.parent / "nothing", tmp_path]) == sface.path
    sface.path.write_bytes(sface.path.read_bytes()[:200])
    with pytest.raises(CheckpointError, match="cannot be used as SFace"):
        SFaceJudge(sface.path, sha256(sface.path))
