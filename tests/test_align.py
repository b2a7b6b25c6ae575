"""Alignment: exact numbers where a closed form exists."""

import math

import numpy as np
import pytest

from faceclip.errors import InputError
from faceclip.faces.align import CROP_SIZE, align, crop_outline, face_matrix, similarity, template, transform


def turned(angle: float, scale: float, shift=(0.0, 0.0)) -> np.ndarray:
    c, s = scale * math.cos(math.radians(angle)), scale * math.sin(math.radians(angle))
    return np.array([[c, -s, shift[0]], [s, c, shift[1]]])


def umeyama(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The published SVD form, as an independent check of the closed form."""
    a, b = source - source.mean(0), target - target.mean(0)
    u, d, vt = np.linalg.svd(b.T @ a / len(a))
    sign = np.array([1.0, np.sign(np.linalg.det(u) * np.linalg.det(vt))])
    rotation = u @ np.diag(sign) @ vt
    scale = (d * sign).sum() / a.var(0).sum()
    return np.column_stack([scale * rotation, target.mean(0) - scale * rotation @ source.mean(0)])


def test_the_template_is_the_112_px_one_times_four():
    assert np.allclose(template(448)[0], (38.2946 * 4, 51.6963 * 4), atol=1e-12)
    assert np.allclose(template(112), template(448) / 4)


@pytest.mark.parametrize("angle", [0, 30, -75, 180])
@pytest.mark.parametrize("scale", [0.05, 1.0, 7.0])
def test_a_known_similarity_is_recovered(angle, scale):
    known = turned(angle, scale, (123.4, -56.7))
    source = template()
    assert np.allclose(similarity(source, transform(known, source)), known, atol=1e-9)


def test_landmarks_land_on_the_template_whatever_the_pose_in_the_picture():
    landmarks = transform(turned(-40, 0.31, (900, 400)), template())
    assert np.abs(transform(face_matrix(landmarks), landmarks) - template()).max() < 1e-9


def test_noisy_points_give_the_least_squares_answer_of_the_svd_form():
    rng = np.random.default_rng(1)
    for _ in range(20):
        source = template() / 3 + rng.normal(0, 15, (5, 2))
        assert np.allclose(similarity(source, template()), umeyama(source, template()), atol=1e-8)


def test_mirrored_landmarks_are_never_answered_with_a_reflection():
    mirrored = template() * (-1, 1) + (448, 0)
    matrix = similarity(mirrored + np.random.default_rng(2).normal(0, 3, (5, 2)), template())
    assert np.linalg.det(matrix[:, :2]) > 0


@pytest.mark.parametrize("margin", [0.5, 1.3, 4.0])
def test_margin_scales_about_the_centre_of_the_crop(margin):
    middle = (CROP_SIZE - 1) / 2
    assert np.allclose((template(margin=margin) - middle) * margin, template() - middle)


@pytest.mark.parametrize("margin", [0.4, 4.1, float("nan"), "1", None])
def test_a_margin_out_of_range_is_refused(margin):
    with pytest.raises(InputError, match="margin"):
        template(margin=margin)


@pytest.mark.parametrize(
    ("landmarks", "said"),
    [
        (np.full((5, 2), 7.0), "no size or direction"),
        (np.full((5, 2), np.nan), "NaN"),
        (np.array([[0, 0], [1, 0], [np.inf, 0], [0, 1], [1, 1]]), "infinite"),
        (np.zeros((4, 2)), "five"),
        (np.zeros((5, 3)), "shape"),
    ],
)
def test_degenerate_landmarks_are_refused(landmarks, said):
    with pytest.raises(InputError, match=said):
        face_matrix(landmarks)


def test_a_picture_that_is_aligned_already_comes_back_unchanged():
    picture = np.random.default_rng(3).random((448, 448, 3), dtype=np.float32)
    before = picture.copy()
    assert np.array_equal(align(picture, template()), picture)
    assert np.array_equal(picture, before)


def test_a_shift_by_whole_pixels_copies_pixels_and_leaves_black_outside():
    picture = np.random.default_rng(4).random((300, 700, 3), dtype=np.float32) * 0.9 + 0.1
    crop = align(picture, template() + (100, -50))
    assert np.array_equal(crop[50:350], picture[0:300, 100:548])
    assert not crop[:50].any() and not crop[350:].any()


@pytest.mark.parametrize("shrink", [1.5, 2, 3, 5.5, 12])
def test_shrinking_a_large_face_keeps_every_pixel_position(shrink):
    """A smooth ramp stays where it belongs, whatever block the averaging uses."""
    side = int(448 * shrink) + 40
    yy, xx = np.mgrid[:side, :side].astype(np.float32) / side
    picture = np.ascontiguousarray(np.stack([xx, yy, (xx + yy) / 2], axis=-1))
    landmarks = template() * shrink + 17.3
    crop = align(picture, landmarks)
    rows, columns = np.mgrid[:448, :448]
    wanted = np.stack([columns, rows], axis=-1) * shrink + 17.3
    assert np.abs(crop[4:-4, 4:-4, :2] * side - wanted[4:-4, 4:-4]).max() < 0.08 * shrink


def test_shrinking_averages_fine_texture_instead_of_sampling_it():
    yy, xx = np.mgrid[:4000, :4000]
    board = np.repeat(((xx + yy) % 2).astype(np.float32)[..., None], 3, axis=2)
    crop = align(board, template() * 8 + 20)
    assert abs(float(crop.mean()) - 0.5) < 0.01 and float(crop.std()) < 0.01


def test_faces_in_very_wide_pictures_are_cut_out():
    picture = np.zeros((64, 40000, 3), dtype=np.float32)
    picture[:, 39000:] = 0.5
    crop = align(picture, template() / 10 + (39500, 5))
    assert float(crop[200, 200, 0]) == 0.5


def test_a_face_outside_the_picture_is_refused():
    with pytest.raises(InputError, match="outside the 100 x 80 px picture"):
        align(np.zeros((80, 100, 3), dtype=np.float32), template() + 5000)


def test_the_outline_is_the_crop_s_corners_in_the_picture():
    matrix = face_matrix(template() + (10, 20))
    assert np.allclose(crop_outline(matrix, 448), [[10, 20], [457, 20], [457, 467], [10, 467]])
