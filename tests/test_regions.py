"""Regions and masks for people: they cover what they name, at any size."""

import pytest
import torch

from faceclip import InputError
from faceclip.sampling.regions import BOX, REGIONS, fit_mask, make_room, region_mask

NO_BOX = (0.0, 0.0, 0.5, 1.0)


@pytest.mark.parametrize("size", [(16, 24), (13, 17), (144, 108)])
def test_halves_and_thirds_fill_the_picture_without_overlap(size):
    for names in (("left half", "right half"), ("left third", "middle third", "right third")):
        total = sum(region_mask(name, NO_BOX, *size) for name in names)
        assert torch.allclose(total, torch.ones(1, *size), atol=1e-5)


def test_every_named_region_has_its_share_of_the_picture():
    for name, (x0, y0, x1, y1) in REGIONS.items():
        assert float(region_mask(name, NO_BOX, 13, 17).mean()) == pytest.approx((x1 - x0) * (y1 - y0), abs=1e-5)


def test_a_box_is_where_it_says():
    mask = region_mask(BOX, (0.25, 0.5, 0.5, 0.25), 8, 8)[0]
    wanted = torch.zeros(8, 8)
    wanted[4:6, 2:6] = 1
    assert torch.equal(mask, wanted)


@pytest.mark.parametrize("box", [(0, 0, 0, 1), (0.6, 0, 0.5, 1), (-0.1, 0, 0.5, 1), (0, 0, float("nan"), 1)])
def test_boxes_outside_the_picture_are_refused(box):
    with pytest.raises(InputError, match="The box is"):
        region_mask(BOX, box, 8, 8)


def test_masks_of_other_sizes_keep_their_place():
    mask = torch.zeros(1, 333, 517)
    mask[:, :, :258] = 1
    fitted = fit_mask(mask, 18, 14)
    assert fitted.shape == (1, 18, 14)
    assert fitted[0, :, :6].min() == 1 and fitted[0, :, 8:].max() == 0
    assert torch.equal(fit_mask(fitted[0], 18, 14), fitted)


@pytest.mark.parametrize("mask", [torch.zeros(1, 8, 8), torch.ones(2, 8, 8), torch.ones(1, 8, 8) * 3, torch.ones(4)])
def test_unusable_masks_are_refused(mask):
    with pytest.raises(InputError, match="mask"):
        fit_mask(mask, 4, 4)


def test_room_is_made_only_where_the_person_is():
    person = region_mask("left half", NO_BOX, 4, 4)
    left = make_room(torch.ones(1, 4, 4), person, 0.2)
    assert torch.allclose(left[..., :2], torch.full((1, 4, 2), 0.2)) and torch.equal(left[..., 2:], torch.ones(1, 4, 2))
    assert torch.equal(make_room(left, person, 1.0), left)
