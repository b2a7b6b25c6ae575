"""From a batch of pictures to aligned faces: checks, order, index, errors, preview."""

import numpy as np
import pytest
import torch

from faceclip.errors import InputError, NoFaceError
from faceclip.faces.align import template
from faceclip.faces.detect.base import Detection
from faceclip.faces.face import (
    FACE_ORDERS,
    ON_NO_FACE,
    Face,
    align_faces,
    detect_faces,
    find_faces,
    sort_faces,
    use_aligned,
)
from faceclip.faces.pictures import Pictures, check_pictures, to_bytes
from faceclip.faces.preview import draw_preview
from faceclip.faces.quality import report


def batch(*pictures) -> torch.Tensor:
    return torch.from_numpy(np.stack(pictures)).float() / 255


def face(x0, y0, size, score=0.9) -> Detection:
    points = template(int(size)) + (x0, y0)
    return Detection((x0, y0, x0 + size, y0 + size), score, tuple(map(tuple, points.tolist())))


class Scripted:
    """A detector that gives what it was told, one list for each picture."""

    name, provider, notice = "scripted", "CPU", None

    def __init__(self, *answers):
        self.answers = list(answers)
        self.seen = []

    def detect(self, picture, smallest=0.0):
        self.seen.append(picture)
        return self.answers[len(self.seen) - 1]


GREY = torch.full((1, 200, 300, 3), 0.5)


# --- pictures


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_float_pictures_pass_unchanged_and_untouched(dtype):
    images = torch.rand(2, 20, 30, 3).to(dtype)
    before = images.clone()
    checked = check_pictures(images)
    assert checked.dtype == torch.float32 and torch.equal(checked, before.float())
    checked.zero_()
    assert torch.equal(images, before)


@pytest.mark.parametrize("beyond", [0.0005, 0.2, 0.45])
def test_what_a_resampler_leaves_outside_the_range_is_clipped(beyond):
    images = GREY.clone()
    images[0, 0, 0], images[0, 0, 1] = -beyond, 1 + beyond
    before = images.clone()
    checked = check_pictures(images)
    assert float(checked.min()) == 0 and float(checked.max()) == 1
    assert torch.equal(images, before)


@pytest.mark.parametrize(
    "images",
    [
        torch.rand(2, 3, 60, 80).permute(0, 2, 3, 1),  # channels first in memory, as VAEDecode gives them
        torch.rand(2, 80, 60, 3).transpose(1, 2),
        torch.rand(2, 60, 80, 3).flip(2),
        torch.rand(2, 60, 80, 4)[..., :3],
        torch.rand(1, 60, 80, 3).expand(2, -1, -1, -1),
        torch.rand(2, 60, 80, 1).expand(-1, -1, -1, 3),
    ],
)
def test_pictures_come_out_in_one_memory_layout_and_can_be_drawn_on(images):
    checked = check_pictures(images)
    assert checked.is_contiguous() and torch.equal(checked, images)
    drawn = draw_preview(images, [[face(5, 5, 40)]] * 2, index=0)
    assert torch.equal(drawn, draw_preview(images.contiguous(), [[face(5, 5, 40)]] * 2, index=0))


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (torch.rand(1, 1, 1, 3), r"1 x 1 px; at least 16"),
        (torch.rand(1, 64, 64, 4), r"alpha channel. Lay it on a background"),
        (torch.rand(1, 64, 64, 1), r"one grey channel.*turn it into RGB"),
        (torch.rand(1, 3, 64, 64), r"64 channels.*channels seem to come first"),
        (torch.rand(1, 64, 64, 2), r"2 channels"),
        (torch.rand(64, 64, 3), r"shape \(64, 64, 3\); \[B, H, W, 3\]"),
        (torch.rand(0, 64, 64, 3), r"no picture"),
        (torch.rand(1, 64, 64, 3) * 255, r"run from .* to 25.*divide by 255"),
        (torch.rand(1, 64, 64, 3) * 2 - 1, r"run from -.* 0 to 1 is wanted.*add 1 and halve it"),
        (torch.randn(1, 64, 64, 3), r"run from -.*Bring it to 0 to 1"),
        (torch.full((1, 64, 64, 3), float("nan")), r"NaN"),
        (torch.full((1, 64, 64, 3), float("inf")), r"infinite"),
        (torch.zeros(1, 64, 64, 3, dtype=torch.uint8), r"torch.uint8; floats"),
        (torch.zeros(1).expand(1, 40_000, 40_000, 3), r"40000 x 40000 px, 1600 million pixels; at most 200 million"),
        (torch.rand(1, 64, 64, 3).to_sparse(), r"a sparse tensor"),
        (torch.rand(1, 64, 64, 3, device="meta"), r"without values"),
        (torch.nested.nested_tensor([torch.rand(64, 64, 3)]), r"a nested tensor"),
        (np.zeros((1, 64, 64, 3), np.float32), r"ndarray"),
        (None, r"NoneType"),
    ],
)
def test_pictures_that_cannot_be_used_say_what_was_seen_and_what_to_do(images, said):
    with pytest.raises(InputError, match=said):
        check_pictures(images)
    with pytest.raises(InputError, match=said):
        find_faces(images, Scripted([]))
    with pytest.raises(InputError, match=said):
        use_aligned(images)


