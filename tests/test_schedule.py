"""The published noise levels are those of diffusers' Euler scheduler with SDXL's config."""

import pytest
import torch

from faceclip.errors import InputError
from faceclip.sampling import recipes, schedule


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 10, 25, 30, 50, 333, 999])
def test_sigmas_are_those_of_diffusers(steps):
    diffusers = pytest.importorskip("diffusers", reason="diffusers is the reference here")
    reference = diffusers.EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", timestep_spacing="leading", steps_offset=1
    )
    reference.set_timesteps(steps)
    sigmas = schedule.published_sigmas(steps)
    assert sigmas.dtype == torch.float32 and sigmas.shape == (steps + 1,)
    torch.testing.assert_close(sigmas, reference.sigmas, rtol=2e-5, atol=0)


def test_the_default_is_the_published_number_of_steps():
    sigmas = schedule.published_sigmas()
    assert len(sigmas) == 51 and sigmas[-1] == 0
    assert (sigmas[:-1] > sigmas[1:]).all()


@pytest.mark.parametrize("steps", [0, -1, 1000])
def test_steps_out_of_range_are_named(steps):
    with pytest.raises(InputError, match=f"steps is {steps}, wanted 1 to 999"):
        schedule.published_sigmas(steps)


def test_latent_size_is_rows_by_columns():
    assert schedule.latent_size(864, 1152) == (144, 108)


@pytest.mark.parametrize(
    ("width", "height", "words"),
    [(860, 1152, "width is 860 px.*Use 856 or 864"), (864, 1153, "height is 1153"), (4, 8, "width is 4 .*Use 8 or 16")],
)
def test_a_side_that_is_no_multiple_of_8_is_refused(width, height, words):
    with pytest.raises(InputError, match=words):
        schedule.latent_size(width, height)


@pytest.mark.parametrize("name", recipes.FEW_STEPS)
def test_few_steps_are_those_of_diffusers(name):
    diffusers = pytest.importorskip("diffusers", reason="diffusers is the reference here")
    recipe = recipes.FEW_STEPS[name]
    betas = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    if name.startswith("LCM"):
        reference = diffusers.LCMScheduler(**betas)
    else:
        reference = diffusers.EulerDiscreteScheduler(**betas, timestep_spacing="trailing")
    steps = int(name.split(", ")[1].removesuffix(" steps"))
    reference.set_timesteps(steps)
    assert list(recipe.times) == reference.timesteps.int().tolist() and len(recipe.times) == steps
    assert recipe.sigmas()[0] == schedule.sigmas_at([999])[0] and recipe.sigmas()[-1] == 0
