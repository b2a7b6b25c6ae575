"""The encoder's file: round trips, and every way a file can be wrong."""

import ast
import io
import json
import os
import pathlib
import subprocess
import sys

import pytest
import torch
from golden import DATA, TINY, golden_face, golden_state_dict, relative_error
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import faceclip
from faceclip import checkpoint, state_dict
from faceclip.checkpoint import CONFIG_KEY, expected_shapes, load, read_faceclip, save
from faceclip.config import PUBLISHED, FaceCLIPConfig
from faceclip.errors import CheckpointError, InputError
from faceclip.model import FaceCLIP

PACKAGE = pathlib.Path(faceclip.__file__).parent
HEADER = {CONFIG_KEY: TINY.to_json()}
PROMPT = ["a man in a red coat"]


@pytest.fixture(scope="module")
def weights():
    """The tiny model's weights under the published names, one face encoder per branch. Never changed in place."""
    return golden_state_dict(DATA / "state_dict_tiny.tsv")


@pytest.fixture(scope="module")
def equal_faces(weights):
    """The same, with the l branch's face encoder in both branches."""
    changed = {
        key: weights[key.replace("face_clip_g.", "face_clip_l.")]
        for key in weights
        if key.startswith("face_clip_g.face_encoder.")
    }
    return {**weights, **changed}


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
    monkeypatch.setattr(checkpoint, "PUBLISHED", TINY)


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


def refused(path, *words, error=CheckpointError):
    with pytest.raises(error) as caught:
        load(path)
    for word in (pathlib.Path(path).name, *words):
        assert word in str(caught.value), f"{word!r} is not in: {caught.value}"
    return str(caught.value)


def write(path, state, header=HEADER):
    save_file({key: value.contiguous().clone() for key, value in state.items()}, path, header)
    return path


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


# ---- files without, or with a damaged, config ----


def test_a_file_without_config_that_is_not_of_the_published_sizes(weights, tmp_path):
    torch.save(weights, tmp_path / "small.pt")
    refused(tmp_path / "small.pt", CONFIG_KEY, "[77, 32]", "[77, 768]", "python -m faceclip convert", "faceclip.save")


def test_a_file_without_config_that_lacks_what_shows_its_size(weights, tmp_path):
    state = {key: value for key, value in weights.items() if "positional_embedding" not in key}
    refused(write(tmp_path / "part.safetensors", state, {}), "missing", "positional_embedding")


def config_with(part, **entries):
    raw = json.loads(TINY.to_json())
    raw[part].update(entries)
    return json.dumps({key: {k: v for k, v in value.items() if v is not None} for key, value in raw.items()})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "cannot be used"),
        ("{", "cannot be used"),
        ("[" * 100_000, "cannot be used"),
        ("null", "it is None, wanted the entries l, g, face, fuser"),
        ("[1, 2]", "it is [1, 2]"),
        ("{}", "it has no l, g, face, fuser"),
        (json.dumps({**json.loads(TINY.to_json()), "vision": {}}), "it has unknown vision"),
        (json.dumps({**json.loads(TINY.to_json()), "l": 5}), "l is 5, wanted the entries width"),
        (config_with("l", depth=3), "l has unknown depth"),
        (config_with("fuser", points=None), "fuser has no points"),
        (config_with("l", heads=5), "l.width 32 cannot be split over 5 heads"),
        (config_with("face", heads=5), "face.width 48 cannot be split over 5 heads"),
        (config_with("fuser", heads=3), "fuser.heads is 3, wanted an even number"),
        (config_with("fuser", feedforward=100), "fuser.feedforward 100 cannot be split over 8 heads"),
        (config_with("g", width=68, heads=4), "g.width 68 cannot be split over the fuser's 8 heads"),
        (config_with("face", layers=0), "face.layers is 0, wanted a whole number"),
        (config_with("face", layers="2"), "face.layers is '2'"),
        (config_with("face", layers=True), "face.layers is True"),
        (config_with("face", layers=2.5), "face.layers is 2.5"),
        (config_with("g", activation="relu"), "g.activation is 'relu', wanted quick_gelu or gelu"),
    ],
)
def test_a_config_that_cannot_be_used(text, words):
    with pytest.raises(CheckpointError) as error:
        FaceCLIPConfig.from_json(text)
    assert words in str(error.value)
    assert "python -m faceclip convert" in str(error.value)


def test_a_damaged_config_in_a_file(saved, tmp_path):
    path = write(tmp_path / "a.safetensors", load_file(saved), {CONFIG_KEY: "{not json"})
    with pytest.raises(CheckpointError, match="faceclip_config cannot be used"):
        load(path)


def test_a_config_of_other_sizes(saved, tmp_path):
    header = {CONFIG_KEY: config_with("face", embed_dim=8)}
    refused(write(tmp_path / "a.safetensors", load_file(saved), header), "of the wrong shape", "[32, 16]", "[32, 8]")


