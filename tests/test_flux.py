"""The FLUX transformer's file: its key set, its config, what is refused, and conversion; and the published recipe."""

import json

import pytest
import torch
from flux_models import FLUX as SMALL
from flux_models import diffusers_flux, write_flux
from safetensors import safe_open
from safetensors.torch import load_file

from faceclip.__main__ import main
from faceclip.errors import CheckpointError, InputError
from faceclip.files.state_dict import write_safetensors
from faceclip.sampling import diffusion_file, flux_file, flux_schedule
from faceclip.sampling.flux_config import FLUX, FluxConfig, expected_shapes


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("flux") / "flux.safetensors"
    write_flux(path)
    return path


def test_the_published_key_set_is_diffusers_own():
    diffusers = pytest.importorskip("diffusers")
    with torch.device("meta"):
        model = diffusers.FluxTransformer2DModel.from_config(json.loads(FLUX.to_json()))
    assert expected_shapes(FLUX) == {key: tuple(value.shape) for key, value in model.state_dict().items()}
    count = sum(torch.Size(shape).numel() for shape in expected_shapes(FLUX).values())
    assert 11.85e9 < count < 11.95e9  # "11.9 B"


def test_a_file_that_names_its_sizes_is_read_back(file):
    state, config = diffusion_file.read(file)
    assert config == SMALL and set(state) == set(expected_shapes(SMALL))
    assert FluxConfig.from_json(SMALL.to_json()) == SMALL


@pytest.mark.parametrize("prefix", ["", "model.", "transformer.", "model.diffusion_model."])
def test_the_published_file_is_known_by_its_shapes(monkeypatch, tmp_path, prefix):
    """A .pt of the small sizes stands for dit.pt."""
    monkeypatch.setattr(flux_file, "FLUX", SMALL)
    state = diffusers_flux().state_dict()
    torch.save({prefix + key: value for key, value in state.items()}, tmp_path / "dit.pt")
    assert diffusion_file.read(tmp_path / "dit.pt")[1] == SMALL


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s.pop("transformer_blocks.1.attn.to_q.weight"), "1 missing: transformer_blocks.1.attn.to_q.weight"),
        (lambda s: s.update({"x_embedder.bias": torch.zeros(3)}), r"x_embedder.bias \[3\] instead of \[64\]"),
        (lambda s: s.update(extra=torch.zeros(1)), "1 unexpected: extra"),
        (lambda s: s["proj_out.bias"].fill_(float("nan")), "NaN or infinite values in 1 weights: proj_out.bias"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path, change, words):
    state = diffusers_flux().state_dict()
    change(state)
    write_safetensors(state, tmp_path / "a.safetensors", {"transformer_config": SMALL.to_json()})
    with pytest.raises(CheckpointError, match=words):
        diffusion_file.read(tmp_path / "a.safetensors")


def test_other_sizes_without_a_config_are_refused(tmp_path):
    write_safetensors(diffusers_flux().state_dict(), tmp_path / "a.safetensors", {})
    with pytest.raises(CheckpointError, match="not of FLUX.1-dev's sizes.*transformer_config"):
        diffusion_file.read(tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    ("entry", "value", "words"),
    [
        ("guidance_embeds", False, "guidance_embeds is False, wanted True"),
        ("in_channels", 16, "in_channels is 16, wanted 64"),
        ("patch_size", 2, "patch_size is 2, wanted 1"),
        ("num_layers", 0, "num_layers is 0"),
        ("num_layers", 65536, "the file holds"),
        ("axes_dims_rope", [16, 8], "wanted three even numbers"),
        ("axes_dims_rope", [8, 8, 8], "adds up to 24, wanted attention_head_dim 32"),
    ],
)
def test_a_config_that_cannot_be_used_names_its_entry(tmp_path, entry, value, words):
    raw = {**json.loads(SMALL.to_json()), entry: value}
    write_safetensors(
        diffusers_flux().state_dict(), tmp_path / "a.safetensors", {"transformer_config": json.dumps(raw)}
    )
    with pytest.raises(CheckpointError, match=words):
        diffusion_file.read(tmp_path / "a.safetensors")


def test_convert_writes_it_as_one_file_that_names_its_sizes(monkeypatch, tmp_path, capsys):
    """A .pt of the small sizes stands for dit.pt."""
    monkeypatch.setattr(flux_file, "FLUX", SMALL)
    torch.save(diffusers_flux().state_dict(), tmp_path / "dit.pt")
    target = tmp_path / "flux.safetensors"
    assert main(["convert", str(tmp_path / "dit.pt"), str(target), "--dtype", "bf16"]) == 0
    assert "FLUX transformer" in capsys.readouterr().out
    assert {value.dtype for value in load_file(target).values()} == {torch.bfloat16}
    with safe_open(target, "pt") as opened:
        assert FluxConfig.from_json(opened.metadata()["transformer_config"]) == SMALL
    assert main(["convert", str(target), str(tmp_path / "eight.safetensors"), "--dtype", "fp8_e4m3fn"]) != 0
    assert "Choose fp8_e4m3fn as weight_dtype" in capsys.readouterr().err


# The published recipe.


@pytest.mark.parametrize(("width", "height", "steps"), [(864, 1152, 50), (432, 592, 10), (1024, 1024, 1), (16, 16, 4)])
def test_sigmas_are_those_of_the_diffusers_scheduler(width, height, steps):
    diffusers = pytest.importorskip("diffusers")
    import numpy
    from diffusers.pipelines.flux.pipeline_flux import calculate_shift

    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(
        shift=3.0, use_dynamic_shifting=True, base_shift=0.5, max_shift=1.15, max_image_seq_len=4096
    )
    shift = calculate_shift((width // 16) * (height // 16), 256, 4096, 0.5, 1.15)
    scheduler.set_timesteps(sigmas=numpy.linspace(1.0, 1 / steps, steps), mu=shift)
    ours = flux_schedule.published_sigmas(width, height, steps)
    assert torch.allclose(ours, scheduler.sigmas, atol=2e-7, rtol=0)
    assert ours[0] == 1.0 and ours[-1] == 0.0


def test_sizes_and_steps_that_cannot_be_are_refused():
    assert flux_schedule.latent_size(864, 1152) == (144, 108)
    with pytest.raises(InputError, match="width is 872 px.*Use 864 or 880"):
        flux_schedule.latent_size(872, 1152)
    with pytest.raises(InputError, match="height is 8 px.*Use 16 or 32"):
        flux_schedule.latent_size(16, 8)
    for steps in (0, 1001):
        with pytest.raises(InputError, match=f"steps is {steps}"):
            flux_schedule.published_sigmas(steps=steps)
