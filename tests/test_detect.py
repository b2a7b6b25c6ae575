"""Views, merging, folders, and YuNet on real photos (InsightFace: test_insightface.py)."""

import cv2
import numpy as np
import pytest
import scrfd

from faceclip.__main__ import main
from faceclip.errors import CheckpointError, InputError, ModelNotFoundError
from faceclip.faces.align import face_matrix, template, transform
from faceclip.faces.detect.base import Detection, Level, find_in_views, merge, views
from faceclip.faces.detect.insight import InsightFace
from faceclip.faces.detect.yunet import YuNet
from faceclip.install.places import find_insightface, find_yunet
from faceclip.install.published import YUNET

SURE = 0.6


def sure(detector, picture):
    return [face for face in detector.detect(picture) if face.score >= SURE]


def turn(picture, angle):
    height, width = picture.shape[:2]
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), angle, 1)
    return cv2.warpAffine(picture, matrix, (width, height), borderValue=(128,) * 3), matrix


def eye_distances(face, wanted) -> float:
    """Mean landmark error, in distances between the eyes."""
    wanted = np.asarray(wanted)
    error = np.linalg.norm(np.asarray(face.landmarks) - wanted, axis=1).mean()
    return error / np.linalg.norm(wanted[0] - wanted[1])


# --- views and merging, with a network that reports what it is shown


