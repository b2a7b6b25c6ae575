"""One photo with its caption to a sample: what is kept, what is left out and why."""

import io
import json

import numpy as np
import pytest
from astronaut import LANDMARKS
from photo_folders import LOOSE, Scripted, detection, one, picture, put
from PIL import Image

from faceclip.errors import InputError
from faceclip.faces.align import align
from faceclip.train.prepare import crops, photos
from faceclip.train.prepare.crops import Filter

# --- one photo


@pytest.mark.parametrize(("name", "suffix"), [("a.jpg", "jpg"), ("a.png", "png")])
def test_a_good_photo_keeps_its_bytes(tmp_path, name, suffix):
    path = put(tmp_path / "sub", name, "  Photo of\n a person ")
    sample, reasons = one(tmp_path)
    assert reasons == []
    assert list(sample) == [suffix, "face0.png", "json"]
    assert sample[suffix] == path.read_bytes()
    assert Image.open(io.BytesIO(sample["face0.png"])).size == (448, 448)
    told = json.loads(sample["json"])
    assert told["caption"] == "Photo of a person"
    assert told["source"] == f"sub/{name}"
    assert told["size"] == [160, 120]
    (face,) = told["faces"]
    assert face["box"] == [30, 20, 94, 84]
    assert np.allclose(face["landmarks"], detection().landmarks, atol=0.01)
    assert set(face) == {"box", "landmarks", "score", "sharpness", "yaw"}  # the person comes when all are known


def test_a_large_photo_is_made_smaller_with_its_landmarks(tmp_path):
    put(tmp_path, "a.png")
    sample, _ = one(tmp_path, wanted=Filter(min_side=100, resolution=0, min_face=40, max_side=80))
    assert Image.open(io.BytesIO(sample["jpg"])).size == (80, 60)
    told = json.loads(sample["json"])
    assert told["size"] == [80, 60]
    assert np.allclose(told["faces"][0]["landmarks"], (np.array(detection().landmarks) + 0.5) / 2 - 0.5, atol=0.01)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "1", "I;16"])
def test_other_modes_become_rgb(tmp_path, mode):
    image = picture()
    image = Image.fromarray(np.full((120, 160), 40000, np.uint16)) if mode == "I;16" else image.convert(mode)
    put(tmp_path, "a.tif", image=image)
    sample, reasons = one(tmp_path, wanted=Filter(min_side=100, resolution=0, min_face=40, min_sharpness=0))
    assert reasons == []
    assert Image.open(io.BytesIO(sample["jpg"])).mode == "RGB"


def test_a_turned_photo_is_set_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = put(tmp_path, "a.jpg", exif=exif)
    sample, _ = one(tmp_path)
    assert sample["jpg"] != path.read_bytes()
    stored = Image.open(io.BytesIO(sample["jpg"]))
    assert stored.size == (120, 160) and not stored.getexif().get(0x0112)


def test_several_faces_the_largest_first(tmp_path):
    put(tmp_path, "a.png", image=picture(400, 300))
    small, large = detection(20, 20, 60), detection(200, 60, 120)
    others = detection(120, 20, 30), detection(20, 180, 70, turn=1.0), detection(100, 180, 50)
    sample, reasons = one(
        tmp_path, Scripted(small, large, *others), Filter(min_side=100, resolution=0, min_face=40, max_faces=2)
    )
    told = json.loads(sample["json"])
    assert [face["box"][0] for face in told["faces"]] == [200, 20]
    assert [suffix for suffix in sample if suffix.startswith("face")] == ["face0.png", "face1.png"]
    assert len(reasons) == 3
    assert "turned by 62 degrees, at most 40 are wanted" in reasons[0]
    assert all("more than 2 faces" in reason for reason in reasons[1:])


@pytest.mark.parametrize(
    ("found", "wanted", "reason"),
    [
        ([detection(size=30)], LOOSE, "only 30 px wide, at least 40 px are wanted"),
        ([detection(turn=-0.6)], LOOSE, "turned by 49 degrees"),
        ([detection(score=0.5)], LOOSE, "no face was found; the best guess has the score 0.50, 0.6 is wanted"),
        ([detection()], Filter(min_side=100, resolution=0, min_sharpness=9.0), "blurred: sharpness"),
        ([detection()], Filter(), "160 x 120 px, at least 512 px a side"),
        ([detection()], Filter(min_side=100, min_face=40), "160 x 120 px do not fill a picture of 1152 x 896 px"),
        ([detection()], Filter(min_side=100, min_face=40, resolution=128, max_side=100), "100 x 75 px do not fill"),
    ],
)
def test_what_is_not_good_enough_is_told(tmp_path, found, wanted, reason):
    put(tmp_path, "a.png")
    sample, reasons = one(tmp_path, Scripted(*found), wanted)
    assert sample is None
    assert reason in " ".join(reasons)


