"""Saved identities come back whole, and nothing else is taken for one."""

import multiprocessing
import os

import pytest
import torch
from golden import golden_face, golden_model
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from faceclip import CheckpointError, InputError
from faceclip.identity.file import check_encoder, check_name, load_person, save_person
from faceclip.identity.person import make_person, person_conditioning
from faceclip.model.checkpoint import face_encoder_hash


@pytest.fixture(scope="module")
def model():
    return golden_model("tiny")


@pytest.fixture(scope="module")
def person(model):
    crops = [golden_face(1), golden_face(2)]
    made, _ = make_person(model.encode_identity(torch.stack(crops)), crops, [2, 1], min_similarity=-1.0)
    return made.__class__(made.identity, made.shares, made.thumbnails, face_encoder_hash(model), "")


def test_a_saved_identity_conditions_exactly_as_before(model, person, tmp_path):
    path = save_person(person, tmp_path, "Zoë K")
    loaded = load_person(path, face_encoder_hash(model))
    assert (path.name, loaded.name, loaded.shares) == ("Zoë K.safetensors", "Zoë K", person.shares)
    before, after = (person_conditioning(model, "a chef", one) for one in (person, loaded))
    assert torch.equal(before.embeddings, after.embeddings) and torch.equal(before.pooled, after.pooled)
    assert torch.equal(loaded.thumbnails, person.thumbnails)


def test_the_file_says_what_made_it(person, tmp_path):
    with safe_open(save_person(person, tmp_path, "a"), "pt") as file:
        metadata = file.metadata()
    assert metadata["encoder"] == person.encoder and len(person.encoder) == 64
    assert (metadata["references"], metadata["version"]) == ("2", "1")
    assert metadata["created_by"].startswith("ComfyUI-FaceCLIP ")


def test_two_face_encoders_are_kept_apart(tmp_path, model, person):
    two = person.identity.__class__(person.identity.l, person.identity.l.__class__(*_doubled(person)))
    path = save_person(person.__class__(two, person.shares, person.thumbnails, "x"), tmp_path, "two")
    loaded = load_person(path)
    assert torch.equal(loaded.identity.g.class_token, 2 * loaded.identity.l.class_token)


def _doubled(person):
    return 2 * person.identity.l.class_token, person.identity.l.patch_tokens


def test_an_existing_name_gets_a_counter_or_is_replaced(person, tmp_path):
    names = [save_person(person, tmp_path, "a").name for _ in range(3)]
    assert names == ["a.safetensors", "a (2).safetensors", "a (3).safetensors"]
    assert save_person(person, tmp_path, "a", "replace").name == "a.safetensors"
    assert len(os.listdir(tmp_path)) == 3
    with pytest.raises(InputError, match="existing"):
        save_person(person, tmp_path, "a", "delete")


def test_a_failed_write_leaves_the_old_file_and_no_half_one(person, tmp_path, monkeypatch):
    before = save_person(person, tmp_path, "a").read_bytes()
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises((CheckpointError, OSError)):
        save_person(person, tmp_path, "a", "replace")
    monkeypatch.undo()
    assert [(p.name, p.read_bytes() == before) for p in tmp_path.iterdir()] == [("a.safetensors", True)]


@pytest.mark.parametrize(
    "name",
    ["", " ", ".", "..", "../a", "a/b", "a\\b", "/etc/passwd", "C:\\a", "C:a", "a\0b", "a\nb", ".hidden", "a.", "CON",
     "nul", "com1.txt", "LPT9", "a" * 101, "a\uff0fb", "\uff0e\uff0e", "\u2025", "a\u2215b", "a\u2044b", "a\u29f8b",
     "a:b", "a*b", "a?b", "a|b", "\u202eabc", None, 3,
     # Fullwidth CON, COM with a superscript 1, a one dot leader twice, set minus, a small reverse solidus; signs that
     # show nothing; more bytes than a file system takes.
     "\uff23\uff2f\uff2e", "com\u00b9", "\u2024\u2024", "a\u2216b", "a\ufe68b", "a\u200bb", "\u3164",
     "a\ufe0f", "\u0301a", "\u674e" * 80],
)  # fmt: skip
def test_names_that_could_leave_the_folder_are_refused(name):
    with pytest.raises(InputError, match="name"):
        check_name(name)


