"""FaceT5's file: the published key names, our own form, what it may be stored in, and identities across families."""

import hashlib
import json
import re
from dataclasses import replace

import pytest
import torch
from golden import TINY, golden_face, relative_error, tiny_weights
from golden_t5 import CLIP, TINY_T5, golden_config, manifest_shapes, tiny_t5_weights
from safetensors import safe_open
from safetensors.torch import load_file

import faceclip
from faceclip.__main__ import main
from faceclip.errors import CheckpointError, InputError
from faceclip.files import mapped
from faceclip.identity.file import load_person, save_person
from faceclip.identity.person import make_person, person_conditioning
from faceclip.model import families
from faceclip.model.checkpoint import CONFIG_KEY, build, expected_shapes, face_encoder_hash, load, save
from faceclip.model.config import PUBLISHED_T5, FaceT5Config
from faceclip.model.faceclip import FaceCLIP
from faceclip.model.facet5 import FaceT5

TEXT = ["a man in a red coat"]


@pytest.fixture(scope="module")
def weights():
    return tiny_t5_weights(with_clip=True)


@pytest.fixture(scope="module")
def own(weights, tmp_path_factory):
    path = tmp_path_factory.mktemp("own") / "facet5.safetensors"
    save(weights, path, TINY_T5)
    return path


@pytest.fixture
def tiny_is_published(monkeypatch):
    """Lets a .pt file of the tiny sizes stand for the published one."""
    tiny = replace(families.FACET5, published=TINY_T5)
    monkeypatch.setattr(families, "FAMILIES", (families.FACECLIP, tiny))


def published(weights, front="", after=""):
    """Under the published names."""
    state = {}
    for key, value in weights.items():
        part, rest = ("encoder_1", key[len("encoder_1.") :]) if key.startswith("encoder_1.") else ("encoder_2", key)
        state[f"{front}{part}.{after}{rest}"] = value
    return state


def outputs(model):
    return model.encode_prompt(TEXT, model.encode_identity(golden_face(1)[None]))


def test_the_key_sets_are_the_published_ones():
    for size in ("tiny", "wide"):
        assert expected_shapes(golden_config(size), None) == manifest_shapes(size)
    whole = expected_shapes(PUBLISHED_T5, families.PUBLISHED_CLIP)
    count = sum(torch.Size(shape).numel() for shape in whole.values())
    assert 6.2e9 < count < 6.4e9  # "about 6.3 B parameters"


@pytest.mark.parametrize("front", ["", "model.", "module.model."])
@pytest.mark.parametrize("after", ["", "model."])
def test_the_published_file(weights, tiny_is_published, tmp_path, front, after):
    state = published(weights, front, after)
    state[f"{front}encoder_1.{after}text_model.embeddings.position_ids"] = torch.arange(77)[None]
    torch.save(state, tmp_path / "face_t5_encoder.pt")
    model = faceclip.load(tmp_path / "face_t5_encoder.pt")
    assert isinstance(model, FaceT5) and model.config == TINY_T5
    kept = model.state_dict()
    for key, value in weights.items():
        assert torch.equal(kept[re.sub(r"\.in_proj_(weight|bias)$", r".in_proj.\1", key)], value), key
    assert len(kept) == len(weights)
    joint = outputs(model)
    assert joint.embeddings.shape == (1, 512, 64) and joint.pooled.shape == (1, CLIP.width)


def test_a_large_file_of_either_form_is_held_once(monkeypatch, weights, own, tiny_is_published, tmp_path):
    """Its weights stay in the file until they are used; the model keeps no copy beside it."""
    monkeypatch.setattr(mapped, "COPIED", 0)
    torch.save(published(weights), tmp_path / "face_t5_encoder.pt")
    for path in (tmp_path / "face_t5_encoder.pt", own):
        source = load(path).source
        assert source is not None and source.path == path


