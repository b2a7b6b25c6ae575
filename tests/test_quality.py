"""The reference report: each figure on faces made for it and on real photos, and what the user reads."""

import logging

import cv2
import numpy as np
import pytest
import torch
from test_faces import GREY, Scripted, batch, face

from faceclip.errors import InputError
from faceclip.faces import quality
from faceclip.faces.face import align_faces, detect_faces, find_faces
from faceclip.faces.quality import FaceQuality, measure, report, sharpness, yaw


def measured(picture: np.ndarray, detector, order: str = "left-right", index: int = 0) -> FaceQuality:
    images = batch(picture)
    (one,) = measure(images, find_faces(images, detector, order, index))
    return one


def good(**changes) -> FaceQuality:
    values = {"picture": 0, "score": 0.94, "size": (120.0, 150.0), "eye_distance": 50.0, "sharpness": 0.2, "yaw": 3.0}
    return FaceQuality(**{**values, "others": 0, **changes})


# --- figures


def test_sharpness_falls_with_blur_and_knows_neither_brightness_nor_contrast():
    crop = np.random.default_rng(1).random((112, 112, 3), np.float32)
    sharp = sharpness(crop)
    assert sharpness(crop * 0.2 + 0.7) == pytest.approx(sharp, rel=1e-3)
    blurred = [sharpness(cv2.GaussianBlur(crop, (0, 0), sigma)) for sigma in (0.5, 1, 2)]
    assert sharp > blurred[0] > blurred[1] > blurred[2] > 0
    assert sharpness(np.full((112, 112, 3), 0.5, np.float32)) == 0
    with pytest.raises(InputError, match="112 x 112 px"):
        sharpness(np.zeros((448, 448, 3), np.float32))


@pytest.mark.parametrize("degrees", [-60, -20, 0, 35])
@pytest.mark.parametrize("roll", [0, 40, 180])
def test_yaw_is_told_from_the_nose_however_the_head_is_tilted(degrees, roll):
    middle, half = np.array([300.0, 200.0]), 50 * np.array([np.cos(np.radians(roll)), np.sin(np.radians(roll))])
    down = np.array([-half[1], half[0]])
    nose = middle + 0.8 * down + 2 * half * 0.53 * np.tan(np.radians(degrees))
    mouth = middle + 1.6 * down
    points = [middle - half, middle + half, nose, mouth - half, mouth + half]
    assert yaw(points) == pytest.approx(degrees, abs=0.01)


def test_yaw_of_eyes_in_one_place_is_a_profile():
    assert yaw([(5, 5), (5, 5), (9, 9), (4, 12), (6, 12)]) == 90


def test_box_eyes_and_other_faces_are_in_px_of_the_picture():
    images = torch.rand(1, 300, 400, 3)
    two = [face(30, 40, 112), face(200, 50, 60, score=0.7)]
    (one,) = measure(images, align_faces(images, [two], margin=1.5))
    assert (one.picture, one.size, one.score, one.others) == (0, (112, 112), 0.9, 1)
    assert one.eye_distance == pytest.approx(35.24, abs=0.01)
    assert one.sharpness == pytest.approx(sharpness(images[0, 40:152, 30:142].numpy()), rel=1e-3)


def test_measuring_leaves_the_pictures_alone_and_needs_those_of_the_face():
    images = torch.rand(2, 300, 400, 3)
    before = images.clone()
    found = align_faces(images, [[face(30, 40, 112)]] * 2)
    measure(images, found)
    assert torch.equal(images, before)
    with pytest.raises(InputError, match="1 pictures, but a face comes from picture 2"):
        measure(images[:1], found)


# --- warnings


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"size": (quality.SMALL - 1.0, 90.0)}, "only 49 px wide"),
        ({"sharpness": quality.SOFT - 0.001}, "the face is soft"),
        ({"sharpness": quality.BLURRED - 0.001}, "the face is blurred"),
        ({"yaw": quality.TURNED}, "turned away"),
        ({"yaw": -quality.SIDEWAYS}, "seen from the side"),
        ({"score": quality.UNSURE - 0.01}, "not sure"),
    ],
)
def test_each_fault_has_one_warning(changes, said):
    (warning,) = good(**changes).warnings
    assert said in warning


