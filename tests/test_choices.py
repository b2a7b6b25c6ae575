"""What a person needs to choose a face by eye."""

import pytest
import torch

from faceclip.errors import InputError
from faceclip.faces import choices
from faceclip.faces.face import detect_faces
from faceclip.faces.pictures import Pictures


@pytest.mark.parametrize(
    ("text", "indices"), [("", None), ("  ", None), ("2", [2, 2, 2]), ("0, 2, 1", [0, 2, 1]), ("0 2 1", [0, 2, 1])]
)
def test_one_number_is_for_all_pictures_and_several_for_one_each(text, indices):
    assert choices.parse_choice(text, 3) == indices


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("0, 1", "for 2 pictures .0, 1., but 3"),
        ("a", "wanted whole numbers"),
        ("-1", "from 0"),
        ("²", "from 0"),
    ],
)
def test_other_choices_are_refused(text, said):
    with pytest.raises(InputError, match=said):
        choices.parse_choice(text, 3)


def test_faces_are_told_with_their_place_in_the_picture(photos, yunet):
    group = torch.from_numpy(photos["group"].copy()).float()[None] / 255
    pictures = Pictures(group)
    (told,) = choices.describe_choices(pictures, detect_faces(pictures, yunet), [3])
    assert (told["width"], told["height"], told["chosen"]) == (1280, 886, 3)
    assert len(told["faces"]) == 6
    for face in told["faces"]:
        x, y, width, height = face["box"]
        assert 0 <= x < x + width <= 1 and 0 <= y < y + height <= 1
        assert face["size"] == pytest.approx([width * 1280, height * 886], abs=0.5)
    assert any("head" in warning for face in told["faces"] for warning in face["warnings"])


def test_a_picture_to_choose_from_is_small_and_whole(photos):
    group = torch.from_numpy(photos["group"].copy()).float()[None] / 255
    astronaut = torch.from_numpy(photos["astronaut"].copy()).float()[None] / 255
    small, as_it_is = choices.small_pictures(Pictures([group, astronaut]))
    assert small.shape == (1, 709, 1024, 3)
    assert torch.equal(as_it_is, astronaut)
    assert (small.mean((0, 1, 2)) - group.mean((0, 1, 2))).abs().max() < 0.005