def test_our_own_file_names_its_sizes_and_has_no_prefix(own, weights, tmp_path):
    with safe_open(own, "pt") as file:
        metadata = file.metadata()
        assert set(file.keys()) == set(weights)
    assert json.loads(metadata[CONFIG_KEY]) == {
        "t5": {"d_model": 64, "d_kv": 16, "num_heads": 4, "num_layers": 2, "d_ff": 128},
        "face": {"width": 48, "heads": 4, "layers": 2, "embed_dim": 16},
        "fuser_layers": 6,
    }
    save(load(own), tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == own.read_bytes()


def test_every_weight_is_real_and_frozen(own):
    tensors = [*load(own).named_parameters(), *load(own).named_buffers()]
    assert tensors and not any(value.is_meta or value.requires_grad for _, value in tensors)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s.pop("t5_encoder.block.1.ff_layer.wo.weight"), "1 missing: t5_encoder.block.1.ff_layer.wo.weight"),
        (lambda s: s.update(more=torch.zeros(1)), "1 unexpected: more"),
        (lambda s: s.update({"face_patch_proj.bias": torch.zeros(3)}), r"face_patch_proj.bias \[3\] instead of \[64\]"),
        (lambda s: s.pop("encoder_1.text_model.final_layer_norm.bias"), "1 missing: encoder_1.text_model.final"),
        (lambda s: s.pop("encoder_1.text_model.embeddings.token_embedding.weight"), "unexpected: encoder_1.text_model"),
        (lambda s: s.pop("positional_embedding"), "1 missing: positional_embedding"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(weights, tiny_is_published, tmp_path, change, words):
    state = dict(weights)
    change(state)
    torch.save(published(state), tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=f"does not fit a FaceT5 encoder.*{words}"):
        load(tmp_path / "a.pt")


def test_other_sizes_without_a_config_are_refused(weights, tmp_path):
    torch.save(published(weights), tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=r"embed_tokens.weight is \[32128, 64\] where.*\[32128, 4096\]"):
        load(tmp_path / "a.pt")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c.pop("t5"), "no t5"),
        (lambda c: c.update(l={}), "unknown l"),
        (lambda c: c.update(fuser_layers=0), "fuser_layers is 0"),
        (lambda c: c["t5"].update(d_model="64"), "t5.d_model is '64'"),
        (lambda c: c["t5"].update(d_model=60), "t5.d_model 60 cannot be split over the fuser's 8 heads"),
        (lambda c: c["face"].update(heads=5), "face.width 48 cannot be split over 5 heads"),
    ],
)
def test_a_config_that_cannot_be_used_names_its_entry(change, words):
    raw = json.loads(TINY_T5.to_json())
    change(raw)
    with pytest.raises(CheckpointError, match=words):
        FaceT5Config.from_json(json.dumps(raw))


# What it may be stored in.


def test_fp16_is_refused_and_says_why(own, weights, tmp_path, capsys):
    for act in (
        lambda: load(own, dtype=torch.float16),
        lambda: save(weights, tmp_path / "a.safetensors", TINY_T5, torch.float16),
    ):
        with pytest.raises(InputError, match="cannot be kept in float16: T5's numbers go beyond fp16's largest, 65504"):
            act()
    assert main(["convert", str(own), str(tmp_path / "a.safetensors"), "--dtype", "fp16"]) != 0
    assert "65504" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_convert_writes_bf16_unless_told_otherwise(weights, tiny_is_published, tmp_path, capsys):
    source, target = tmp_path / "face_t5_encoder.pt", tmp_path / "out.safetensors"
    torch.save(published(weights), source)
    assert main(["convert", str(source), str(target)]) == 0
    out = capsys.readouterr().out
    assert "FaceT5 encoder" in out and "parameters in fp32, written as bf16; CLIP-L is in it." in out
    stored = load_file(target)
    assert {v.dtype for k, v in stored.items() if not k.endswith("num_batches_tracked")} == {torch.bfloat16}
    assert relative_error(outputs(load(target)).embeddings, outputs(load(source)).embeddings) < 0.05
    assert main(["convert", str(source), str(tmp_path / "wide.safetensors"), "--dtype", "fp32"]) == 0
    assert next(load(tmp_path / "wide.safetensors").parameters()).dtype == torch.float32


