"""Faces cut out to be painted anew, and pasted back: real photos, at borders, tilted, several at once."""

import math

import cv2
import numpy as np
import pytest
import torch

from faceclip.errors import InputError
from faceclip.faces import detail
from faceclip.faces.align import crop_outline
from faceclip.faces.face import detect_faces


def batch(*pictures) -> torch.Tensor:
    return torch.from_numpy(np.stack(pictures)).float() / 255


@pytest.fixture(scope="module")
def astronaut(photos, yunet):
    images = batch(photos["astronaut"])
    return images, detect_faces(images, yunet)


@pytest.fixture(scope="module")
def group(photos, yunet):
    images = batch(photos["group"])
    return images, detect_faces(images, yunet, "left-right")


def outside(placement, images) -> torch.Tensor:
    """True where a pixel lies outside of every crop's square: bool [B, H, W]."""
    inside = np.zeros(images.shape[:3], np.uint8)
    for place in placement.places:
        corners = crop_outline(np.array(place.matrix), placement.size)
        cv2.fillPoly(inside[place.picture], [np.round(corners).astype(np.int32)], 1)
    return torch.from_numpy(cv2.dilate(inside[0], np.ones((3, 3)))[None] if len(inside) == 1 else inside) == 0


def tilt(landmarks) -> float:
    (x0, y0), (x1, y1) = landmarks[:2]
    return math.degrees(math.atan2(y1 - y0, x1 - x0))


def test_a_crop_shows_the_face_enlarged_in_its_middle(astronaut, yunet):
    images, found = astronaut
    crops, masks, placement = detail.crop_faces(images, found, margin=2.0, size=512)
    assert crops.shape == (1, 512, 512, 3) and masks.shape == (1, 512, 512)
    seen = detect_faces(crops, yunet)[0][0]
    assert max(seen.width, seen.height) == pytest.approx(256, rel=0.1)
    assert np.linalg.norm(np.array(seen.centre) - 255.5) < 20
    assert masks[0, 256, 256] == 1 and masks[0, 0].max() == 0 and masks[0, :, -1].max() == 0
    assert "enlarged" in detail.report(placement)


@pytest.mark.parametrize("size", [256, 1024])
def test_an_untouched_crop_changes_nothing_that_can_be_seen(astronaut, size):
    images, found = astronaut
    crops, _, placement = detail.crop_faces(images, found, size=size)
    again = detail.paste_faces(images, crops, placement)
    # A fifth of the picture is sampled twice; half a pixel beside its place it would differ by 0.0025.
    assert (again - images).abs().mean() < 1e-3
    assert not torch.equal(again, images)


def test_what_comes_from_a_model_of_another_size_lands_in_the_same_place(astronaut):
    images, found = astronaut
    crops, _, placement = detail.crop_faces(images, found, size=512)
    half = torch.nn.functional.interpolate(crops.permute(0, 3, 1, 2), size=(256, 256), mode="area").permute(0, 2, 3, 1)
    again = detail.paste_faces(images, half, placement)
    assert (again - images).abs().mean() < 1e-3


def test_outside_the_mask_every_value_stays(astronaut):
    images, found = astronaut
    before = images.clone()
    crops, _, placement = detail.crop_faces(images, found, size=512)
    pasted = detail.paste_faces(images, torch.ones_like(crops), placement, keep_colour=False)
    free = outside(placement, images)
    assert torch.equal(pasted[free], images[free]) and free.float().mean() > 0.5
    assert torch.equal(images, before)
    x, y = map(round, found[0][0].centre)
    assert pasted[0, y, x].min() > 0.9999
    # A mask of one's own: what it leaves out stays too, inside the crop.
    _, _, placement = detail.crop_faces(images, found, size=512, upright=False)
    left = torch.zeros(1, 64, 64)
    left[:, :, :32] = 1
    pasted = detail.paste_faces(images, torch.ones_like(crops), placement, left, keep_colour=False)
    assert torch.equal(pasted[0, :, x + 8 :], images[0, :, x + 8 :])
    assert pasted[0, y, x - 8].min() > 0.9999


def test_a_colour_cast_of_the_painting_does_not_show(astronaut):
    images, found = astronaut
    crops, _, placement = detail.crop_faces(images, found, size=512)
    cast = (crops * 0.9 + torch.tensor([0.06, 0.0, -0.05])).clamp(0, 1)
    kept = (detail.paste_faces(images, cast, placement) - images).abs().mean()
    left = (detail.paste_faces(images, cast, placement, keep_colour=False) - images).abs().mean()
    assert kept < left / 5


