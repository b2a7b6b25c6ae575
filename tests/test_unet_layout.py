"""The original layout of SDXL's UNet: every weight finds its place in it and back."""

import pytest
import torch
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

from faceclip.sampling import unet_layout
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
