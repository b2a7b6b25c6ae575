"""The original layout of SDXL's UNet: every weight finds its place in it and back."""

import pytest
import torch
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint
from safetensors.torch import save_file

from faceclip.errors import CheckpointError
from faceclip.sampling import unet_file, unet_layout
from faceclip.sampling.unet_config import SDXL, expected_shapes
from faceclip.small.models import UNET as SMALL


@pytest.mark.parametrize("config", [SDXL, SMALL], ids=["published", "small"])
def test_names_are_those_that_diffusers_reads(config):
    """Where each weight is told by its number, diffusers' own conversion puts it where ours does."""
    names = unet_layout.original_names(config)
    assert len(set(names.values())) == len(names)
    numbered = {original: torch.tensor(i) for i, original in enumerate(names.values())}
    theirs = convert_ldm_unet_checkpoint(
        {f"model.diffusion_model.{key}": value for key, value in numbered.items()},
        {"layers_per_block": config.layers_per_block, "class_embed_type": None, "addition_embed_type": "text_time"},
    )
    assert {key: int(value) for key, value in theirs.items()} == {key: i for i, key in enumerate(names)}


@pytest.mark.parametrize("prefix", ["model.diffusion_model.", "diffusion_model.", ""])
def test_a_checkpoint_gives_its_unet(prefix):
    names = unet_layout.original_names(SMALL)
    state = {prefix + original: torch.zeros(1) for original in names.values()} | {prefix + "odd.weight": torch.ones(1)}
    other = {"first_stage_model.decoder.conv_in.weight": torch.ones(1)} if prefix else {}
    assert unet_layout.is_original(state)
    assert set(unet_layout.to_diffusers(state | other, SMALL)) == {*expected_shapes(SMALL), "odd.weight"}
    assert not unet_layout.is_original(dict.fromkeys(expected_shapes(SMALL), torch.zeros(1)))


@pytest.mark.parametrize("prefix", ["model.diffusion_model.", "diffusion_model.", ""])
@pytest.mark.parametrize("config", [SDXL, SMALL], ids=["published", "small"])
def test_sizes_are_told_from_the_weights_alone(config, prefix):
    shapes, names = expected_shapes(config), unet_layout.original_names(config)
    state = {prefix + names[key]: torch.empty(shape, device="meta") for key, shape in shapes.items()}
    found = unet_layout.config_of(state, "x")
    assert expected_shapes(found) == shapes and found.attention_depths == config.attention_depths
    assert unet_layout.other_parts(state) == []
    back = unet_layout.to_diffusers(state, found)
    assert {key: tuple(value.shape) for key, value in back.items()} == shapes


def test_what_comfyui_notes_of_the_prediction_is_read(tmp_path):
    """A UNet of v without its note would make grey pictures, and nothing would say why."""
    names, path, empty = unet_layout.original_names(SMALL), tmp_path / "saved.safetensors", torch.empty(0)
    state = {f"model.diffusion_model.{names[key]}": torch.zeros(shape) for key, shape in expected_shapes(SMALL).items()}
    for note, prediction in (({}, "epsilon"), ({"v_pred": empty}, "v_prediction")):
        save_file(state | note, path)
        read, config = unet_file.read(path)
        assert config.prediction_type == prediction and read.keys() == names.keys()
    save_file(state | {"v_pred": empty, "ztsnr": empty}, path)
    with pytest.raises(CheckpointError, match="end in pure noise.*ztsnr"):
        unet_file.read(path)


@pytest.mark.parametrize(
    "edit",
    [
        lambda state: state.pop("out.2.weight"),
        lambda state: state.pop("label_emb.0.0.weight"),
        lambda state: state.update({"input_blocks.0.0.weight": torch.zeros(32)}),
        lambda state: state.update({"input_blocks.1.0.out_layers.3.weight": torch.zeros(33, 32, 3, 3)}),
        lambda state: [state.pop(key) for key in list(state) if key.startswith("input_blocks.") and ".0.0." not in key],
    ],
)
def test_weights_that_tell_no_sizes_are_refused(edit):
    names = unet_layout.original_names(SMALL)
    state = {names[key]: torch.zeros(shape) for key, shape in expected_shapes(SMALL).items()}
    edit(state)
    with pytest.raises(CheckpointError, match="sizes cannot be told"):
        unet_layout.config_of(state, "x.safetensors")


def test_a_layer_number_out_of_all_bounds_costs_nothing():
    names = unet_layout.original_names(SMALL)
    state = {names[key]: torch.zeros(shape) for key, shape in expected_shapes(SMALL).items()}
    state["input_blocks.99999999999.0.out_layers.3.weight"] = torch.zeros(1)
    state["middle_block.1.transformer_blocks.99999999999.attn2.to_k.weight"] = torch.zeros(1, 1)
    with pytest.raises(CheckpointError):
        unet_file.checked(state, {}, "x.safetensors")
