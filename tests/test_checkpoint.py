"""The encoder's file: round trips, progress, and writing. What can be wrong with one: test_bad_files.py."""

import json
import os
from dataclasses import replace

import pytest
import torch
from golden import DATA, TINY, golden_face, relative_error, tiny_weights
from safetensors import safe_open
from safetensors.torch import load_file

import faceclip
from faceclip.errors import CheckpointError, InputError
from faceclip.files import state_dict, whole
from faceclip.model import checkpoint, families
from faceclip.model.checkpoint import CONFIG_KEY, expected_shapes, load, read_faceclip, save
from faceclip.model.config import PUBLISHED, FaceCLIPConfig

PROMPT = ["a man in a red coat"]


@pytest.fixture(scope="module")
def weights():
    return tiny_weights()


@pytest.fixture(scope="module")
def equal_faces():
    return tiny_weights(equal_faces=True)


@pytest.fixture(scope="module")
def saved(equal_faces, tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "tiny.safetensors"
    save(equal_faces, path, TINY)
    return path


@pytest.fixture(scope="module")
def wanted(saved):
    return load(saved)


@pytest.fixture
def tiny_is_published(monkeypatch):
    """Lets a .pt file of the tiny sizes stand for the published one."""
    monkeypatch.setattr(families, "FAMILIES", (replace(families.FACECLIP, published=TINY), families.FACET5))


def outputs(model):
    return model.encode_prompt(PROMPT, model.encode_identity(golden_face(1)[None]))


def assert_same(model, wanted_model):
    """Equal weights, bit by bit; equal outputs but for rounding, which depends on where in memory the weights lie."""
    weights, wanted = model.state_dict(), wanted_model.state_dict()
    assert weights.keys() == wanted.keys()
    for key, value in wanted.items():
        assert weights[key].dtype == value.dtype and torch.equal(weights[key], value), key
    joint, wanted = outputs(model), outputs(wanted_model)
    assert relative_error(joint.embeddings, wanted.embeddings) < 1e-6
    assert relative_error(joint.pooled, wanted.pooled) < 1e-6


# ---- round trips ----


def test_equal_face_encoders_are_stored_once(saved, equal_faces):
    stored = load_file(saved)
    assert set(stored) == set(expected_shapes(TINY, True))
    assert not any(".face_encoder." in key for key in stored)
    for key, value in stored.items():
        source = f"face_clip_l.{key}" if key.startswith("face_encoder.") else key
        assert torch.equal(value, equal_faces[source]), key
    with safe_open(saved, "pt") as file:
        assert FaceCLIPConfig.from_json(file.metadata()[CONFIG_KEY]) == TINY
    model = load(saved)
    assert model.shared_face_encoder and model.config == TINY


def test_unequal_face_encoders_are_kept_twice(weights, wanted, tmp_path):
    path = tmp_path / "two.safetensors"
    save(weights, path, TINY)
    assert set(load_file(path)) == set(weights) == set(expected_shapes(TINY, False))
    model = load(path)
    assert not model.shared_face_encoder
    identity, shared = (m.encode_identity(golden_face(1)[None]) for m in (model, wanted))
    assert shared.l is shared.g and identity.l is not identity.g
    assert relative_error(identity.l.class_token, shared.l.class_token) < 1e-6
    assert relative_error(identity.g.class_token, shared.g.class_token) > 0.1
    split = TINY.l.width  # the l branch is the same in both files, the g branch is not
    both, once = outputs(model).embeddings, outputs(wanted).embeddings
    assert relative_error(both[..., :split], once[..., :split]) < 1e-6
    assert relative_error(both[..., split:], once[..., split:]) > 0.01


@pytest.mark.parametrize("changed", ["one value", "dtype"])
def test_face_encoders_that_nearly_agree_are_not_shared(equal_faces, changed):
    key = "face_clip_g.face_encoder.norm.weight"
    value = equal_faces[key].clone()
    if changed == "one value":
        value[0] += 1e-6
    else:
        value = value.double()
    assert checkpoint.share_face_encoder({**equal_faces, key: value}).keys() == equal_faces.keys()


@pytest.mark.parametrize("front", ["", "model.", "module.", "module.model."])
@pytest.mark.parametrize("after", ["", "model.", "module."])
def test_prefixes_of_the_published_file(equal_faces, wanted, tiny_is_published, tmp_path, front, after):
    state = {}
    for key, value in equal_faces.items():
        branch, rest = key.split(".", 1)
        state[f"{front}{branch}.{after}{rest}"] = value
    torch.save(state, tmp_path / "encoder.pt")
    assert_same(load(tmp_path / "encoder.pt"), wanted)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"state_dict": state},
        lambda state: {"epoch": 3, "model": {"module": state}},
        lambda state: {"state_dict": {f"model.{key}": value for key, value in state.items()}, "step": 1},
        lambda state: {**state, "epoch": 3},
    ],
    ids=["state_dict", "twice", "with prefix", "with a number beside"],
)
def test_wrapped_state_dicts(equal_faces, wanted, tiny_is_published, tmp_path, wrap):
    torch.save(wrap(equal_faces), tmp_path / "encoder.pt")
    assert_same(load(tmp_path / "encoder.pt"), wanted)