def test_no_face_and_a_failing_detector(tmp_path):
    put(tmp_path, "a.png")

    class Nothing(Scripted):
        def detect(self, pixels, smallest=0.0):
            return []

    class Failing(Scripted):
        def detect(self, pixels, smallest=0.0):
            raise RuntimeError("out of GPU memory")

    assert one(tmp_path, Nothing()) == (None, ["no face was found"])
    assert one(tmp_path, Failing()) == (None, ["it cannot be used: RuntimeError: out of GPU memory"])


def test_damaged_files(tmp_path):
    path = put(tmp_path, "a.jpg")
    whole = path.read_bytes()
    for data, reason in [
        (whole[: len(whole) // 2], "damaged"),
        (b"<html>", "no picture"),
        (b"", "empty"),
        (whole[:20], "picture"),
    ]:
        path.write_bytes(data)
        sample, (told,) = one(tmp_path)
        assert sample is None and reason in told
        assert "0x" not in told  # no object's address


# --- captions


def test_captions_that_cannot_be_used(tmp_path):
    path = put(tmp_path, "a.jpg", None)
    assert "no caption: there is no a.txt" in one(tmp_path)[1][0]
    text = path.with_suffix(".txt")
    for data, reason in [(b" \n", "empty"), (b"\xff\xfe\xfd", "not UTF-8"), (b"x" * 20_000, "20000 characters")]:
        text.write_bytes(data)
        sample, (told,) = one(tmp_path)
        assert sample is None and reason in told


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("captions.csv", 'file,caption\nsub/a.png,"one, two"\nb.png,table\nnone.png,x\n../out.png,x\n'),
        (
            "captions.csv",
            '\ufeffcaption,file\r\n"one, two",sub\\a.png\r\ntable,b.png\r\nx,none.png\r\nx,../out.png\r\n',
        ),
        (
            "captions.jsonl",
            '{"file": "sub/a.png", "caption": "one, two"}\n\n{"file": "./b.png", "caption": "table"}\n'
            '{"file": "none.png", "caption": "x"}\n{"file": "../out.png", "caption": "x"}\n',
        ),
    ],
)
def test_tables_of_captions(tmp_path, name, text):
    folder = tmp_path / "photos"
    put(folder, "sub/a.png", None)
    put(folder, "b.png", "beside")
    put(tmp_path, "out.png", None)
    (folder / name).write_text(text, encoding="utf-8")
    found = photos.find([folder])
    assert [(photo.source, photos.caption(photo)) for photo in found.photos] == [
        ("b.png", "beside"),
        ("sub/a.png", "one, two"),
    ]
    assert found.unused == 2


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("captions.csv", "name,text\na,b\n", "begins with name, text"),
        ("captions.csv", "", "begins with nothing"),
        ("captions.jsonl", '{"file": "a.png"}\n', "line 1"),
        ("captions.jsonl", '{"file": "a.png", "caption": "x"}\n[1]\n', "line 2"),
        ("captions.jsonl", '{"file": 3, "caption": "x"}\n', "not text"),
    ],
)
def test_tables_that_cannot_be_read(tmp_path, name, text, reason):
    put(tmp_path, "a.png", None)
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=reason):
        photos.find([tmp_path])
    (tmp_path / "captions.csv").write_text("file,caption\n")
    (tmp_path / "captions.jsonl").write_text("")
    with pytest.raises(InputError, match="keep one"):
        photos.find([tmp_path])


# --- folders


def test_nothing_outside_the_folders_is_read(tmp_path):
    secret = put(tmp_path / "private", "secret.png", "a secret")
    folder = tmp_path / "photos"
    put(folder, "b.png", None)
    try:
        (folder / "a.png").symlink_to(secret)
        (folder / "b.txt").symlink_to(secret.with_suffix(".txt"))
        (folder / "all").symlink_to(secret.parent, target_is_directory=True)
    except OSError:
        pytest.skip("links cannot be made here")
    found = photos.find([folder]).photos
    assert [photo.source for photo in found] == ["a.png", "b.png"]
    for photo in found:
        sample, (reject,) = crops.prepare_photo(photo, Scripted(), LOOSE)
        assert sample is None and "leads out of the folder" in reject.reason


def test_the_quick_look_finds_the_same_faces(photos, yunet):
    """On the test photos at 2000 px: what is large enough to be kept, with landmarks that align it alike."""
    for name, count in (("group", 6), ("astronaut", 1)):
        image = Image.fromarray(photos[name])
        scale = 2000 / max(image.size)
        pixels = np.asarray(image.resize([round(side * scale) for side in image.size], Image.Resampling.LANCZOS))
        whole, quick = ([one for one in yunet.detect(pixels, least) if one.score >= 0.6] for least in (0, 64))
        assert len(whole) == len(quick) == count
        for face in whole:
            eyes = np.linalg.norm(np.subtract(*face.landmarks[:2]))
            assert min(np.abs(np.subtract(face.landmarks, other.landmarks)).max() for other in quick) < 0.15 * eyes


def test_a_face_cut_out_of_bytes_is_the_same(photos):
    pixels = photos["astronaut"]
    floats = np.divide(pixels, np.float32(255), dtype=np.float32)
    for size in (112, 448):
        assert np.array_equal(align(pixels, LANDMARKS, size), align(floats, LANDMARKS, size))