def test_views_cover_small_middling_and_huge_pictures():
    levels = (Level(160, border=True), Level(320), Level(640, 256), Level(1280, 160))

    def sides(size):
        return [max(v.image.shape[:2]) for v in views(np.zeros((size // 2, size, 3), np.uint8), levels)]

    assert sides(100) == [320, 320]  # 160 px and its border; then enlarged
    assert sides(500) == [320, 320, 500]
    assert sides(660) == [320, 320, 640]
    assert sides(6000) == [320, 320, 640, 1280]


@pytest.mark.parametrize("size", [(90, 70), (600, 900), (3000, 1111)])
def test_positions_in_every_view_lead_back_to_the_picture(size):
    """A bright dot's centre is found by weighing pixels, in each view by itself."""
    height, width = size
    picture = np.zeros((height, width, 3), np.uint8)
    spot = (height // 3, width // 2)
    radius = max(3, max(size) // 40)
    picture[spot[0] - radius : spot[0] + radius + 1, spot[1] - radius : spot[1] + radius + 1] = 255
    for view in views(picture, (Level(160, border=True), Level(320), Level(640))):
        inner = view.image[view.offset or None : -view.offset or None, view.offset or None : -view.offset or None, 0]
        rows, columns = np.nonzero(inner > 100)
        seen = np.array([[columns.mean() + view.offset, rows.mean() + view.offset]])
        assert np.abs(view.to_picture(seen) - (spot[1], spot[0])).max() < 1.0 / min(view.scale) + 0.5


def test_each_level_answers_only_for_the_face_sizes_it_is_good_at():
    def run(image):
        sizes = np.array([10.0, 40.0, 300.0])
        boxes = np.stack([sizes * 0, sizes * 0, sizes, sizes], axis=1) + 50 * np.arange(3)[:, None] * 5
        return boxes, np.full(3, 0.9), np.repeat(boxes[:, None, :2], 5, axis=1)

    picture = np.zeros((400, 400, 3), np.uint8)
    only = find_in_views(picture, (Level(400, largest_face=256),), run)
    assert sorted(round(face.width) for face in only) == [10, 40]  # the finest view keeps the small one


def test_merging_keeps_one_face_with_the_best_score():
    points = ((0.0, 0.0),) * 5
    faces = [
        Detection((0, 0, 100, 100), 0.8, points),
        Detection((5, 5, 105, 105), 0.9, points),
        Detection((20, 20, 50, 50), 0.5, points),  # an eye taken for a face
        Detection((90, 0, 190, 100), 0.7, points),  # a neighbour that touches
    ]
    assert [face.score for face in merge(faces)] == [0.9, 0.7]


# --- YuNet


def test_yunet_finds_all_six_people_and_nobody_else(yunet, photos):
    faces = sure(yunet, photos["group"])
    assert len(faces) == 6
    assert min(face.score for face in faces) > 0.85


@pytest.mark.parametrize("name", ["hanks", "astronaut"])
def test_yunet_finds_the_one_person(yunet, photos, name):
    assert len(sure(yunet, photos[name])) == 1


def test_landmarks_come_in_the_order_of_the_template(yunet, photos):
    for face in sure(yunet, photos["group"]) + sure(yunet, photos["astronaut"]):
        left, right, nose, mouth_left, mouth_right = face.landmarks
        assert left[0] < right[0] and mouth_left[0] < mouth_right[0]
        assert max(left[1], right[1]) < nose[1] < max(mouth_left[1], mouth_right[1])


def test_aligned_landmarks_come_near_the_template(yunet, photos):
    """Px of 448, root mean square: about 15 and 12 for the two frontal portraits, 6 to 34 for the group (turned heads).

    The five points of a turned head cannot all lie on a frontal template; the bound only catches wrong orders.
    """
    for name, bound in {"astronaut": 20, "hanks": 20, "group": 45}.items():
        for face in sure(yunet, photos[name]):
            error = transform(face_matrix(face.landmarks), face.landmarks) - template()
            assert np.sqrt((error**2).sum(axis=1).mean()) < bound


@pytest.mark.parametrize("zoom", [1.0, 1.3, 2.0])
@pytest.mark.parametrize("side", [200, 1500])
def test_yunet_finds_a_close_up_that_fills_the_picture_or_is_cut(yunet, photos, zoom, side):
    face = yunet.detect(photos["astronaut"])[0]
    half = max(face.width, face.height) / 2 / zoom
    x, y = (int(v) for v in face.centre)
    cut = photos["astronaut"][int(y - half) : int(y + half), int(x - half) : int(x + half)]
    faces = sure(yunet, cv2.resize(cut, (side, side), interpolation=cv2.INTER_CUBIC))
    assert len(faces) == 1
    wanted = (np.asarray(face.landmarks) - (int(x - half), int(y - half))) * side / cut.shape[0]
    assert eye_distances(faces[0], wanted) < 0.3


@pytest.mark.parametrize("side", [1000, 2400])
def test_yunet_finds_a_face_24_px_high_in_a_large_picture(yunet, photos, side):
    face = yunet.detect(photos["astronaut"])[0]
    part = 24 / face.height
    small = cv2.resize(photos["astronaut"], None, fx=part, fy=part, interpolation=cv2.INTER_AREA)
    picture = np.full((side * 3 // 4, side, 3), 120, np.uint8)
    picture[300 : 300 + small.shape[0], 500 : 500 + small.shape[1]] = small
    faces = sure(yunet, picture)
    assert len(faces) == 1
    assert np.abs(np.array(faces[0].box) - np.array(face.box) * part - (500, 300, 500, 300)).max() < 5


def test_yunet_finds_the_six_people_in_a_picture_6000_px_wide(yunet, photos):
    picture = photos["group"]
    large = cv2.resize(picture, (6000, 6000 * picture.shape[0] // picture.shape[1]), interpolation=cv2.INTER_CUBIC)
    small = sorted(face.centre for face in sure(yunet, picture))
    # Enlarged texture now and then passes for a small face; the six come first by size.
    faces = sorted(sure(yunet, large), key=lambda face: -face.area)[:6]
    assert np.allclose(sorted(face.centre for face in faces), np.array(small) * 6000 / picture.shape[1], atol=60)


@pytest.mark.parametrize("angle", [-30, 15, 30, 45, 60, 90, 180])
def test_a_turned_face_keeps_its_landmarks(yunet, photos, angle):
    upright = yunet.detect(photos["astronaut"])[0]
    picture, matrix = turn(photos["astronaut"], angle)
    faces = sure(yunet, picture)
    assert len(faces) == 1
    assert eye_distances(faces[0], transform(matrix, upright.landmarks)) < 0.15


def test_pictures_without_people_give_no_face(yunet):
    data = pytest.importorskip("skimage.data")
    for picture in (data.brick(), data.gravel(), data.coins(), data.chelsea(), data.coffee()):
        picture = np.stack([picture] * 3, axis=-1) if picture.ndim == 2 else picture
        assert sure(yunet, picture) == []


def test_yunet_leaves_the_picture_alone_and_answers_the_same_twice(yunet, photos):
    before = photos["astronaut"].copy()
    assert yunet.detect(photos["astronaut"]) == yunet.detect(photos["astronaut"])
    assert np.array_equal(before, photos["astronaut"])
    assert (yunet.provider, yunet.notice) == ("CPU", None)


@pytest.mark.parametrize("wrong", [np.zeros((64, 64), np.uint8), np.zeros((64, 64, 3), np.float32), [1]])
def test_a_detector_says_what_it_takes(yunet, wrong):
    with pytest.raises(InputError, match="uint8"):
        yunet.detect(wrong)


@pytest.mark.parametrize("kept", [0.5, 0.98])
def test_a_truncated_yunet_file_says_so(yunet_path, tmp_path, kept):
    path = tmp_path / YUNET.name
    data = yunet_path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(CheckpointError, match=f"not fully downloaded.*{len(path.read_bytes())} bytes.*232589"):
        YuNet(path)


def test_other_files_are_no_yunet(tmp_path):
    pytest.importorskip("onnx")
    text = tmp_path / "face_detection_yunet.onnx"
    for content in (b"<html>404</html>", b"", scrfd.write_recognizer(tmp_path / "r.onnx").read_bytes()):
        text.write_bytes(content)
        with pytest.raises(CheckpointError, match="another model"):
            YuNet(text)


def changed_yunet(data: bytes, place: int, before: int, after: int) -> bytes:
    """The official file with one byte that flips one bit: OpenCV dies on it, with SIGSEGV or SIGFPE."""
    assert data[place] == before
    return data[:place] + bytes([after]) + data[place + 1 :]


DEADLY = pytest.mark.parametrize(("place", "before", "after"), [(1234, 42, 34), (1344, 34, 32)])


@DEADLY
def test_a_yunet_file_with_one_flipped_bit_is_refused_and_not_opened(yunet_path, tmp_path, place, before, after):
    path = tmp_path / YUNET.name
    path.write_bytes(changed_yunet(yunet_path.read_bytes(), place, before, after))
    with pytest.raises(CheckpointError, match="not the published.*python -m faceclip allow-detector"):
        YuNet(path)  # opened, it ends this process


@DEADLY
def test_trying_a_deadly_detector_is_survived_and_allows_nothing(yunet_path, tmp_path, capsys, place, before, after):
    path = tmp_path / YUNET.name
    path.write_bytes(changed_yunet(yunet_path.read_bytes(), place, before, after))
    assert main(["allow-detector", str(path)]) == 1
    said = capsys.readouterr().err
    assert "died of SIG" in said or "OpenCV says" in said  # 4.8 refuses one of them in words
    assert list(tmp_path.iterdir()) == [path]


def test_another_detector_is_tried_allowed_and_refused_again_when_it_changes(yunet_path, tmp_path, photos, capsys):
    path = tmp_path / "mine.onnx"
    mine = yunet_path.read_bytes() + b"\x32\x04mine"  # the same model with another doc_string, so of another SHA-256
    path.write_bytes(mine)
    with pytest.raises(CheckpointError, match="allow-detector"):
        YuNet(path)
    assert main(["allow-detector", str(path)]) == 0
    assert "mine.onnx.allowed" in capsys.readouterr().out
    assert len(sure(YuNet(path), photos["astronaut"])) == 1
    path.write_bytes(mine[:-1] + b"f")
    with pytest.raises(CheckpointError, match="not the published"):
        YuNet(path)
    assert main(["allow-detector", str(yunet_path)]) == 0
    assert "nothing has to be allowed" in capsys.readouterr().out
    path.write_text("no model")
    assert main(["allow-detector", str(path)]) == 1 and main(["allow-detector", str(tmp_path)]) == 1


def test_yunet_works_from_a_folder_with_other_letters(yunet_path, tmp_path, photos):
    path = tmp_path / "modèles 模型" / YUNET.name
    path.parent.mkdir()
    path.write_bytes(yunet_path.read_bytes())
    assert len(sure(YuNet(path), photos["astronaut"])) == 1


# --- folders


def test_yunet_is_found_in_any_folder_and_subfolder(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    wanted = second / "opencv" / YUNET.name
    wanted.parent.mkdir(parents=True)
    wanted.touch()
    assert find_yunet([first, second]) == wanted


def test_a_missing_yunet_lists_every_folder_the_file_the_source_and_the_licence(tmp_path):
    folders = [tmp_path / "a", tmp_path / "b"]
    folders[1].mkdir()
    with pytest.raises(ModelNotFoundError) as error:
        find_yunet(folders)
    text = str(error.value)
    for part in (
        f"{folders[0]}  (does not exist)",
        f"{folders[1]}\n",
        YUNET.name,
        "opencv/face_detection_yunet",
        "MIT",
    ):
        assert part in text


@pytest.mark.parametrize("place", ["models/antelopev2", "models/antelopev2/antelopev2", "antelopev2"])
def test_a_pack_is_found_also_doubled_by_unzipping(tmp_path, place):
    pack = tmp_path / "other" / place
    pack.mkdir(parents=True)
    (pack / "scrfd_10g_bnkps.onnx").touch()
    assert find_insightface([tmp_path / "insightface", tmp_path / "other"], "antelopev2") == pack


def test_a_missing_pack_lists_every_folder_the_source_and_the_licence(tmp_path):
    folders = [tmp_path / "a", tmp_path / "b"]
    with pytest.raises(ModelNotFoundError) as error:
        find_insightface(folders, "buffalo_l")
    text = str(error.value)
    for folder in folders:
        for part in ("models/buffalo_l", "models/buffalo_l/buffalo_l", "buffalo_l"):
            assert str(folder / part) in text
    for part in ("det_*.onnx", "deepinsight/insightface", "non-commercial", "YuNet"):
        assert part in text


def test_a_pack_without_its_detector_says_so(tmp_path):
    pack = tmp_path / "models" / "buffalo_l"
    pack.mkdir(parents=True)
    (pack / "w600k_r50.onnx").touch()
    with pytest.raises(ModelNotFoundError, match="the pack is incomplete"):
        find_insightface([tmp_path], "buffalo_l")
    with pytest.raises(ModelNotFoundError, match="w600k_r50.onnx"):
        InsightFace(pack)