def test_pictures_checked_once_are_not_checked_again():
    """A check takes 0.1 s of the processor at 12 megapixels, and Align Face has four steps."""
    pictures = Pictures(GREY)
    pictures.pixels[0, 0, 0] = float("nan")  # in the corner, where no face is: a second check would refuse it
    found = detect_faces(pictures, Scripted([face(100, 50, 80)]))
    aligned = align_faces(pictures, found)
    assert torch.equal(aligned.crops, find_faces(GREY, Scripted([face(100, 50, 80)])).crops)
    assert draw_preview(pictures, found).shape == GREY.shape and "picture 1" in report(pictures, aligned)
    assert Pictures(pictures).pixels is pictures.pixels and len(pictures) == 1


# --- order, index, score


def test_faces_come_in_the_order_asked_for():
    left_top, middle, right_bottom = face(10, 5, 40), face(100, 60, 90), face(240, 130, 20)
    orders = {
        "large-small": [middle, left_top, right_bottom],
        "small-large": [right_bottom, left_top, middle],
        "left-right": [left_top, middle, right_bottom],
        "right-left": [right_bottom, middle, left_top],
        "top-bottom": [left_top, middle, right_bottom],
        "bottom-top": [right_bottom, middle, left_top],
    }
    assert set(orders) == set(FACE_ORDERS)
    for order, wanted in orders.items():
        assert sort_faces([middle, right_bottom, left_top], order) == wanted
    with pytest.raises(InputError, match="large-small, small-large"):
        sort_faces([middle], "biggest")


def test_the_index_takes_that_face_and_the_details_say_where_it_was():
    faces = [face(10, 5, 40), face(100, 60, 90)]
    found = find_faces(GREY, Scripted(faces), "large-small", index=1)
    (detail,) = found.details
    assert detail.box == faces[0].box and detail.landmarks == faces[0].landmarks
    assert (detail.picture, detail.picture_size, detail.others) == (0, (300, 200), 1)


def test_an_index_past_the_last_names_the_faces_found_and_the_picture():
    images = GREY.repeat(2, 1, 1, 1)
    detector = Scripted([face(10, 5, 40), face(100, 60, 90)], [face(10, 5, 40)])
    with pytest.raises(InputError, match=r"index 1 is past the last: 1 face was found in picture 2 of 2.*index is 0"):
        find_faces(images, detector, index=1)
    with pytest.raises(InputError, match="2 faces were found in the picture, .* the last index is 1"):
        find_faces(GREY, Scripted([face(10, 5, 40), face(100, 60, 90)]), index=7)


@pytest.mark.parametrize("index", [-1, 0.5, True, None])
def test_an_index_that_is_no_whole_number_from_0_is_refused(index):
    with pytest.raises(InputError, match="whole number"):
        find_faces(GREY, Scripted([face(10, 5, 40)]), index=index)


def test_faces_below_the_minimum_score_are_left_out():
    faces = [face(10, 5, 40, 0.55), face(100, 60, 50, 0.95)]
    assert len(detect_faces(GREY, Scripted(faces), min_score=0.5)[0]) == 2
    assert detect_faces(GREY, Scripted(faces), min_score=0.6)[0] == faces[1:]
    with pytest.raises(InputError, match="minimum score"):
        detect_faces(GREY, Scripted(faces), min_score=0.1)


def test_no_face_names_the_size_and_the_best_score_seen():
    with pytest.raises(NoFaceError, match=r"300 x 200 px.*best score seen is 0.52; at least 0.60.*Lower the minimum"):
        find_faces(GREY, Scripted([face(10, 5, 40, 0.45), face(10, 5, 40, 0.52)]))
    with pytest.raises(
        NoFaceError, match=r"in the picture \(300 x 200 px\)\. Nothing .* looks like a face.*Use a photo"
    ):
        find_faces(GREY, Scripted([]))


