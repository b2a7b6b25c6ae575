"""Folders of photos to shards, by the command too: which photos, parts, and that a killed run goes on exactly."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from photo_folders import LOOSE, Scripted, contents, picture, put, read_back, rejected
from PIL import Image, ImageFilter
from recogniser import recognition_model
from writers import left_over

from faceclip.errors import FaceCLIPError, InputError
from faceclip.identity.judge import SFaceJudge
from faceclip.install import published
from faceclip.train.prepare import photos, shard_job
from faceclip.train.prepare.crops import Filter
from faceclip.train.prepare.shard_job import Settings, prepare

REPO = Path(__file__).resolve().parent.parent


@pytest.fixture
def scripted(monkeypatch):
    """`prepare` in this process with a detector that finds one face on every photo."""
    monkeypatch.setattr(shard_job, "load_detector", lambda settings: Scripted())
    return Settings(Path("scripted.onnx"), LOOSE, photos_per_shard=3)


# --- folders


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
    numbers = [int(sample["__key__"]) for sample in samples]
    assert sorted(numbers) == [0, 1, 2, 6, 7] and numbers != sorted(numbers)  # mixed over all photos
    for number, sample in zip(numbers, samples, strict=True):
        assert json.loads(sample["json"])["caption"] == f"person {number}"
        assert sample["png"] == (eight / f"{number}.png").read_bytes()
    assert list(rejected(tmp_path / "out")) == [("3.png", ""), ("4.png", ""), ("5.png", "")]
    assert not list((tmp_path / "out/.prepare").glob("found-*"))  # what the shards were made of


def test_a_second_run_makes_only_what_is_missing(tmp_path, eight, scripted, monkeypatch):
    out = tmp_path / "out"
    stop = pytest.MonkeyPatch()
    stop.setattr(shard_job, "write_shards", lambda *everything: None)
    prepare([eight], out, scripted)
    stop.undo()
    last = out / ".prepare/found-000002.tar"
    last.write_bytes(last.read_bytes()[:100])  # no file of ours is ever cut off, but disks fail
    left_over(last)
    seen = []
    real = shard_job.prepare_photo
    monkeypatch.setattr(
        shard_job, "prepare_photo", lambda photo, *rest: seen.append(photo.source) or real(photo, *rest)
    )
    prepare([eight], out, scripted)
    assert seen == ["6.png", "7.png"]
    before = contents(out)
    prepare([eight], out, scripted)
    assert len(seen) == 2 and contents(out) == before
    (out / "shard-000001.tar").unlink()  # what it was made of is gone
    prepare([eight], out, scripted)
    assert len(seen) == 7 and contents(out) == before  # the block without a sample is known


def test_a_cancelled_run_goes_on(tmp_path, eight, scripted):
    class Cancelled(Exception):
        pass

    def progress(done, total):
        if done == 7:
            raise Cancelled

    prepare([eight], tmp_path / "whole", scripted)
    with pytest.raises(Cancelled):
        prepare([eight], tmp_path / "out", scripted, progress=progress)
    assert not contents(tmp_path / "out") and len(list((tmp_path / "out/.prepare").glob("found-*"))) == 1
    prepare([eight], tmp_path / "out", scripted)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_parts_make_the_same_shards(tmp_path, eight, scripted):
    prepare([eight], tmp_path / "whole", scripted)
    first = prepare([eight], tmp_path / "out", scripted, part=(1, 2))
    assert (first.photos, first.shards, first.unfinished) == (5, 0, 1)
    second = prepare([eight], tmp_path / "out", scripted, part=(2, 2))
    assert (second.photos, second.shards, second.unfinished) == (8, 2, 0)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    with pytest.raises(InputError, match="3/2"):
        prepare([eight], tmp_path / "out", scripted, part=(3, 2))


def test_other_photos_or_options_need_another_folder(tmp_path, eight, scripted):
    out = tmp_path / "out"
    prepare([eight], out, scripted)
    with pytest.raises(InputError, match="min_face 40 then, 50 now"):
        prepare([eight], out, Settings(scripted.detector, Filter(min_side=100, resolution=0, min_face=50), 3))
    (eight / "0.txt").write_text("person A")  # as long as the one before
    with pytest.raises(InputError, match="other photos or captions"):
        prepare([eight], out, scripted)
    (eight / "0.txt").write_text("person 0")
    prepare([eight], out, scripted)
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


# --- people


def _told(out: Path) -> dict[str, dict]:
    return {json.loads(sample["json"])["source"]: sample for sample in read_back(out)}


def test_people_by_folder_come_with_faces_of_their_other_photos(tmp_path, scripted):
    photos = tmp_path / "photos"
    for number, name in enumerate(("ada/1", "ada/2", "ada/3", "bob/1", "alone")):
        put(photos, f"{name}.png", image=picture(seed=number))
    prepare([photos], tmp_path / "out", replace(scripted, person="folder"))
    told = _told(tmp_path / "out")
    people = {name: json.loads(sample["json"])["faces"][0]["person"] for name, sample in told.items()}
    assert people == {"ada/1.png": "ada", "ada/2.png": "ada", "ada/3.png": "ada", "bob/1.png": "bob", "alone.png": None}
    others = {name: {key for key in sample if ".other" in key} for name, sample in told.items()}
    assert others["ada/1.png"] == {"face0.other0.png", "face0.other1.png"}
    assert others["bob/1.png"] == others["alone.png"] == set()
    faces = {told[f"ada/{n}.png"][key] for n in (1,) for key in others["ada/1.png"]}
    assert faces == {told["ada/2.png"]["face0.png"], told["ada/3.png"]["face0.png"]}


def test_people_by_table(tmp_path, scripted):
    photos = tmp_path / "photos"
    for number in range(3):
        put(photos, f"{number}.png", None, picture(seed=number))
    (photos / "captions.csv").write_text("file,caption,person\n0.png,a,ada\n1.png,b,\n2.png,c,ada\n")
    prepare([photos], tmp_path / "out", replace(scripted, others=1))
    told = _told(tmp_path / "out")
    assert told["0.png"]["face0.other0.png"] == told["2.png"]["face0.png"]
    assert json.loads(told["1.png"]["json"])["faces"][0]["person"] is None


def test_people_by_their_faces(tmp_path, scripted, monkeypatch):
    """Two files of one picture, and two others; a recogniser that the test builds sees which are alike."""
    path = tmp_path / published.SFACE.name
    recognition_model(path)
    judge = SFaceJudge(path, published.sha256(path))
    monkeypatch.setattr(shard_job, "load_recogniser", lambda settings: judge if settings.recogniser else None)
    photos = tmp_path / "photos"
    for name, seed in (("a", 1), ("b", 1), ("c", 2), ("d", 3)):
        image = picture(8, 6, seed).resize((160, 120))
        put(photos, f"{name}.jpg", image=image, quality=95 if name == "a" else 90)
    chosen = replace(scripted, wanted=replace(LOOSE, min_sharpness=0), person="cluster", recogniser=path, alike=0.99)
    prepare([photos], tmp_path / "out", chosen)
    told = _told(tmp_path / "out")
    people = {name: json.loads(sample["json"])["faces"][0]["person"] for name, sample in told.items()}
    assert people["a.jpg"] == people["b.jpg"] and len(set(people.values())) == 3
    assert told["a.jpg"]["face0.other0.png"] == told["b.jpg"]["face0.png"]
    with pytest.raises(InputError, match="give both, or neither"):
        replace(scripted, person="cluster")


def test_a_batch_is_of_many_people(tmp_path, scripted):
    photos = tmp_path / "photos"
    for person in range(8):
        for number in range(4):
            put(photos, f"{person}/{number}.png", image=picture(seed=9 * person + number))
    prepare([photos], tmp_path / "out", replace(scripted, person="folder", photos_per_shard=8))
    people = [json.loads(sample["json"])["faces"][0]["person"] for sample in read_back(tmp_path / "out")]
    assert len(people) == 32
    assert all(len(set(people[first : first + 8])) >= 4 for first in range(0, 32, 8))  # in their order: 2


# --- real photos, the real detector, the real command


@pytest.fixture(scope="module")
def real(tmp_path_factory, photos):
    """The astronaut, six people, a portrait, the astronaut blurred and shrunk, half a file, one without a caption."""
    folder = tmp_path_factory.mktemp("real") / "photos"
    astronaut = Image.fromarray(photos["astronaut"])
    put(folder, "astronaut.jpg", "an astronaut", astronaut, quality=95)
    put(folder, "group/six.png", "six friends", Image.fromarray(photos["group"]))
    put(folder, "hanks.png", "a man " * 90, Image.fromarray(photos["hanks"]))
    put(folder, "no_caption.jpg", None, astronaut)
    put(folder, "blurred.png", "out of focus", astronaut.filter(ImageFilter.GaussianBlur(5)))
    put(folder, "small.png", "far away", _far(astronaut))
    for name in ("a.mov", "b.MOV", "notes"):
        (folder / name).touch()
    put(folder, "tiny.avif", "far too small", astronaut.resize((64, 64)))
    pytest.importorskip("pillow_heif").register_heif_opener()
    put(folder, "phone.heic", "nobody", Image.new("RGB", (512, 512), (90, 90, 90)))
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
        *("--min-side", "100", "--resolution", "0", "--min-face", "50", "--photos-per-shard", "2", *more),
    ]


def _run(command: list[str], **options) -> subprocess.CompletedProcess:
    return subprocess.run(command, cwd=REPO, capture_output=True, text=True, timeout=600, **options)


def test_real_photos(tmp_path, real, yunet_path):
    out = tmp_path / "out"
    done = _run(_command(real, out, yunet_path, "--processes", "1", "--max-faces", "6", "--max-yaw", "60"))
    assert done.returncode == 0, done.stderr
    assert "3 of 9 photos with 8 faces" in done.stdout
    assert "1 blurred face" in done.stdout and "1 no caption" in done.stdout and "1 small photo" in done.stdout
    assert "Files that are no photos: 2 .mov, 1 no suffix." in done.stdout
    assert "1 captions have too many tokens and are cut in training." in done.stdout
    found = {json.loads(sample["json"])["source"]: sample for sample in read_back(out)}
    assert sorted(found) == ["astronaut.jpg", "group/six.png", "hanks.png"]
    assert len(json.loads(found["group/six.png"]["json"])["faces"]) == 6
    assert found["astronaut.jpg"]["jpg"] == (real / "astronaut.jpg").read_bytes()
    assert Image.open(io.BytesIO(found["hanks.png"]["face0.png"])).size == (448, 448)
    told = rejected(out)
    assert "damaged" in told["broken.jpg", ""]
    assert "no caption" in told["no_caption.jpg", ""]
    assert "no face was found" in told["phone.heic", ""]  # it was read
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
        while not list(out.glob(".prepare/found-*.tar")) and started.poll() is None and time.monotonic() < end:
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