def test_a_good_reference_has_no_warning():
    at_the_limits = {"sharpness": quality.SOFT, "size": (quality.SMALL, 60), "score": quality.UNSURE}
    assert good(**at_the_limits, yaw=quality.TURNED - 0.1).warnings == ()


# --- real photos


def test_real_faces_as_they_are_are_sharp_and_large_enough(yunet, photos):
    faces = [measured(photos["group"], yunet, index=place) for place in range(6)]
    faces += [measured(photos[name], yunet) for name in ("hanks", "astronaut")]
    turned = [place for place, one in enumerate(faces) if any("turned away" in text for text in one.warnings)]
    aside = [place for place, one in enumerate(faces) if any("from the side" in text for text in one.warnings)]
    assert (turned, aside) == ([1], [4])
    assert [len(one.warnings) for one in faces] == [0, 1, 0, 0, 1, 0, 0, 0]


@pytest.mark.parametrize("name", ["hanks", "astronaut"])
def test_a_blurred_photo_is_called_soft_then_blurred(yunet, photos, name):
    px = measured(photos[name], yunet).eye_distance / 35.24  # of the photo, for one of the 112 px crop
    blurred = [cv2.GaussianBlur(photos[name], (0, 0), sigma * px) for sigma in (0.25, 1, 2)]
    assert [[text[:15] for text in measured(photo, yunet).warnings] for photo in blurred] == [
        [],
        ["the face is sof"],
        ["the face is blu"],
    ]


def test_a_shrunk_photo_is_called_small(yunet, photos):
    part = photos["astronaut"][:256, 96:352]
    small = cv2.resize(part, (96, 96), interpolation=cv2.INTER_AREA)
    one = measured(small, yunet)
    assert 28 < one.size[0] < 38
    assert any("px wide, too few" in text for text in one.warnings)


# --- what the user reads


def test_the_report_of_a_good_photo(yunet, photos):
    images = batch(photos["astronaut"])
    text = report(images, find_faces(images, yunet))
    first, last = text.splitlines()
    assert first.startswith("picture 1: face 0 of 1, score 0.9") and "eyes 43 px apart" in first
    assert last == "Good to use."


def test_the_report_counts_faces_and_asks_about_them(yunet, photos):
    images = batch(photos["group"])
    text = report(images, find_faces(images, yunet, "left-right", 2), 2)
    assert text.startswith("picture 1: face 2 of 6") and "is it the right one of the 6?" in text


@pytest.mark.parametrize(("choice", "said"), [("skip image", "skipped"), ("use whole picture", "poor likeness")])
def test_the_report_lists_what_became_of_each_picture(choice, said):
    images = torch.rand(3, 200, 300, 3)
    found = detect_faces(images, Scripted([face(10, 5, 112)], [], [face(30, 5, 112)]), on_no_face=choice)
    lines = report(images, align_faces(images, found, on_no_face=choice)).splitlines()
    assert len(lines) == 3  # and nothing says that all is good
    assert lines[0].startswith("picture 1: face 0 of 1, score 0.90, 112 x 112 px")
    assert lines[1].startswith("picture 2: no face") and lines[1].endswith(said)
    assert lines[2].startswith("picture 3: face 0 of 1")


def test_a_warning_stands_under_its_picture_and_is_logged(caplog):
    images = torch.cat([torch.rand(1, 200, 300, 3), GREY])
    found = align_faces(images, [[face(10, 5, 112)], [face(10, 5, 112)]])
    with caplog.at_level(logging.WARNING):
        lines = report(images, found).splitlines()
    assert len(lines) == 3 and lines[2].startswith("  ! the face is blurred")
    assert "Picture 2: the face is blurred" in caplog.text