def test_no_face_names_every_picture_of_the_batch_that_has_none():
    images = GREY.repeat(4, 1, 1, 1)
    one = [face(10, 5, 40)]
    with pytest.raises(NoFaceError, match=r"in picture 2 of 4 .*also pictures 4\.") as error:
        find_faces(images, Scripted(one, [], one, []))
    assert "picture 3" not in str(error.value)


def test_a_real_photo_of_no_one_ends_in_the_clear_error(yunet):
    data = pytest.importorskip("skimage.data")
    with pytest.raises(NoFaceError, match="451 x 300 px"):
        find_faces(batch(data.chelsea()), yunet)


# --- on_no_face


def test_a_picture_without_a_face_is_skipped_and_logged(caplog):
    images = torch.rand(3, 200, 300, 3)
    faces = [face(10, 5, 40)], [], [face(100, 60, 90)]
    found = find_faces(images, Scripted(*faces), on_no_face="skip image")
    assert [detail.picture for detail in found.details] == [0, 2]
    whole = align_faces(images[2:], [faces[2]])
    assert torch.equal(found.crops[1:], whole.crops)
    assert "No face was found in picture 2 of 3: it is skipped." in caplog.text


def test_a_batch_without_any_face_is_not_skipped():
    images = GREY.repeat(2, 1, 1, 1)
    with pytest.raises(NoFaceError, match="in picture 1 of 2 .*also pictures 2"):
        find_faces(images, Scripted([], [face(10, 5, 40, score=0.4)]), on_no_face="skip image")
    with pytest.raises(NoFaceError, match="All 2 pictures were skipped"):
        align_faces(images, [[], []], on_no_face="skip image")


@pytest.mark.parametrize(("height", "width"), [(448, 600), (600, 448), (448, 448)])
def test_the_whole_picture_is_its_middle_square(height, width, caplog):
    images = torch.rand(2, height, width, 3)
    before = images.clone()
    found = find_faces(images, Scripted([], [face(10, 5, 40)]), on_no_face="use whole picture")
    top, left = (height - 448) // 2, (width - 448) // 2
    assert torch.equal(found.crops[0], images[0, top : top + 448, left : left + 448].permute(2, 0, 1))  # HWC -> CHW
    assert found.details[0] is None and found.details[1].picture == 1
    assert torch.equal(images, before)
    assert "No face was found in picture 1 of 2: the whole picture is used instead." in caplog.text


@pytest.mark.parametrize("side", [16, 1000])
def test_the_whole_picture_is_scaled_to_the_crops_size(side):
    images = torch.linspace(0, 1, side)[None, :, None, None].expand(1, side, side + 40, 3)
    found = find_faces(images, Scripted([]), on_no_face="use whole picture")
    assert found.crops.shape == (1, 3, 448, 448)
    wanted = torch.linspace(0, 1, 448)[:, None].expand(448, 448)
    assert float((found.crops[0, 0] - wanted).abs().max()) < 0.05


@pytest.mark.parametrize("choice", ON_NO_FACE)
def test_pictures_with_faces_are_the_same_whatever_the_choice(choice, caplog):
    images = torch.rand(2, 200, 300, 3)
    faces = [face(10, 5, 40)], [face(100, 60, 90)]
    found, wanted = find_faces(images, Scripted(*faces), on_no_face=choice), find_faces(images, Scripted(*faces))
    assert torch.equal(found.crops, wanted.crops) and found.details == wanted.details
    assert caplog.text == ""


@pytest.mark.parametrize("choice", ["error", "use whole picture"])
def test_an_index_past_the_last_is_an_error_unless_pictures_are_skipped(choice):
    with pytest.raises(InputError, match="index 1 is past the last: 1 face"):
        find_faces(GREY, Scripted([face(10, 5, 40)]), index=1, on_no_face=choice)


