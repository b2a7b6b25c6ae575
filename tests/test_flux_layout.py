"""The original layout of FLUX's transformer, which ComfyUI saves: every weight finds its place in diffusers' layout."""

import re
from dataclasses import replace

import pytest
import torch
from diffusers.loaders.single_file_utils import convert_flux_transformer_checkpoint_to_diffusers
from flux_models import WIDE_HEADS as CONFIG

from faceclip.errors import CheckpointError
from faceclip.sampling import flux_file, flux_layout
from faceclip.sampling.flux_config import FLUX, MLP_RATIO, FluxConfig, expected_shapes


def original(config: FluxConfig = CONFIG, columns: int | None = None) -> dict[str, torch.Tensor]:
    """A transformer in the original layout, each weight of its own random numbers.

    columns: how many each matrix has, in place of its inputs.
    """
    width, head, random = config.width, config.attention_head_dim, torch.Generator().manual_seed(0)
    layers = {"img_in": (64, width), "txt_in": (config.joint_attention_dim, width), "final_layer.linear": (width, 64)}
    layers["final_layer.adaLN_modulation.1"] = (width, 2 * width)
    for name, inputs in {"time_in": 256, "guidance_in": 256, "vector_in": config.pooled_projection_dim}.items():
        layers |= {f"{name}.in_layer": (inputs, width), f"{name}.out_layer": (width, width)}
    norms = []
    for i in range(config.num_layers):
        for side in ("img", "txt"):
            place = f"double_blocks.{i}.{side}"
            layers |= {f"{place}_attn.qkv": (width, 3 * width), f"{place}_attn.proj": (width, width)}
            layers |= {f"{place}_mlp.0": (width, MLP_RATIO * width), f"{place}_mlp.2": (MLP_RATIO * width, width)}
            layers[f"{place}_mod.lin"] = (width, 6 * width)
            norms += [f"{place}_attn.norm.query_norm.scale", f"{place}_attn.norm.key_norm.scale"]
    for i in range(config.num_single_layers):
        place = f"single_blocks.{i}"
        layers |= {f"{place}.linear1": (width, 7 * width), f"{place}.linear2": (5 * width, width)}
        layers[f"{place}.modulation.lin"] = (width, 3 * width)
        norms += [f"{place}.norm.query_norm.scale", f"{place}.norm.key_norm.scale"]
    state = {name: torch.randn(head, generator=random) for name in norms}
    for name, (inputs, outputs) in layers.items():
        state[f"{name}.weight"] = torch.randn(outputs, columns or inputs, generator=random)
        state[f"{name}.bias"] = torch.randn(outputs, generator=random)
    return state


def test_each_row_is_where_diffusers_own_conversion_puts_it():
    """Which knows FLUX.1's width alone, so the matrices have that many rows, and one column."""
    config = replace(CONFIG, num_attention_heads=FLUX.num_attention_heads)
    ours = flux_layout.to_diffusers(original(config, columns=1), config)
    theirs = convert_flux_transformer_checkpoint_to_diffusers(original(config, columns=1))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(value, theirs[key]) for key, value in ours.items())


@pytest.mark.parametrize("prefix", ["model.diffusion_model.", "diffusion_model."])
@pytest.mark.parametrize("norm", ["scale", "weight"])
def test_sizes_are_read_off_the_weights(prefix, norm):
    """Newer hosts call the norms' scale a weight."""
    state = {prefix + re.sub("_norm.scale$", f"_norm.{norm}", key): value for key, value in original().items()}
    assert flux_file.owns(state)
    weights, config = flux_file.checked(state, {}, "x")
    assert config == CONFIG and weights.keys() == expected_shapes(CONFIG).keys()


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda state: state.pop("img_in.weight"), "sizes cannot be told"),
        (lambda state: state.update({"double_blocks.0.img_attn.norm.query_norm.scale": torch.ones(32)}), "told from"),
        (lambda state: state.update({"double_blocks.0.img_attn.norm.query_norm.scale": torch.ones(0)}), "told from"),
        (lambda state: state.update({"double_blocks.0.img_attn.qkv.weight": torch.ones(5, 5)}), "wanted 768 rows"),
        (lambda state: state.update({"single_blocks.1.linear1.bias": torch.tensor(1.0)}), "wanted 1792 rows"),
        (lambda state: state.update({"final_layer.adaLN_modulation.1.bias": torch.tensor(1.0)}), "wanted 512 rows"),
        (lambda state: state.update({"double_blocks.99999999.odd.weight": torch.ones(1)}), "odd.weight"),
        (lambda state: state.pop("single_blocks.2.linear2.weight"), "single_transformer_blocks.2.proj_out.weight"),
    ],
)
def test_what_does_not_fit_is_named(edit, said):
    state = original()
    edit(state)
    with pytest.raises(CheckpointError, match=said):
        flux_file.checked({f"model.diffusion_model.{key}": value for key, value in state.items()}, {}, "x")


def test_a_whole_checkpoint_is_refused_with_the_way():
    state = {f"model.diffusion_model.{key}": value for key, value in original().items()}
    state["vae.decoder.conv_in.weight"] = torch.ones(1)
    with pytest.raises(CheckpointError, match="whole FLUX checkpoint.*with ModelSave, not with CheckpointSave"):
        flux_file.checked(state, {}, "x.safetensors")


def test_an_ordinary_flux_is_refused():
    """Its own release has these names with nothing before them."""
    with pytest.raises(CheckpointError, match="ordinary FLUX.1-dev, which does not understand FaceT5. Choose"):
        flux_file.checked(original(), {}, "flux1-dev.safetensors")
