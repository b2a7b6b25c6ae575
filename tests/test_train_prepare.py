"""Photos with captions to shards: what is kept, what is left out and why, and that a killed run goes on exactly."""

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from faceclip.detect import Detection
from faceclip.errors import FaceCLIPError, InputError
from faceclip.train.prepare import faces, photos, run, shards
from faceclip.train.prepare.faces import Filter
from faceclip.train.prepare.run import Settings, prepare

REPO = Path(__file__).resolve().parent.parent
LOOSE = Filter(min_side=100, min_face=40)


def picture(width: int = 160, height: int = 120, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def put(folder: Path, name: str, text: str | None = "a person", image: Image.Image | None = None, **options) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    (image or picture()).save(path, **options)
    if text is not None:
        path.with_suffix(".txt").write_text(text, encoding="utf-8")
    return path


def detection(x: float = 30, y: float = 20, size: float = 64, score: float = 0.9, turn: float = 0.0) -> Detection:
    """A face of `size` px; turn moves the nose to the side, in eye distances."""
    eye = size * 0.4
    middle, top = x + size / 2, y + size * 0.4
    points = (
        (middle - eye / 2, top),
        (middle + eye / 2, top),
        (middle + turn * eye, top + eye * 0.6),
        (middle - eye * 0.4, top + eye * 1.1),
        (middle + eye * 0.4, top + eye * 1.1),
    )
    return Detection((x, y, x + size, y + size), score, points)


class Scripted:
    """A detector that gives what it was told; called without faces it gives one."""

    name, provider, notice = "scripted", "CPU", None

    def __init__(self, *found: Detection):
        self.found = found or (detection(),)

    def detect(self, pixels):
        assert pixels.dtype == np.uint8 and pixels.ndim == 3
        return list(self.found)


def one(folder: Path, detector=None, wanted: Filter = LOOSE):
    """Sample and reasons for the only photo of a folder."""
    (photo,) = photos.find([folder]).photos
    sample, rejects = faces.prepare_photo(photo, detector or Scripted(), wanted)
    return sample, [reject.reason for reject in rejects]


@pytest.fixture
def scripted(monkeypatch):
    """`prepare` in this process with a detector that finds one face on every photo."""
    monkeypatch.setattr(run, "load_detector", lambda settings: Scripted())
    return Settings(Path("scripted.onnx"), LOOSE, photos_per_shard=3)


def contents(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(out.iterdir()) if path.is_file()}


def rejected(out: Path) -> dict[tuple[str, str], str]:
    with open(out / shards.REJECTS, encoding="utf-8", newline="") as file:
        return {(row["photo"], row["face"]): row["reason"] for row in csv.DictReader(file)}


def read_back(out: Path) -> list[dict]:
    webdataset = pytest.importorskip("webdataset")
    return list(webdataset.WebDataset(sorted(map(str, out.glob("*.tar"))), shardshuffle=False))


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
    assert set(face) == {"box", "landmarks", "score", "sharpness", "yaw"}


def test_a_large_photo_is_made_smaller_with_its_landmarks(tmp_path):
    put(tmp_path, "a.png")
    sample, _ = one(tmp_path, wanted=Filter(min_side=100, min_face=40, max_side=80))
    assert Image.open(io.BytesIO(sample["jpg"])).size == (80, 60)
    told = json.loads(sample["json"])
    assert told["size"] == [80, 60]
    assert np.allclose(told["faces"][0]["landmarks"], (np.array(detection().landmarks) + 0.5) / 2 - 0.5, atol=0.01)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "1", "I;16"])
def test_other_modes_become_rgb(tmp_path, mode):
    image = picture()
    image = Image.fromarray(np.full((120, 160), 40000, np.uint16)) if mode == "I;16" else image.convert(mode)
    put(tmp_path, "a.tif", image=image)
    sample, reasons = one(tmp_path, wanted=Filter(min_side=100, min_face=40, min_sharpness=0))
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
    sample, reasons = one(tmp_path, Scripted(small, large, *others), Filter(min_side=100, min_face=40, max_faces=2))
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
        ([detection()], Filter(min_side=100, min_sharpness=9.0), "blurred: sharpness"),
        ([detection()], Filter(), "160 x 120 px, at least 512 px a side"),
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
        def detect(self, pixels):
            return []

    class Failing(Scripted):
        def detect(self, pixels):
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
        sample, (reject,) = faces.prepare_photo(photo, Scripted(), LOOSE)
        assert sample is None and "leads out of the folder" in reject.reason


