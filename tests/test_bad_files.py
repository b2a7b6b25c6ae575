"""Every way an encoder's file can be wrong ends in a message that names it."""

import io
import json
import pathlib

import pytest
import torch
from golden import TINY, tiny_weights
from safetensors.torch import load_file, save_file

from faceclip.errors import CheckpointError
from faceclip.files import state_dict
from faceclip.model.checkpoint import CONFIG_KEY, load, save
from faceclip.model.config import PUBLISHED, FaceCLIPConfig
from faceclip.sampling import unet_file

HEADER = {CONFIG_KEY: TINY.to_json()}


@pytest.fixture(scope="module")
def weights():
    return tiny_weights()


@pytest.fixture(scope="module")
def equal_faces():
    return tiny_weights(equal_faces=True)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "tiny.safetensors"
    save(tiny_weights(equal_faces=True), path, TINY)
    return path


def refused(path, *words):
    with pytest.raises(CheckpointError) as caught:
        load(path)
    for word in (pathlib.Path(path).name, *words):
        assert word in str(caught.value), f"{word!r} is not in: {caught.value}"
    return str(caught.value)


def write(path, state, header=HEADER):
    save_file({key: value.contiguous().clone() for key, value in state.items()}, path, header)
    return path


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
        (
            ["conv_in.weight", "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.weight"],
            "Load FaceCLIP Diffusion Model",
        ),
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


def test_a_gguf_file_is_refused_with_the_node_that_loads_it(tmp_path):
    path = tmp_path / "unet-Q8_0.gguf"
    path.write_bytes(b"GGUF\x03\x00\x00\x00" + bytes(64))
    refused(path, "is a GGUF file", "UnetLoaderGGUF")
    with pytest.raises(CheckpointError, match="UnetLoaderGGUF"):
        unet_file.read(path)
