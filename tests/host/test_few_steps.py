"""Few-step LoRAs and their recipes in a real host, on the small UNet."""

import inside_few_steps
import pytest
from inprocess import run_in_host

from faceclip.sampling import recipes
from faceclip.small import models as small


@pytest.fixture(scope="module")
def found(comfyui, tmp_path_factory) -> dict:
    base = tmp_path_factory.mktemp("few_steps")
    small.write_small_model(base / "models")
    return run_in_host(inside_few_steps.everything, small.UNET_FILE, comfyui=comfyui, base=base)


def test_every_format_of_a_lora_lands_or_what_is_lost_is_named(found):
    formats = dict(found["formats"])
    assert formats.pop("far") > 0.01
    _, wanted, _ = formats["kohya"]
    assert len(formats) == 4 and wanted > 100
    for kind, (patched, held, lost) in formats.items():
        assert held == wanted, kind
        if kind == "diffusers, peft":  # this host knows attention under the name of its processor only
            assert patched + len(lost) // 2 == wanted and all(".to_" in name for name in lost), kind
        else:
            assert patched == wanted and not lost, kind


def test_each_recipe_has_its_steps_and_at_guidance_1_no_negative(found):
    for name, (batches, finite) in found["recipes"].items():
        steps = 6 if name == recipes.PUBLISHED else len(recipes.FEW_STEPS[name].times)
        guided = name == recipes.PUBLISHED or recipes.FEW_STEPS[name].guidance != 1.0
        assert batches == [2 if guided else 1] * steps, (name, batches)
        assert finite


def test_at_guidance_1_the_negative_is_not_encoded_and_the_picture_is_the_same(found):
    unread = found["unread"]
    assert unread["encoded"] == [] and unread["loaded"] == 0
    assert unread["read"] == [1, 2]  # below and above 1 samplers do read it
    assert unread["equal"] and unread["shapes"][0] == unread["shapes"][1]


@pytest.mark.parametrize("sampler", ["cfg 3", "cfg_pp"])
def test_a_sampler_that_reads_what_was_not_encoded_stops_and_says_so(found, sampler):
    assert "was not encoded, since the guidance wired to it is 1" in found["unread"][sampler]