@pytest.mark.parametrize("angle", [-35, 50])
def test_a_tilted_face_is_cut_upright_and_pasted_back_tilted(photos, yunet, angle):
    turn = cv2.getRotationMatrix2D((220, 125), angle, 1.0)
    turned = cv2.warpAffine(photos["astronaut"], turn, (512, 512), borderMode=cv2.BORDER_REFLECT)
    images = batch(turned)
    found = detect_faces(images, yunet)
    assert abs(tilt(found[0][0].landmarks)) > 25
    crops, _, placement = detail.crop_faces(images, found, size=512)
    assert abs(tilt(detect_faces(crops, yunet)[0][0].landmarks)) < 8
    again = detail.paste_faces(images, crops, placement)
    assert (again - images).abs().mean() < 1e-3
    assert "turned by" in detail.report(placement)
    level, _, flat = detail.crop_faces(images, found, size=512, upright=False)
    assert flat.places[0].degrees == 0
    assert abs(tilt(detect_faces(level, yunet)[0][0].landmarks)) > 25


def test_a_face_that_the_border_cuts_off_is_painted_up_to_the_border(photos, yunet):
    images = batch(photos["astronaut"][70:, 195:])  # through the forehead and beside the eye
    found = detect_faces(images, yunet)
    crops, masks, placement = detail.crop_faces(images, found, size=512, upright=False)
    top, right, bottom, left = placement.places[0].soft
    assert (top, left) == (False, False) and right and bottom
    assert masks[0, 0, 0] == 1
    pasted = detail.paste_faces(images, torch.ones_like(crops), placement, keep_colour=False)
    assert pasted[0, 0, 0].min() > 0.9999
    free = outside(placement, images)
    assert torch.equal(pasted[free], images[free])
    again = detail.paste_faces(images, crops, placement)
    assert (again - images).abs().mean() < 1e-3


def test_a_crop_near_the_border_holds_real_pixels_as_far_as_the_face_allows(photos, yunet):
    images = batch(photos["astronaut"][40:])
    found = detect_faces(images, yunet)
    _, _, placement = detail.crop_faces(images, found, margin=2.5, size=512, upright=False)
    corners = crop_outline(np.array(placement.places[0].matrix), 512)
    assert corners.min() > -1.5  # moved down until it lies inside


def test_all_faces_of_a_picture_at_once(group):
    images, found = group
    crops, masks, placement = detail.crop_faces(images, found, detail.ALL_FACES, size=256)
    assert len(crops) == len(masks) == len(found[0]) == 6
    pasted = detail.paste_faces(images, torch.zeros_like(crops), placement, keep_colour=False)
    for face in found[0]:
        x, y = map(round, face.centre)
        assert pasted[0, y, x].max() < 1e-4
    free = outside(placement, images)
    assert torch.equal(pasted[free], images[free])
    one, _, _ = detail.crop_faces(images, found, 3, size=256)
    assert torch.equal(one[0], crops[3])


def test_alternatives_of_a_face_give_a_picture_each(astronaut):
    images, found = astronaut
    crops, _, placement = detail.crop_faces(images, found, size=128)
    pasted = detail.paste_faces(images, torch.cat([crops, torch.ones_like(crops)]), placement, keep_colour=False)
    assert pasted.shape == (2, *images.shape[1:])
    assert (pasted[0] - images[0]).abs().mean() < 5e-3
    x, y = map(round, found[0][0].centre)
    assert pasted[1, y, x].min() > 0.9999


def test_each_picture_of_a_batch_gets_its_own_face_back(photos, yunet):
    images = batch(photos["astronaut"], np.ascontiguousarray(photos["astronaut"][:, ::-1]))
    found = detect_faces(images, yunet)
    crops, _, placement = detail.crop_faces(images, found, size=256)
    again = detail.paste_faces(images, crops, placement)
    assert (again - images).abs().mean() < 1e-3


def test_a_face_larger_than_the_model_paints_is_said_to_lose(astronaut):
    images, found = astronaut
    _, _, placement = detail.crop_faces(images, found, size=64)
    assert "! the face has more px" in detail.report(placement)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"index": 1}, "Face index 1 is past the last"),
        ({"index": -2}, "-1 for all faces"),
        ({"margin": 0.5}, "margin is 0.5"),
        ({"size": 8}, "8 px"),
        ({"feather": 0.7}, "feather is 0.7"),
    ],
)
def test_what_cannot_be_cut_is_said(astronaut, change, said):
    images, found = astronaut
    with pytest.raises(InputError, match=said):
        detail.crop_faces(images, found, **change)


def test_what_does_not_fit_the_placement_is_said(group):
    images, found = group
    crops, masks, placement = detail.crop_faces(images, found, detail.ALL_FACES, size=64)
    with pytest.raises(InputError, match="Wire the same pictures"):
        detail.paste_faces(images[:, 1:], crops, placement)
    with pytest.raises(InputError, match="5 painted crops for 6 places"):
        detail.paste_faces(images, crops[:5], placement)
    with pytest.raises(InputError, match="a square is wanted"):
        detail.paste_faces(images, crops[:, 8:], placement)
    with pytest.raises(InputError, match="2 masks for 6 crops"):
        detail.paste_faces(images, crops, placement, masks[:2])