def test_a_picture_that_lacks_the_face_asked_for_is_skipped_like_one_without_any(caplog):
    images = GREY.repeat(3, 1, 1, 1)
    faces = [face(10, 5, 40)], [face(10, 5, 40), face(100, 60, 90)], []
    found = detect_faces(images, Scripted(*faces), on_no_face="skip image")
    taken = align_faces(images, found, index=1, on_no_face="skip image")
    assert [detail.picture for detail in taken.details] == [1]
    assert "picture 1: 1 face was found, none has the index 1: it is skipped." in caplog.text
    told = report(images, taken, 1, found).splitlines()
    assert told[0] == "picture 1: 1 face was found, none has the index 1, skipped"
    assert told[1].startswith("picture 2: face 1 of 2") and told[-1] == "picture 3: no face, skipped"
    with pytest.raises(NoFaceError, match="skipped(.|\n)*picture 1: 1 face(.|\n)*lower index(.|\n)*picture 2: no face"):
        align_faces(images[::2], found[::2], index=1, on_no_face="skip image")


@pytest.mark.parametrize(("index", "works"), [(1, "lower the minimum score to 0.52"), (2, "0.41"), (3, None)])
def test_what_is_advised_for_a_face_past_the_last_helps(index, works):
    """The minimum score is named only where more faces lie below it, and the number named finds the one wanted."""
    everyone = [face(10, 5, 40), face(60, 5, 40, 0.528), face(110, 5, 40, 0.415)]
    with pytest.raises(InputError) as error:
        find_faces(GREY, Scripted(everyone), index=index)
    if works is None:
        assert "minimum score" not in str(error.value) and "Choose a lower index" in str(error.value)
        return
    assert works in str(error.value)
    score = float(works.split()[-1])
    assert len(find_faces(GREY, Scripted(everyone), index=index, min_score=score)) == 1


# --- lists


def test_pictures_of_different_sizes_come_as_a_list_and_count_as_one_batch():
    images = [torch.rand(1, 200, 300, 3), torch.rand(2, 120, 160, 3)]
    faces = [face(10, 5, 40)], [], [face(60, 20, 50)]
    found = detect_faces(images, Scripted(*faces), on_no_face="skip image")
    taken = align_faces(images, found, on_no_face="skip image")
    assert [(one.picture, one.picture_size) for one in taken.details] == [(0, (300, 200)), (2, (160, 120))]
    alone = align_faces(images[1][1:], [found[2]])
    assert torch.equal(taken.crops[1:], alone.crops)
    drawn = draw_preview(images, found, 0)
    assert [tuple(one.shape) for one in drawn] == [(200, 300, 3), (120, 160, 3), (120, 160, 3)]
    assert "picture 2: no face, skipped" in report(images, taken, 0, found)
    with pytest.raises(InputError, match="differ in size"):
        check_pictures(Pictures(images))


def test_a_list_of_one_batch_is_that_batch():
    images = torch.rand(2, 200, 300, 3)
    faces = [face(10, 5, 40)], [face(100, 60, 90)]
    one, other = (find_faces(given, Scripted(*faces)) for given in (images, [images]))
    assert torch.equal(one.crops, other.crops) and one.details == other.details
    assert torch.equal(draw_preview([images], faces, 0), draw_preview(images, faces, 0))
    with pytest.raises(InputError, match="list holds no picture"):
        Pictures([])


def test_each_picture_may_have_an_index_of_its_own():
    images = GREY.repeat(2, 1, 1, 1)
    both = [face(10, 5, 40), face(100, 60, 90)]
    taken = align_faces(images, [both, both], [0, 1])
    assert [one.box for one in taken.details] == [both[0].box, both[1].box]
    with pytest.raises(InputError, match="3 face indices for 2 pictures"):
        align_faces(images, [both, both], [0, 1, 0])


def test_an_unknown_choice_is_refused_before_any_work():
    detector = Scripted([])
    with pytest.raises(InputError, match="error, skip image, use whole picture"):
        detect_faces(GREY, detector, on_no_face="ignore")
    with pytest.raises(InputError, match="on_no_face is 'ignore'"):
        align_faces(GREY, [[]], on_no_face="ignore")
    assert detector.seen == []


# --- progress and cancel


def test_progress_is_told_after_each_picture():
    calls = []
    one = [face(10, 5, 40)]
    find_faces(GREY.repeat(3, 1, 1, 1), Scripted(one, one, one), progress=lambda *seen: calls.append(seen))
    assert calls == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize("kind", [Exception, BaseException])
def test_a_cancel_goes_through_and_stops_the_work(kind):
    class Cancel(kind):
        pass

    def cancel(done, total):
        if done == 2:
            raise Cancel

    one = [face(10, 5, 40)]
    detector = Scripted(*[one] * 5)
    with pytest.raises(Cancel):
        find_faces(GREY.repeat(5, 1, 1, 1), detector, progress=cancel)
    assert len(detector.seen) == 2