def test_sources_of_several_folders(tmp_path, scripted):
    put(tmp_path / "one", "a.png")
    put(tmp_path / "two", "a.png")
    found = photos.find([tmp_path / "two", tmp_path / "one"])
    assert [photo.source for photo in found.photos] == ["one/a.png", "two/a.png"]
    put(tmp_path / "more/one", "a.png")
    with pytest.raises(InputError, match="same name"):
        photos.find([tmp_path / "one", tmp_path / "more/one"])
    with pytest.raises(InputError, match="not a folder"):
        photos.find([tmp_path / "three"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="No photo below"):
        photos.find([tmp_path / "empty"])
    with pytest.raises(InputError, match="outside of it"):
        prepare([tmp_path / "one"], tmp_path / "one/out", scripted)


# --- shards


@pytest.fixture
def eight(tmp_path):
    """Eight photos: the fourth to sixth, one whole shard, have no caption."""
    folder = tmp_path / "photos"
    for number in range(8):
        put(folder, f"{number}.png", None if 3 <= number < 6 else f"person {number}", picture(seed=number))
    return folder


def test_shards_are_read_by_webdataset(tmp_path, eight, scripted):
    calls = []
    found = prepare([eight], tmp_path / "out", scripted, progress=lambda done, total: calls.append((done, total)))
    assert (found.photos, found.samples, found.faces, found.shards, found.rejected) == (8, 5, 5, 2, 3)
    assert calls == [(done, 8) for done in range(9)]
    samples = read_back(tmp_path / "out")
    assert [sample["__key__"] for sample in samples] == [f"{number:09d}" for number in (0, 1, 2, 6, 7)]
    assert [json.loads(sample["json"])["caption"] for sample in samples] == [f"person {n}" for n in (0, 1, 2, 6, 7)]
    assert samples[3]["png"] == (eight / "6.png").read_bytes()
    assert list(rejected(tmp_path / "out")) == [("3.png", ""), ("4.png", ""), ("5.png", "")]


def test_a_second_run_makes_only_what_is_missing(tmp_path, eight, scripted, monkeypatch):
    out = tmp_path / "out"
    prepare([eight], out, scripted)
    before = contents(out)
    last = out / "shard-000002.tar"
    last.write_bytes(last.read_bytes()[:100])  # no shard of ours is ever cut off, but disks fail
    (out / ".shard-000002.tar.1.partial").write_bytes(b"left over")
    seen = []
    real = run.prepare_photo
    monkeypatch.setattr(run, "prepare_photo", lambda photo, *rest: seen.append(photo.source) or real(photo, *rest))
    prepare([eight], out, scripted)
    assert seen == ["6.png", "7.png"]
    assert contents(out) == before


def test_a_cancelled_run_goes_on(tmp_path, eight, scripted):
    class Cancelled(Exception):
        pass

    def progress(done, total):
        if done == 7:
            raise Cancelled

    prepare([eight], tmp_path / "whole", scripted)
    with pytest.raises(Cancelled):
        prepare([eight], tmp_path / "out", scripted, progress=progress)
    assert list(contents(tmp_path / "out")) == ["shard-000000.tar"]
    prepare([eight], tmp_path / "out", scripted)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_parts_make_the_same_shards(tmp_path, eight, scripted):
    prepare([eight], tmp_path / "whole", scripted)
    first = prepare([eight], tmp_path / "out", scripted, part=(1, 2))
    assert (first.photos, first.unfinished) == (5, 1)
    second = prepare([eight], tmp_path / "out", scripted, part=(2, 2))
    assert (second.photos, second.unfinished) == (8, 0)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    with pytest.raises(InputError, match="3/2"):
        prepare([eight], tmp_path / "out", scripted, part=(3, 2))


def test_other_photos_or_options_need_another_folder(tmp_path, eight, scripted):
    out = tmp_path / "out"
    prepare([eight], out, scripted)
    with pytest.raises(InputError, match="min_face 40 then, 50 now"):
        prepare([eight], out, Settings(scripted.detector, Filter(min_side=100, min_face=50), 3))
    put(eight, "9.png")
    with pytest.raises(InputError, match="other photos or captions"):
        prepare([eight], out, scripted)
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign/shard-000000.tar").touch()
    with pytest.raises(InputError, match="not made here"):
        prepare([eight], tmp_path / "foreign", scripted)


def test_a_folder_that_cannot_be_written(tmp_path, eight, scripted):
    (tmp_path / "file").touch()
    with pytest.raises(FaceCLIPError, match="cannot be written"):
        prepare([eight], tmp_path / "file", scripted)


@pytest.mark.parametrize("wrong", [{"min_score": 2}, {"max_faces": 0}, {"max_yaw": -1}, {"min_face": float("nan")}])
def test_a_wrong_filter_is_refused(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        Filter(**wrong)


# --- real photos, the real detector, the real command


@pytest.fixture(scope="module")
def real(tmp_path_factory, photos):
    """The astronaut, six people, a portrait, the astronaut blurred and shrunk, half a file, one without a caption."""
    folder = tmp_path_factory.mktemp("real") / "photos"
    astronaut = Image.fromarray(photos["astronaut"])
    put(folder, "astronaut.jpg", "an astronaut", astronaut, quality=95)
    put(folder, "group/six.png", "six friends", Image.fromarray(photos["group"]))
    put(folder, "hanks.png", "a man", Image.fromarray(photos["hanks"]))
    put(folder, "no_caption.jpg", None, astronaut)
    put(folder, "blurred.png", "out of focus", astronaut.filter(ImageFilter.GaussianBlur(5)))
    put(folder, "small.png", "far away", _far(astronaut))
    broken = put(folder, "broken.jpg", "half", astronaut)
    broken.write_bytes(broken.read_bytes()[:9000])
    return folder


def _far(image: Image.Image) -> Image.Image:
    far = Image.new("RGB", (512, 512), (90, 90, 90))
    far.paste(image.resize((180, 180)), (160, 160))
    return far


def _command(folder: Path, out: Path, yunet: Path, *more: str) -> list[str]:
    return [
        *(sys.executable, "-m", "faceclip.train.prepare", str(folder), str(out), "--detector", str(yunet)),
        *("--min-side", "100", "--min-face", "50", "--photos-per-shard", "2", *more),
    ]


def _run(command: list[str], **options) -> subprocess.CompletedProcess:
    return subprocess.run(command, cwd=REPO, capture_output=True, text=True, timeout=600, **options)


def test_real_photos(tmp_path, real, yunet_path):
    out = tmp_path / "out"
    done = _run(_command(real, out, yunet_path, "--processes", "1", "--max-faces", "6", "--max-yaw", "60"))
    assert done.returncode == 0, done.stderr
    assert "3 of 7 photos with 8 faces" in done.stdout
    found = {json.loads(sample["json"])["source"]: sample for sample in read_back(out)}
    assert sorted(found) == ["astronaut.jpg", "group/six.png", "hanks.png"]
    assert len(json.loads(found["group/six.png"]["json"])["faces"]) == 6
    assert found["astronaut.jpg"]["jpg"] == (real / "astronaut.jpg").read_bytes()
    assert Image.open(io.BytesIO(found["hanks.png"]["face0.png"])).size == (448, 448)
    told = rejected(out)
    assert "damaged" in told["broken.jpg", ""]
    assert "no caption" in told["no_caption.jpg", ""]
    assert "blurred" in told["blurred.png", "1"]
    assert "px wide, at least 50 px" in told["small.png", "1"]


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there is no SIGKILL on Windows")
def test_killed_and_begun_again(tmp_path, real, yunet_path):
    out, whole = tmp_path / "out", tmp_path / "whole"
    assert _run(_command(real, whole, yunet_path, "--processes", "1")).returncode == 0
    started = subprocess.Popen(
        _command(real, out, yunet_path, "--processes", "2"), cwd=REPO, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        end = time.monotonic() + 300
        while not list(out.glob("shard-*.tar")) and started.poll() is None and time.monotonic() < end:
            time.sleep(0.005)
    finally:
        started.kill()
        started.wait()
    with pytest.raises(ProcessLookupError):  # the workers end with it
        for _ in range(1200):
            os.killpg(started.pid, 0)
            time.sleep(0.1)
    for name, data in contents(out).items():
        if name.endswith(".tar"):
            assert contents(whole)[name] == data
    done = _run(_command(real, out, yunet_path, "--processes", "2"))
    assert done.returncode == 0, done.stderr
    assert contents(out) == contents(whole)


def test_what_the_command_says_about_a_missing_detector(tmp_path, eight):
    done = _run(_command(eight, tmp_path / "out", tmp_path / "none.onnx"))
    assert done.returncode == 1
    assert done.stderr.startswith("error: There is no file")