def test_the_old_torch_format_and_a_wrong_ending(equal_faces, wanted, saved, tiny_is_published, tmp_path):
    old, renamed, other = tmp_path / "old.pt", tmp_path / "renamed.pt", tmp_path / "pickle.safetensors"
    torch.save(equal_faces, old, _use_new_zipfile_serialization=False)
    renamed.write_bytes(saved.read_bytes())
    torch.save(equal_faces, other)
    for path in (old, renamed, other):
        assert_same(load(path), wanted)


def test_a_loaded_model_saves_the_same_file(saved, tmp_path):
    path = tmp_path / "again.safetensors"
    faceclip.save(faceclip.load(saved), path)
    assert path.read_bytes() == saved.read_bytes()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_dtype_when_saving_and_when_loading_agree(saved, equal_faces, tmp_path, dtype):
    path = tmp_path / "small.safetensors"
    save(equal_faces, path, TINY, dtype=dtype)
    stored = load_file(path)
    assert {value.dtype for key, value in stored.items() if not key.endswith("num_batches_tracked")} == {dtype}
    assert_same(load(path), load(saved, dtype=dtype))
    assert next(load(path).parameters()).dtype == dtype
    assert next(load(path, dtype=torch.float32).parameters()).dtype == torch.float32


def test_our_writer_agrees_with_safetensors(tmp_path):
    state = {
        "half": torch.randn(3, 5).half(),
        "brain": torch.randn(7).bfloat16(),
        "float": torch.randn(2, 3, 4).transpose(0, 2),
        "double": torch.randn(3).double(),
        "count": torch.tensor(7),
        "none": torch.zeros(0, 4),
        "Größe": torch.randn(1),
        "eight": torch.randn(5).to(torch.float8_e4m3fn),
    }
    path = tmp_path / "a.safetensors"
    state_dict.write_safetensors(state, path, {"a": "b"})
    read = load_file(path)
    assert read.keys() == state.keys()
    for key, value in state.items():
        assert read[key].dtype == value.dtype and torch.equal(read[key].double(), value.double()), key
    with safe_open(path, "pt") as file:
        assert file.metadata() == {"format": "pt", "a": "b"}


def test_every_weight_is_real_and_frozen_after_loading(saved):
    model = load(saved)
    tensors = [*model.named_parameters(), *model.named_buffers()]
    assert tensors and not [name for name, value in tensors if value.is_meta]
    assert not any(value.requires_grad for _, value in tensors)
    assert not any(module.training for module in model.modules())


def test_the_published_key_set_without_its_weights():
    with open(DATA / "state_dict_full.tsv") as lines:
        manifest = {key: tuple(json.loads(shape)) for key, shape, *_ in (line.strip().split("\t") for line in lines)}
    assert expected_shapes(PUBLISHED, False) == manifest
    once = expected_shapes(PUBLISHED, True)
    assert len(once) < len(manifest)
    assert {k: v for k, v in once.items() if not k.startswith("face_encoder.")}.items() <= manifest.items()


