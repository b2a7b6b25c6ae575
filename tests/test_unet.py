"""The UNet's file: its exact key set, its metadata, and every way it can be wrong."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from faceclip.errors import CheckpointError
from faceclip.sampling import unet_file
from faceclip.sampling.unet_config import METADATA_KEY, SDXL, UNetConfig, expected_shapes

SMALL = UNetConfig(
    in_channels=4,
    out_channels=4,
    down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
    block_out_channels=(32, 64),
    layers_per_block=1,
    transformer_layers_per_block=(1, 1),
    attention_head_dim=(1, 1),
    cross_attention_dim=24,
    addition_time_embed_dim=256,
    projection_class_embeddings_input_dim=16 + 6 * 256,
)


def small_state() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {key: torch.randn(shape, generator=generator) for key, shape in expected_shapes(SMALL).items()}


@pytest.fixture
def saved(tmp_path) -> Path:
    path = tmp_path / "unet.safetensors"
    unet_file.save(small_state(), SMALL, path)
    return path


def refused(path, *words: str) -> str:
    with pytest.raises(CheckpointError) as error:
        unet_file.read(path)
    message = str(error.value)
    for word in words:
        assert word in message, f"{word!r} is not in: {message}"
    return message


# ---- the key set and the config ----


def test_published_key_set():
    lines = (Path(__file__).parent / "data" / "unet_sdxl_state_dict.tsv").read_text().splitlines()
    golden = {key: tuple(json.loads(shape)) for key, shape in (line.split("\t") for line in lines)}
    assert len(golden) == 1680
    assert expected_shapes(SDXL) == golden


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"layers_per_block": 3},
        {"block_out_channels": (64, 64), "down_block_types": ("CrossAttnDownBlock2D",) * 2},
        {"transformer_layers_per_block": (1, 3), "down_block_types": ("DownBlock2D",) * 2},
        {"block_out_channels": (32, 96, 128), "down_block_types": ("DownBlock2D",) * 2 + ("CrossAttnDownBlock2D",)},
    ],
)
def test_key_set_is_that_of_diffusers(changes):
    diffusers = pytest.importorskip("diffusers", reason="diffusers is the reference here")
    widths = changes.get("block_out_channels", SMALL.block_out_channels)
    per_level = {
        "transformer_layers_per_block": (1,) * len(widths),
        "attention_head_dim": tuple(w // 64 or 1 for w in widths),
    }
    config = dataclasses.replace(SMALL, **{**per_level, **changes})
    model = diffusers.UNet2DConditionModel.from_config(json.loads(config.to_json()))
    assert expected_shapes(config) == {key: tuple(value.shape) for key, value in model.state_dict().items()}


def test_config_round_trip_and_through_diffusers():
    assert UNetConfig.from_json(SMALL.to_json()) == SMALL
    diffusers = pytest.importorskip("diffusers", reason="diffusers is the reference here")
    model = diffusers.UNet2DConditionModel.from_config(json.loads(SMALL.to_json()))
    assert UNetConfig.from_json(model.to_json_string()) == SMALL
    assert SMALL.pooled_width == 16


@pytest.mark.parametrize(
    ("entry", "value", "words"),
    [
        ("use_linear_projection", False, "use_linear_projection is False, wanted True"),
        ("addition_embed_type", None, "addition_embed_type is None"),
        ("act_fn", "gelu", "act_fn is 'gelu', wanted 'silu'"),
        ("down_block_types", ["AttnDownBlock2D"], "down_block_types is"),
        ("up_block_types", ["UpBlock2D", "UpBlock2D"], "mirror image"),
        ("block_out_channels", [32, 100], r"block_out_channels\[1\] is 100, wanted a multiple of 32"),
        ("block_out_channels", [32, 64, 128], "block_out_channels is .* wanted 2 whole numbers"),
        ("attention_head_dim", 8, "wanted heads 64 wide"),
        ("layers_per_block", [1, 2], "same number on every level"),
        ("cross_attention_dim", "24", "cross_attention_dim is '24', wanted 1 whole number above 0"),
        ("addition_time_embed_dim", 128, "addition_time_embed_dim is 128, wanted 256"),
        ("projection_class_embeddings_input_dim", 1536, "more than 6 x 256"),
        ("in_channels", None, "in_channels is None"),
        ("prediction_type", "sample", "prediction_type is 'sample', wanted 'epsilon' or 'v_prediction'"),
        ("rescale_betas_zero_snr", True, "rescale_betas_zero_snr is True, wanted False"),
    ],
)
def test_config_that_is_not_sdxl_shaped(entry, value, words):
    raw = json.loads(SMALL.to_json())
    raw[entry] = value
    with pytest.raises(CheckpointError, match=words):
        UNetConfig.from_json(json.dumps(raw))


def test_what_it_predicts_is_kept_in_the_file(tmp_path):
    assert UNetConfig.from_json(SMALL.to_json()).prediction_type == "epsilon"
    config, path = dataclasses.replace(SMALL, prediction_type="v_prediction"), tmp_path / "v.safetensors"
    unet_file.save(small_state(), config, path)
    assert unet_file.read(path)[1] == config


@pytest.mark.parametrize("text", ["", "[]", "{", "null"])
def test_config_that_is_no_config(text):
    with pytest.raises(CheckpointError, match="unet_config cannot be used"):
        UNetConfig.from_json(text)


# ---- reading ----


def test_save_and_read(saved):
    state, config = unet_file.read(saved)
    assert config == SMALL
    for key, value in small_state().items():
        assert torch.equal(state[key], value)


@pytest.mark.parametrize("prefix", ["model.diffusion_model.", "model.", "unet.", "module.", "module.unet."])
def test_prefix_that_every_key_carries_is_taken_off(tmp_path, prefix):
    path = tmp_path / "unet.safetensors"
    state = {prefix + key: value for key, value in small_state().items()}
    save_file(state, path, {METADATA_KEY: SMALL.to_json()})
    assert set(unet_file.read(path)[0]) == set(small_state())


def test_prefix_that_some_keys_lack_stays(tmp_path):
    path = tmp_path / "unet.safetensors"
    state = {"unet." + key if "up_blocks" in key else key: value for key, value in small_state().items()}
    save_file(state, path, {METADATA_KEY: SMALL.to_json()})
    refused(path, "missing: up_blocks.0", "unexpected: unet.up_blocks.0")


def change(saved, edit) -> Path:
    state = small_state()
    edit(state)
    save_file(state, saved, {METADATA_KEY: SMALL.to_json()})
    return saved


def test_missing_key(saved):
    refused(change(saved, lambda state: state.pop("conv_out.bias")), "1 missing: conv_out.bias", "unet.safetensors")


def test_extra_key(saved):
    refused(change(saved, lambda state: state.update(extra=torch.zeros(1))), "1 unexpected: extra")


def test_mis_shaped_key(saved):
    path = change(saved, lambda state: state.update({"conv_in.weight": torch.zeros(64, 4, 3, 3)}))
    refused(path, "conv_in.weight [64, 4, 3, 3] instead of [32, 4, 3, 3]")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weight_that_is_not_finite(saved, value):
    path = change(saved, lambda state: state["conv_in.bias"].__setitem__(3, value))
    refused(path, "NaN", "conv_in.bias")


def test_truncated_file(saved):
    saved.write_bytes(saved.read_bytes()[:-1000])
    refused(saved, "unet.safetensors", "truncated")


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", bytes(5000)])
@pytest.mark.parametrize("name", ["a.safetensors", "a.pt", "a.bin"])
def test_file_that_is_no_checkpoint(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    refused(path, name)


def test_missing_file(tmp_path):
    refused(tmp_path / "nothing.pt", "There is no file")


def test_pickled_module(tmp_path):
    path = tmp_path / "unet.pt"
    torch.save(torch.nn.Linear(2, 2), path)
    refused(path, "refused", "state dict")


def test_small_unet_without_config(tmp_path):
    path = tmp_path / "unet.pt"
    torch.save(small_state(), path)
    refused(path, "first width 32 (SDXL 320)", "context width 24 (2048)", "faceclip.sampling.unet_file.save")


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        (["lora_unet_down_blocks_1_attentions_0.lora_up.weight"], "a LoRA"),
        (["conditioner.embedders.0.x", "model.diffusion_model.input_blocks.0.0.weight"], "a whole SDXL checkpoint"),
        (["model.diffusion_model.input_blocks.0.0.weight"], "in the original layout, but not an SDXL-shaped one"),
        (["encoder.conv_in.weight", "decoder.mid.block_1.conv1.weight"], "a VAE"),
        (["face_clip_l.text_projection"], "a FaceCLIP encoder"),
        (["anything.weight"], "anything.weight"),
    ],
)
def test_other_models_are_named(tmp_path, keys, words):
    path = tmp_path / "other.safetensors"
    save_file({key: torch.zeros(2) for key in keys}, path)
    refused(path, "other.safetensors", words)


class TestPublished:
    """The full key set, in a file with a hole where its weights would be: 5 GB that take no room and are not read."""

    @pytest.fixture(autouse=True)
    def unread(self, monkeypatch):
        monkeypatch.setattr(unet_file, "check_finite", lambda *_: None)

    @staticmethod
    def write(path, edit=lambda state: None, wrap=lambda state: state):
        state = {key: torch.empty(shape, dtype=torch.bfloat16) for key, shape in expected_shapes(SDXL).items()}
        edit(state)
        with torch.serialization.skip_data():
            torch.save(wrap(state), path)
        return path

    @pytest.mark.parametrize("wrapper", ["state_dict", "model", "module", "ema"])
    def test_without_metadata_and_wrapped(self, tmp_path, wrapper):
        path = self.write(tmp_path / "unet.pt", wrap=lambda state: {wrapper: state, "step": 7})
        assert unet_file.read(path)[1] == SDXL

    def test_damaged_is_still_recognised(self, tmp_path):
        path = self.write(tmp_path / "unet.pt", lambda state: state.pop("mid_block.resnets.0.conv1.weight"))
        refused(path, "published FaceCLIP-SDXL UNet", "1 missing: mid_block.resnets.0.conv1.weight")

    def test_inpainting_is_named(self, tmp_path):
        path = self.write(tmp_path / "unet.pt", lambda s: s.update({"conv_in.weight": torch.zeros(320, 9, 3, 3)}))
        refused(path, "conv_in.weight [320, 9, 3, 3] instead of [320, 4, 3, 3]")
