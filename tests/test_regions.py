"""Regions and masks for people: they cover what they name, at any size."""

import pytest
import torch

from faceclip import InputError
from faceclip.pixels import check_masks
from faceclip.sampling.regions import BOX, REGIONS, fit_masks, make_room, overlap, region_mask, union

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
    fitted = fit_masks(mask, 18, 14)
    assert fitted.shape == (1, 18, 14)
    assert fitted[0, :, :6].min() == 1 and fitted[0, :, 8:].max() == 0
    assert torch.equal(fit_masks(fitted, 18, 14), fitted)


@pytest.mark.parametrize("shape", [(8, 6), (1, 8, 6), (3, 8, 6), (1, 1, 8, 6), (3, 1, 8, 6), (3, 8, 6, 1)])
def test_masks_of_every_shape_that_nodes_hand_out_are_taken(shape):
    mask = torch.rand(shape)
    count = shape[0] if len(shape) > 2 else 1
    checked = check_masks(mask, "the mask")
    assert torch.equal(checked, mask.reshape(count, 8, 6)) and checked.is_contiguous()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.bool])
def test_masks_of_every_type_are_taken_and_overshoot_is_clipped(dtype):
    mask = (torch.rand(1, 8, 8) > 0.5).to(dtype)
    assert torch.equal(check_masks(mask, "the mask"), mask.float())
    if dtype != torch.bool:
        assert torch.equal(check_masks(mask * 1.4 - 0.2, "the mask"), mask.float())


@pytest.mark.parametrize(
    ("mask", "said"),
    [
        (torch.zeros(1, 8, 8), "The person's mask is empty"),
        (torch.ones(1, 8, 8) * 255, "values of the person's mask run from 255.*divide by 255"),
        (torch.tensor([[-1.0, 1.0]]), "run from -1.*add 1 and halve it"),
        (torch.full((8, 8), float("nan")), "NaN or infinite values in the person's mask"),
        (torch.ones(8, 8, dtype=torch.uint8), "torch.uint8; floats from 0 to 1"),
        (torch.ones(4), r"shape of the person's mask is \[4\]"),
        (torch.ones(1, 0, 8), r"shape of the person's mask is \[1, 0, 8\]"),
        (torch.ones(1, 64, 64, 3), "looks like a picture: put Convert Image to Mask between"),
        (torch.ones(64, 64, 3), "looks like a picture"),
        (torch.ones(1).expand(1, 40_000, 40_000), "40000 x 40000 px, 1600 million pixels; at most 200 million"),
        (torch.ones(1, 64, 64).to_sparse(), "The person's mask comes as a sparse tensor"),
        (torch.ones(64, 64, device="meta"), "without values"),
        (torch.ones(1, 2, 64, 64), r"shape of the person's mask is \[1, 2, 64, 64\]"),
    ],
)
def test_unusable_masks_are_refused_by_name(mask, said):
    with pytest.raises(InputError, match=said):
        check_masks(mask, "the person's mask")


def test_room_is_made_only_where_the_person_is():
    person = region_mask("left half", NO_BOX, 4, 4)
    left = make_room(torch.ones(1, 4, 4), person, 0.2)
    assert torch.allclose(left[..., :2], torch.full((1, 4, 2), 0.2)) and torch.equal(left[..., 2:], torch.ones(1, 4, 2))
    assert torch.equal(make_room(left, person, 1.0), left)


def test_several_masks_are_one_for_each_picture_counted_round_as_in_the_host():
    people, scene = torch.rand(2, 4, 4), torch.rand(3, 4, 4)
    both = make_room(scene, people, 0.3)
    assert both.shape == (6, 4, 4)
    for picture in range(6):
        one = make_room(scene[[picture % 3]], people[[picture % 2]], 0.3)
        assert torch.equal(both[[picture]], one)
    assert torch.equal(overlap(people, torch.ones(1, 4, 4)), people)
    assert torch.equal(union([people, torch.zeros(1, 4, 4)]), people)