# ---- progress and cancel ----


@pytest.mark.parametrize("ending", ["pt", "safetensors"])
def test_progress_is_told_for_every_weight(saved, equal_faces, tiny_is_published, tmp_path, ending):
    path, seen = saved, []
    if ending == "pt":
        path = tmp_path / "encoder.pt"
        torch.save(equal_faces, path)
    load(path, progress=lambda done, total: seen.append((done, total)))
    count = len(load_file(saved))
    assert seen == [(i + 1, count) for i in range(count)]


class Cancelled(Exception):
    pass


@pytest.mark.parametrize("kind", [Cancelled, KeyboardInterrupt, RuntimeError, ValueError])
def test_cancel_is_let_through(saved, tmp_path, kind):
    def cancel(done, total):
        if done == 5:
            raise kind("stop")

    with pytest.raises(kind, match="stop"):
        load(saved, progress=cancel)
    with pytest.raises(kind, match="stop"):
        state_dict.read_state_dict(saved, cancel)
    with pytest.raises(kind, match="stop"):
        save(load(saved), tmp_path / "new.safetensors", progress=cancel)
    assert not list(tmp_path.iterdir())


# ---- writing ----


def test_save_refuses_to_overwrite(saved, tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_text("mine")
    model = load(saved)
    with pytest.raises(CheckpointError, match="exists already.*--force"):
        save(model, path)
    assert path.read_text() == "mine"
    save(model, path, force=True)
    assert path.read_bytes() == saved.read_bytes()
    assert list(tmp_path.iterdir()) == [path]


def test_save_wants_a_config_and_weights_that_fit_it(weights, tmp_path):
    with pytest.raises(InputError, match="config="):
        save(weights, tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match="does not fit its config"):
        save({**weights, "extra": torch.zeros(1)}, tmp_path / "a.safetensors", TINY)
    assert not list(tmp_path.iterdir())


def test_a_failure_at_the_last_moment_leaves_nothing(saved, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    path = tmp_path / "a.safetensors"
    path.write_text("mine")
    with pytest.raises(CheckpointError) as error:
        save(load(saved), path, force=True)
    assert "a.safetensors cannot be written: No space left on device" in str(error.value)
    assert path.read_text() == "mine" and list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_a_disk_that_fills_up(saved, tmp_path, monkeypatch):
    monkeypatch.setattr(whole, "open", lambda *_: open("/dev/full", "wb"), raising=False)
    with pytest.raises(CheckpointError, match="No space left on device.*Nothing was left behind"):
        save_only(saved, tmp_path / "a.safetensors")
    assert not list(tmp_path.iterdir())


def save_only(source, target):
    state_dict.write_safetensors(load_file(source), target, {})


def test_a_disk_without_room_is_told_before_writing(saved, tmp_path, monkeypatch):
    usage = state_dict.shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(state_dict.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(CheckpointError, match=r"needs [\d,]{7,} bytes, and 1,000 are free"):
        save_only(saved, tmp_path / "a.safetensors")
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written(saved, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot be written"):
        save_only(saved, tmp_path / "file" / "a.safetensors")
    with pytest.raises(CheckpointError, match="cannot be written"):
        save_only(saved, tmp_path / ("a" * 300 + ".safetensors"))


def test_weights_too_large_for_half_precision(saved, tmp_path):
    state = load_file(saved)
    state["face_clip_l.proj1.bias"][0] = 1e5
    with pytest.raises(CheckpointError, match="1 weights are too large for float16.*face_clip_l.proj1.bias"):
        save(state, tmp_path / "a.safetensors", TINY, dtype=torch.float16)
    assert not list(tmp_path.iterdir())
    save(state, tmp_path / "a.safetensors", TINY, dtype=torch.bfloat16)
    read_faceclip(tmp_path / "a.safetensors")