def test_published_config_round_trip():
    assert FaceCLIPConfig.from_json(PUBLISHED.to_json()) == PUBLISHED


# ---- keys, shapes, values ----


def test_missing_extra_and_misshaped_keys_are_named_with_their_counts(saved, tmp_path):
    state = load_file(saved)
    gone = [key for key in state if key.startswith("face_clip_l.fuser.encoder.layers.0.")]
    for key in gone:
        del state[key]
    state["face_clip_l.adapter.weight"] = torch.zeros(1)
    state["face_clip_g.proj1.bias"] = torch.zeros(3)
    message = refused(
        write(tmp_path / "a.safetensors", state),
        f"{len(gone)} missing: face_clip_l.fuser.encoder.layers.0.",
        f"({len(gone)} in all)",
        "1 unexpected: face_clip_l.adapter.weight",
        "1 of the wrong shape: face_clip_g.proj1.bias [3] instead of [64]",
        "Nothing was loaded",
    )
    assert message.count("layers.0.") == 4  # the first few


def test_one_branch_alone(weights, tmp_path):
    state = {key: value for key, value in weights.items() if key.startswith("face_clip_l.")}
    refused(write(tmp_path / "l.safetensors", state), "missing: face_clip_g.")


def test_a_shared_and_an_own_face_encoder_together(saved, equal_faces, tmp_path):
    state = {**load_file(saved), **equal_faces}
    refused(write(tmp_path / "a.safetensors", state), "unexpected: face_clip_")


def test_a_weight_that_is_there_with_and_without_prefix(saved, tmp_path):
    state = load_file(saved)
    state["model.face_clip_l.proj1.bias"] = state["face_clip_l.proj1.bias"]
    refused(write(tmp_path / "a.safetensors", state), "1 weights twice")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_nan_and_infinity_are_named(saved, tmp_path, value, dtype):
    state = load_file(saved)
    for key in ("face_clip_g.fuser.encoder.layers.1.linear1.weight", "face_encoder.norm.bias"):
        state[key] = state[key].to(dtype)
        state[key].view(-1)[-1] = value
    message = refused(write(tmp_path / "a.safetensors", state), "NaN or infinite values in 2 weights")
    assert "face_clip_g.fuser.encoder.layers.1.linear1.weight" in message and "face_encoder.norm.bias" in message


def test_large_but_finite_weights_are_no_infinity():
    state_dict.check_finite({"a": torch.full((4,), 3e38)}, "a.safetensors")  # their sum is infinite


@pytest.mark.parametrize("dtype", [torch.int8, torch.complex64, torch.bool])
def test_weights_that_are_no_floating_point_numbers(saved, tmp_path, dtype):
    state = load_file(saved)
    state["face_clip_l.proj1.bias"] = state["face_clip_l.proj1.bias"].to(dtype)
    path = tmp_path / "a.safetensors"
    refused(write(path, state), "1 weights", str(dtype).removeprefix("torch."), "face_clip_l.proj1.bias")


# ---- unsafe, damaged, of another kind ----


class Evil:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return open, (self.marker, "w")


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_file_is_refused_and_not_run(weights, tmp_path, zipped):
    marker = tmp_path / "was run"
    path = tmp_path / "evil.pt"
    state = {**weights, "extra": Evil(str(marker))}
    torch.save(state, path, _use_new_zipfile_serialization=zipped)
    refused(path, "refused", "run code", "torch.save(model.state_dict()", ".safetensors")
    assert not marker.exists()
    torch.load(path, weights_only=False)  # the file is as evil as it is meant to be
    assert marker.exists()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:.*TorchScript")
def test_a_pickled_module_and_torchscript_are_refused(tmp_path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "module.pt")
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / "script.pt")
    for name in ("module.pt", "script.pt"):
        refused(tmp_path / name, "pickled Python objects", "torch.save(model.state_dict()")