@pytest.mark.parametrize("name", ["Ann", "Ann-Marie O'Neil (2)", "Zoë", "李雷", "राहुल", "สมชาย", "a.b", "v1.2_final+x"])
def test_ordinary_names_are_kept(name):
    assert check_name(name) == name
    assert check_name(name + ".safetensors") == name


def test_another_encoder_refuses_it_in_words(person, tmp_path):
    path = save_person(person, tmp_path, "a")
    with pytest.raises(InputError, match="another face encoder"):
        load_person(path, "0" * 64)
    check_encoder(person, None, "a")


def test_the_hash_tells_encoders_apart_and_not_storage(model):
    assert face_encoder_hash(model) == face_encoder_hash(golden_model("tiny"))
    assert face_encoder_hash(model) != face_encoder_hash(golden_model("tiny", dtype=torch.bfloat16))
    stored, widened = golden_model("tiny", dtype=torch.bfloat16), golden_model("tiny", dtype=torch.bfloat16).float()
    assert face_encoder_hash(stored) == face_encoder_hash(widened)


def rewrite(path, change_state=lambda s: s, change_metadata=lambda m: m):
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    save_file(change_state(load_file(path)), path, change_metadata(dict(metadata)))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"change_metadata": lambda m: {**m, "kind": "other"}}, "no saved identity"),
        ({"change_metadata": lambda m: {**m, "version": "2"}}, "format version 2"),
        ({"change_metadata": lambda m: {**m, "shares": "[0.5]"}}, "damaged"),
        ({"change_metadata": lambda m: {**m, "shares": "what"}}, "damaged"),
        ({"change_metadata": lambda m: {k: v for k, v in m.items() if k != "encoder"}}, "damaged"),
        ({"change_state": lambda s: {k: v for k, v in s.items() if k != "l.class_token"}}, "damaged"),
        ({"change_state": lambda s: {**s, "l.class_token": s["l.class_token"] * float("nan")}}, "damaged"),
        ({"change_state": lambda s: {**s, "l.patch_tokens": s["l.patch_tokens"][:1].clone()}}, "damaged"),
        ({"change_state": lambda s: {**s, "thumbnails": s["thumbnails"].float()}}, "damaged"),
    ],
)
def test_damaged_files_say_what_is_wrong(person, tmp_path, change, words):
    path = save_person(person, tmp_path, "a")
    rewrite(path, **change)
    with pytest.raises(CheckpointError, match=words):
        load_person(path)


def test_truncated_files_and_other_models_are_refused(person, tmp_path):
    path = save_person(person, tmp_path, "a")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="not a whole safetensors"):
        load_person(path)
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match="no saved identity"):
        load_person(path)


RACES = 100


def _save_again_and_again(person, folder, start, pid):
    os.getpid = lambda: pid  # as in two containers, whose processes have numbers of their own
    for race in range(RACES):
        start.wait(60)
        save_person(person, folder, f"person {race}")


@pytest.mark.skipif(os.name == "nt", reason="it forks")
def test_a_hundred_races_of_two_containers_lose_no_save(person, tmp_path):
    context = multiprocessing.get_context("fork")
    start = context.Barrier(2)
    savers = [context.Process(target=_save_again_and_again, args=(person, tmp_path, start, 1)) for _ in range(2)]
    for saver in savers:
        saver.start()
    for saver in savers:
        saver.join(300)
    assert [saver.exitcode for saver in savers] == [0, 0]
    wanted = {f"person {race}{more}.safetensors" for race in range(RACES) for more in ("", " (2)")}
    assert {path.name for path in tmp_path.iterdir()} == wanted  # nothing lost, and nothing left over
    for path in tmp_path.iterdir():
        assert len(load_person(path)) == len(person)