# --- crops


def test_a_face_that_lies_on_the_template_is_cut_out_exactly():
    images = torch.rand(1, 600, 700, 3)
    found = find_faces(images, Scripted([face(100, 50, 448)]))
    assert found.crops.dtype == torch.float32
    assert torch.equal(found.crops[0], images[0, 50:498, 100:548].permute(2, 0, 1))  # HWC -> CHW


def test_one_face_of_each_picture_of_a_real_batch(yunet, photos):
    images = batch(*[photos["group"]] * 2)
    before = images.clone()
    found = find_faces(images, yunet, "left-right", index=5)
    assert found.crops.shape == (2, 3, 448, 448) and len(found) == 2
    assert torch.equal(found.crops[0], found.crops[1])
    assert [detail.others for detail in found.details] == [5, 5]
    assert found.details[0].box[0] > 1000
    assert torch.equal(images, before)
    with pytest.raises(InputError, match="index 6 is past the last: 6 faces"):
        find_faces(images[:1], yunet, index=6)


def test_margin_shows_more_of_the_same_face(yunet, photos):
    """The middle of a crop with margin 2 is the plain crop at half the size."""
    images = batch(photos["astronaut"])
    plain, wide = (find_faces(images, yunet, margin=margin).crops for margin in (1.0, 2.0))
    half = torch.nn.functional.interpolate(plain, (224, 224), mode="area")
    middle = wide[:, :, 112:336, 112:336]
    # Half a pixel apart: both are the picture's own pixels, enlarged.
    assert float((half - middle).abs().mean()) < 0.01


def test_ready_made_crops_are_taken_as_they_are():
    images = torch.rand(2, 224, 224, 3)
    ready = use_aligned(images)
    assert torch.equal(ready.crops, images.permute(0, 3, 1, 2)) and ready.details == (None, None)


@pytest.mark.parametrize("shape", [(1, 300, 200, 3), (1, 64, 64, 3)])
def test_pictures_that_are_no_crops_are_refused(shape):
    with pytest.raises(InputError, match="Align Face"):
        use_aligned(torch.rand(shape))


def test_a_face_checks_itself():
    with pytest.raises(InputError, match=r"\[N, 3, S, S\]"):
        Face(torch.rand(1, 3, 10, 20), (None,))
    with pytest.raises(InputError, match="2 crops but 1 details"):
        Face(torch.rand(2, 3, 20, 20), (None,))


def test_detections_of_another_batch_are_refused():
    for use in (align_faces, draw_preview):
        with pytest.raises(InputError, match="1 pictures, but detections for 2"):
            use(GREY, [[face(10, 5, 40)]] * 2)


# --- preview


def test_the_preview_marks_faces_and_leaves_the_input_alone():
    images = GREY.repeat(2, 1, 1, 1)
    before = images.clone()
    drawn = draw_preview(images, [[face(20, 60, 60), face(150, 60, 80)], [face(-40, -30, 400)]], index=1)
    assert drawn.shape == images.shape and drawn.dtype == torch.float32
    assert torch.equal(images, before)
    assert 0 <= float(drawn.min()) and float(drawn.max()) <= 1
    other, chosen = drawn[0, 120, 20], drawn[0, 100, 150]
    assert other[0] > 0.9 and other[2] < 0.3  # orange
    assert chosen[1] > 0.9 and chosen[0] < 0.4  # green
    assert float((drawn[0] - images[0]).abs()[:30, 200:].max()) < 0.01  # nothing where nobody is


def test_a_preview_of_no_faces_is_the_picture():
    assert float((draw_preview(GREY, [[]]) - GREY).abs().max()) < 0.003


def test_a_large_photo_is_shown_small_and_its_bytes_are_those_of_numpy():
    images = torch.rand(1, 900, 2400, 3, generator=torch.Generator().manual_seed(1))
    images[0, 0, :256, 0] = torch.arange(256) / 255
    images[0, 1, :255, 0] = (torch.arange(255) + 0.5) / 255
    assert (to_bytes(images[0]) == (images[0].numpy() * 255).round().astype(np.uint8)).all()
    drawn = draw_preview(images, [[face(1200, 300, 300)]], index=0)
    assert drawn.shape == (1, 600, 1600, 3)
    green = torch.tensor([50, 255, 75]) / 255
    assert torch.allclose(drawn[0, 300, 800], green), "the box stands where the face is"