def torch_bytes(state, **options):
    buffer = io.BytesIO()
    torch.save(state, buffer, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("share", [0.02, 0.5, 0.999])
@pytest.mark.parametrize("kind", ["safetensors", "zip.pt", "old.pt"])
def test_truncated_files(saved, tmp_path, kind, share):
    small = {f"face_clip_l.{i}": torch.randn(20, 20) for i in range(20)}
    data = {
        "safetensors": saved.read_bytes,
        "zip.pt": lambda: torch_bytes(small),
        "old.pt": lambda: torch_bytes(small, _use_new_zipfile_serialization=False),
    }[kind]()
    path = tmp_path / f"cut.{kind}"
    path.write_bytes(data[: int(len(data) * share)])
    message = refused(path, "truncated", "download it again", f"{path.stat().st_size:,} bytes")
    assert "weights_only" not in message  # torch's advice to load it unsafely


@pytest.mark.parametrize("name", ["a.pt", "a.safetensors"])
@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"PK",
        b"hello, this is no model\n" * 10,
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
        b"<!DOCTYPE html><html></html>",
        b"\x89PNG\r\n\x1a\n" + bytes(200),
        b"\x80\x02" + bytes(range(256)),
        b"\x80\x04\x95" + bytes(60),
        b"\x10\x00\x00\x00\x00\x00\x00\x00{'not json': 1}  ",
        b"\xff" * 8 + b"{" + bytes(100),
    ],
    ids=["empty", "PK", "text", "link", "page", "png", "pickle 2", "pickle 4", "no json", "huge header"],
)
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_files_of_another_kind(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    message = refused(tmp_path / name, "download it again")
    assert "run code" not in message and "weights_only" not in message


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (torch.ones(3), "holds a Tensor, wanted a state dict"),
        ([torch.ones(3)], "holds a list"),
        ({"epoch": 3}, "no weights: none of its 1 entries"),
        ({0: torch.ones(3)}, "no weights"),
        ({}, "no weights"),
    ],
)
def test_pt_files_that_hold_no_state_dict(tmp_path, content, words):
    torch.save(content, tmp_path / "a.pt")
    refused(tmp_path / "a.pt", words)


def test_a_state_dict_that_holds_itself(tmp_path):
    state = {"epoch": 1}
    state["state_dict"] = state
    torch.save(state, tmp_path / "a.pt")
    refused(tmp_path / "a.pt", "no weights")


def test_missing_file_and_folder(tmp_path):
    refused(tmp_path / "nothing.safetensors", "There is no file")
    refused(tmp_path, "is a folder")


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        (["lora_unet_down_blocks_0.lora_up.weight", "lora_unet_down_blocks_0.alpha"], "a LoRA"),
        (["down_blocks.0.attentions.0.lora_A.weight"], "a LoRA"),
        (["conv_in.weight", "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.weight"], "Load FaceCLIP-SDXL"),
        (["model.diffusion_model.input_blocks.0.0.weight", "conditioner.embedders.0.a"], "a whole SDXL checkpoint"),
        (["diffusion_model.input_blocks.0.0.weight"], "an SDXL UNet in the original"),
        (["encoder.down.0.block.0.conv1.weight", "quant_conv.weight"], "a VAE"),
        (["decoder.conv_in.weight", "decoder.mid_block.a"], "a VAE"),
        (["decoder.1.weight", "encoder.0.weight"], "a VAE"),
        (["text_model.embeddings.position_embedding.weight"], "a CLIP model"),
        (["double_blocks.0.img_attn.proj.weight"], "a diffusion transformer"),
        (["ip_adapter.1.to_k_ip.weight", "image_proj.latents"], "an IP-Adapter"),
        (["control_model.input_blocks.0.weight"], "a ControlNet"),
        (["something.else", "b", "c", "d", "e"], "something.else, b, c, d, ... (5 in all)"),
    ],
)
def test_other_models_are_named_in_plain_words(tmp_path, keys, words):
    torch.save({key: torch.zeros(1) for key in keys}, tmp_path / "other.pt")
    refused(tmp_path / "other.pt", "is not a FaceCLIP encoder", words, "Choose the right file")


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
    monkeypatch.setattr(state_dict, "open", lambda *_: open("/dev/full", "wb"), raising=False)
    with pytest.raises(CheckpointError, match="No space left on device.*Nothing was left behind"):
        save_only(saved, tmp_path / "a.safetensors")
    assert not list(tmp_path.iterdir())


def save_only(source, target):
    state_dict.write_safetensors(load_file(source), target, {})


def test_a_disk_without_room_is_told_before_writing(saved, tmp_path, monkeypatch):
    usage = state_dict.shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(state_dict.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(CheckpointError, match="needs 0.0. GB, and 0.00 GB are free"):
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


# ---- the package ----


def test_importing_the_package_is_cheap():
    code = "import faceclip, sys; print(*{name.split('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], cwd=PACKAGE.parent, capture_output=True, text=True, check=True)
    heavy = {"torch", "numpy", "safetensors", "open_clip", "cv2", "insightface", "onnxruntime", "PIL", "requests"}
    assert not heavy & set(done.stdout.split())
    assert "load" in dir(faceclip) and faceclip.FaceCLIP is FaceCLIP
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        faceclip.nothing  # noqa: B018


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_the_library_imports_neither_the_host_nor_the_nodes(path):
    depth = len(path.relative_to(PACKAGE).parts)
    forbidden = {"comfy", "comfy_api", "comfy_extras", "folder_paths", "nodes", "server", "execution", "node_helpers"}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level <= depth, f"{path}:{node.lineno} reaches out of the library"
            names = [node.module] if node.level == 0 else []
        else:
            continue
        assert not {name.split(".")[0] for name in names} & forbidden, f"{path}:{node.lineno}"
