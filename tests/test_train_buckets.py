"""The part of a photo that becomes a training picture: SDXL's shapes, and the face stays in it."""

import numpy as np
import pytest

from faceclip.train import buckets
from faceclip.train.buckets import LeftOut


def test_the_shapes_are_sdxl_s():
    sizes = buckets.sizes(1024)
    assert len(sizes) == 41 and (896, 1152) in sizes and (1152, 896) in sizes and sizes[0] == (1024, 1024)
    assert all(width % 64 == height % 64 == 0 and width * height <= 1.03 * 1024**2 for width, height in sizes)
    assert all(width % 8 == height % 8 == 0 for width, height in buckets.sizes(200))


@pytest.mark.parametrize(
    ("photo", "wanted"),
    [
        ((4000, 3000), (1152, 896)),
        ((3000, 4000), (896, 1152)),
        ((1600, 1600), (1024, 1024)),
        ((6000, 1000), (2048, 512)),
    ],
)
def test_a_photo_keeps_its_shape(photo, wanted):
    assert buckets.bucket(photo, 1024) == wanted
    assert buckets.bucket((1000, 1400), 1024) == (832, 1152)  # its shorter side alone is under 1024 px
    with pytest.raises(LeftOut, match="700 x 900 px do not fill a picture of 896 x 1152 px"):
        buckets.bucket((700, 900), 1024)


def test_no_cut_loses_more_than_a_tenth_of_the_face():
    """Faces anywhere on photos of any shape, also in groups; cuts of any shape, buckets and squares."""
    random = np.random.default_rng(0)
    left_out, held = 0, []
    for _ in range(3000):
        photo = tuple(int(side) for side in random.integers(1024, 4000, 2))
        target = buckets.bucket(photo, 1024, shapes=bool(random.integers(2)))
        scale = max(target[0] / photo[0], target[1] / photo[1])
        scaled = tuple(max(round(side * scale), least) for side, least in zip(photo, target, strict=True))
        side = random.uniform(0.05, 1.1) * min(scaled)
        corner = random.uniform(-0.1, 1.0, 2) * (np.array(scaled) - 0.8 * side)
        box = np.array([*corner, *(corner + (side, 1.3 * side))])
        inside = np.clip(box, 0, [*scaled, *scaled])
        try:
            left, top = buckets.cut(scaled, target, box, random)
        except LeftOut:
            left_out += 1
            continue
        assert 0 <= left <= scaled[0] - target[0] and 0 <= top <= scaled[1] - target[1]
        seen = np.clip(inside, (left, top) * 2, (left + target[0], top + target[1]) * 2)
        held.append(np.prod(seen[2:] - seen[:2]) / np.prod(inside[2:] - inside[:2]))
    assert min(held) >= 0.9 and np.mean(np.array(held) > 0.999) > 0.9
    assert left_out < 300  # faces larger than the cut


def test_a_face_in_the_middle_of_a_wide_photo_keeps_a_margin_and_the_cut_wanders():
    random = np.random.default_rng(0)
    places = [buckets.cut((2000, 1024), (1024, 1024), np.array([900, 300, 1100, 500]), random) for _ in range(300)]
    lefts = [left for left, top in places]
    assert {top for left, top in places} == {0}
    assert min(lefts) < 140 and max(lefts) > 830
    assert 1150 - 1024 <= min(lefts) and max(lefts) <= 850  # a quarter of the face around it


def test_a_face_outside_or_too_large_is_told():
    random = np.random.default_rng(0)
    with pytest.raises(LeftOut, match="outside of the photo"):
        buckets.cut((1024, 1024), (1024, 1024), np.array([-90, 0, -10, 50]), random)
    with pytest.raises(LeftOut, match="would hold 80% of the face's box") as told:
        buckets.cut((1024, 2000), (1024, 1024), np.array([0, 200, 1000, 1480]), random)
    assert told.value.kind == "face"