def test_a_hash_that_nobody_knows_is_told_and_nothing_claimed(weights, tiny_is_published, tmp_path, capsys):
    source = tmp_path / "face_t5_encoder.pt"
    torch.save(published(weights), source)
    assert main(["convert", str(source), str(tmp_path / "out.safetensors")]) == 0
    out, err = capsys.readouterr()
    assert f"SHA-256 {hashlib.sha256(source.read_bytes()).hexdigest()}" in out
    assert "The hash of the published face_t5_encoder.pt is not known here" in out and "WARNING" not in err


def test_fp8_takes_the_large_matrices_and_says_what_it_costs(own, tmp_path, capsys):
    bf16, fp8 = tmp_path / "bf16.safetensors", tmp_path / "fp8.safetensors"
    assert main(["convert", str(own), str(bf16)]) == 0
    assert main(["convert", str(bf16), str(fp8), "--dtype", "fp8_e4m3fn"]) == 0
    out = capsys.readouterr().out
    cost = float(re.search(r"made-up face deviate by ([0-9.]+)% from those of bf16.safetensors", out)[1]) / 100
    stored = load_file(fp8)
    narrow = {key for key, value in stored.items() if value.dtype == torch.float8_e4m3fn}
    assert {"t5_encoder.block.0.ff_layer.wo.weight", "fuser.encoder.layers.0.self_attn.in_proj_weight"} <= narrow
    assert not any("face_encoder" in key or "bias" in key or "norm" in key or "embed" in key for key in narrow)
    model, wide = load(fp8), load(bf16)
    assert face_encoder_hash(model) == face_encoder_hash(wide)  # its identities serve both
    assert 0 < relative_error(outputs(model).embeddings, outputs(wide).embeddings) < 1
    assert 0 < cost < 1
    direct = load(bf16, dtype=torch.float8_e4m3fn)
    assert torch.equal(outputs(direct).embeddings, outputs(model).embeddings)


def test_the_sibling_refuses_fp8(tmp_path):
    with pytest.raises(InputError, match="FaceCLIP encoder cannot be kept in float8_e4m3fn"):
        save(tiny_weights(), tmp_path / "a.safetensors", TINY, torch.float8_e4m3fn)


# Identities across families.


def sibling(face_weights) -> FaceCLIP:
    """A FaceCLIP whose face encoder is the one given."""
    state = {key: value for key, value in tiny_weights().items() if ".face_encoder." not in key}
    model = build({**state, **face_weights}, TINY, "sibling")
    assert isinstance(model, FaceCLIP)
    return model


@pytest.fixture(scope="module")
def pair(weights):
    same = {key: value for key, value in weights.items() if key.startswith("face_encoder.")}
    return build(dict(weights), TINY_T5, "FaceT5"), sibling(same)


@pytest.mark.parametrize("order", ["FaceT5 to FaceCLIP", "FaceCLIP to FaceT5"])
def test_an_identity_of_one_family_serves_the_other(pair, tmp_path, order):
    maker, user = pair if order.startswith("FaceT5") else pair[::-1]
    assert face_encoder_hash(maker) == face_encoder_hash(user)
    face = golden_face(5)
    person, _ = make_person(maker.encode_identity(face[None]), [face])
    path = save_person(replace(person, encoder=face_encoder_hash(maker)), tmp_path, "someone")
    loaded = load_person(path, face_encoder_hash(user))
    wanted = user.encode_prompt(TEXT, user.encode_identity(face[None]))
    assert torch.equal(person_conditioning(user, TEXT[0], loaded).embeddings, wanted.embeddings)


@pytest.mark.parametrize("order", ["FaceT5 to FaceCLIP", "FaceCLIP to FaceT5"])
def test_an_identity_of_another_face_encoder_says_why_not(weights, tmp_path, order):
    other = {k: v + 1 if k == "face_encoder.norm.bias" else v for k, v in weights.items() if "face_encoder" in k}
    pair = (build(dict(weights), TINY_T5, "FaceT5"), sibling(other))
    maker, user = pair if order.startswith("FaceT5") else pair[::-1]
    face = golden_face(5)
    person, _ = make_person(maker.encode_identity(face[None]), [face])
    path = save_person(replace(person, encoder=face_encoder_hash(maker)), tmp_path, "someone")
    with pytest.raises(InputError, match="another face encoder"):
        load_person(path, face_encoder_hash(user))
