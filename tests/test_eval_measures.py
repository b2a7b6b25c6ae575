"""Measures against what is known by other means, on real photos where faces matter; the table and the page."""

import argparse
import csv
import json
import re
import sys
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from golden import golden_model
from PIL import Image
from recogniser import judge_of

from faceclip import find_faces
from faceclip.bulk.grid import read_grid
from faceclip.bulk.store import Store, read_picture
from faceclip.errors import CheckpointError, DependencyError, InputError
from faceclip.eval import benchmark, distribution, page, table
from faceclip.eval.benchmark import READY
from faceclip.eval.measure import Memory, measure_grid
from faceclip.eval.metrics import ClipScore, Similarity, load_clip
from faceclip.eval.ready import take_ready
from faceclip.identity.file import load_person, save_person
from faceclip.identity.judge import OwnJudge
from faceclip.identity.person import Person
from faceclip.model import checkpoint

# --- a grid of ready pictures: the astronaut as herself, and as two others


@pytest.fixture(scope="module")
def model():
    return golden_model("tiny")


@pytest.fixture(scope="module")
def astronaut_person(photos, yunet, model) -> Person:
    face = find_faces(torch.from_numpy(photos["astronaut"])[None].float() / 255, yunet)
    thumbnail = torch.nn.functional.interpolate(face.crops, (112, 112), mode="area")
    return Person(model.encode_identity(face.crops), (1.0,), (thumbnail * 255).to(torch.uint8), "hash")


@pytest.fixture
def bench(tmp_path, photos, astronaut_person):
    """Identities astronaut (photo) and kept (saved identity); prompts p1, p2: their own photo, and grey nothing."""
    folder = tmp_path / "bench"
    for name in ("astronaut", "kept"):
        for prompt in ("p1", "p2"):
            (folder / "ready" / name / prompt).mkdir(parents=True)
    astronaut = photos["astronaut"]
    Image.fromarray(astronaut).save(folder / "astronaut.png")
    save_person(astronaut_person, folder, "kept")
    grey = Image.new("RGB", (256, 256), (128, 128, 128))
    hanks = Image.fromarray(photos["hanks"]).resize((448, 448))
    Image.fromarray(astronaut).save(folder / "ready" / "astronaut" / "p1" / "0.png")
    Image.fromarray(astronaut).save(folder / "ready" / "kept" / "p1" / "0.webp", lossless=True)
    grey.save(folder / "ready" / "astronaut" / "p2" / "0.jpg")
    hanks.save(folder / "ready" / "kept" / "p2" / "0.png")
    text = {
        "name": "R&D <b>",
        "identities": [{"pictures": ["astronaut.png"]}, {"identity": "kept.safetensors"}],
        "prompts": ["<script>alert('x')</script> & more", "a person"],
    }
    (folder / "bench.json").write_text(json.dumps(text), "utf-8")
    return folder


@pytest.fixture(params=["own", "insightface", "sface"])
def judge(request, model, tmp_path):
    return judge_of(request.param, model, tmp_path)


def test_likeness_of_each_picture(bench, judge, yunet, tmp_path):
    grid, store = read_grid(bench / "bench.json"), Store(tmp_path / READY)
    assert take_ready(grid, bench / "ready", store) == {}
    metric = Similarity(judge, yunet, grid.identities)
    rows = measure_grid(grid, store, [metric], Memory(tmp_path / "m.jsonl"))
    own, grey, kept, hanks = (row.values for row in rows)
    assert own["similarity"] == pytest.approx(1.0, abs=1e-5) and own["faces"] == 1
    assert grey == {"similarity": 0.0, "faces": 0.0}
    assert kept["similarity"] == pytest.approx(1.0, abs=1e-2)
    assert hanks["faces"] == 1 and hanks["similarity"] < kept["similarity"]
    summary = {(one.kind, one.name): one for one in table.summarise(rows)}
    assert summary["identity", "astronaut"].without_face == 1
    assert summary["identity", "astronaut"].values["similarity"] == pytest.approx(0.5, abs=1e-5)
    assert summary["all", ""].pictures == 4 and summary["all", ""].without_face == 1


def test_a_person_whose_photo_shows_no_face_is_named(bench, yunet, model):
    Image.new("RGB", (256, 256)).save(bench / "astronaut.png")
    grid = read_grid(bench / "bench.json")
    with pytest.raises(InputError, match="'astronaut' cannot be compared with.*astronaut.png"):
        Similarity(OwnJudge(model.encode_identity), yunet, grid.identities)


def test_an_identity_of_another_encoder_is_refused(bench, yunet, model):
    grid = read_grid(bench / "bench.json")
    with pytest.raises(InputError, match="'kept'.*another face encoder"):
        Similarity(OwnJudge(model.encode_identity, "other"), yunet, grid.identities)


class Counting:
    column, about = "brightness", "how bright"

    def __init__(self):
        self.seen, self.version = [], "1"

    def signature(self, cell):
        return self.version

    def measure(self, cell, picture):
        self.seen.append(cell.key)
        return {"brightness": float(picture.mean())}


def test_what_was_measured_is_remembered(bench, tmp_path):
    grid, store, metric = read_grid(bench / "bench.json"), Store(tmp_path / READY), Counting()
    take_ready(grid, bench / "ready", store)
    path = tmp_path / "m.jsonl"
    first = measure_grid(grid, store, [metric], Memory(path))
    # Lossless copies of one picture differ as files, so all four are measured.
    assert len(metric.seen) == 4
    path.write_text(path.read_text("utf-8")[:-9], "utf-8")  # killed while writing the last line
    assert measure_grid(grid, store, [metric], Memory(path)) == first and len(metric.seen) == 5
    assert measure_grid(grid, store, [metric], Memory(path)) == first and len(metric.seen) == 5
    metric.version = "2"
    measure_grid(grid, store, [metric], Memory(path))
    assert len(metric.seen) == 9


def test_ready_pictures_that_are_missing_or_broken_are_said(bench, tmp_path):
    grid, store = read_grid(bench / "bench.json"), Store(tmp_path / READY)
    broken = bench / "ready" / "astronaut" / "p1" / "0.png"
    broken.write_bytes(broken.read_bytes()[:5000])
    (bench / "ready" / "kept" / "p2" / "0.png").unlink()
    problems = take_ready(grid, bench / "ready", store)
    assert list(problems) == [grid.cells[0].key, grid.cells[3].key]
    assert "no whole picture" in problems[grid.cells[0].key] and "kept/p2/0" in problems[grid.cells[3].key]
    (bench / "ready" / f"{grid.cells[3].key}.png").write_bytes((bench / "astronaut.png").read_bytes())
    assert list(take_ready(grid, bench / "ready", store)) == [grid.cells[0].key]
    with pytest.raises(InputError, match="none of the grid's pictures"):
        take_ready(grid, tmp_path / READY / "..", Store(tmp_path / "empty"))


# --- CLIP, on a tiny one made on the spot


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory):
    open_clip = pytest.importorskip("open_clip")
    from safetensors.torch import save_file

    config = {
        "embed_dim": 24,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "patch_size": 16, "head_width": 16},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
    }
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("clip")
    network = open_clip.CLIP(**config)
    save_file(
        {key: value.contiguous() for key, value in network.state_dict().items()}, folder / "open_clip_model.safetensors"
    )
    (folder / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": config, "preprocess_cfg": {"size": [32, 32]}})
    )
    return folder


def test_clip_score_is_open_clips_cosine(clip_folder, bench, photos):
    import open_clip

    cell = read_grid(bench / "bench.json").cells[0]
    clip = load_clip(str(clip_folder))
    score = ClipScore(clip).measure(cell, photos["astronaut"])["clip_score"]
    network, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{clip_folder}")
    with torch.no_grad():
        image = network.eval().encode_image(preprocess(Image.fromarray(photos["astronaut"]))[None], normalize=True)
        text = network.encode_text(open_clip.tokenize([cell.prompt.text]), normalize=True)
    cosine = float(image @ text.T)
    assert score == pytest.approx(max(0.0, 100 * cosine), abs=1e-4)
    opposite = replace(clip, model=Opposite(clip.model))
    assert ClipScore(opposite).measure(cell, photos["astronaut"])["clip_score"] == pytest.approx(
        max(0.0, -100 * cosine), abs=1e-4
    )
    assert abs(cosine) > 1e-3, "the two would be 0 for nothing"


class Opposite(torch.nn.Module):
    """A CLIP that turns its texts round: one of the two cosines is positive, whatever the weights."""

    def __init__(self, model):
        super().__init__()
        self.encode_image, self._text = model.encode_image, model.encode_text

    def encode_text(self, ids):
        return -self._text(ids)


def test_nothing_is_downloaded_unasked(tmp_path):
    for model, weights in (
        ("ViT-B-32", None),
        ("ViT-B-32", "openai"),
        ("hf-hub:a/b", None),
        ("ViT-B-16-SigLIP", __file__),
    ):
        with pytest.raises(InputError, match="--download"):
            load_clip(model, weights)
    with pytest.raises(InputError, match="neither a folder"):
        load_clip("ViT-Z", None)


def test_a_broken_clip_is_refused(clip_folder, tmp_path):
    (tmp_path / "open_clip_config.json").write_bytes((clip_folder / "open_clip_config.json").read_bytes())
    (tmp_path / "open_clip_model.safetensors").write_bytes(b"no")
    with pytest.raises(InputError, match="cannot be loaded"):
        load_clip(str(tmp_path))


# --- FID and KID


class Means(torch.nn.Module):
    """Two numbers per picture."""

    def forward(self, pictures):
        return pictures.float().mean(dim=(2, 3))[:, :2] / 255


def noise(count, shift, seed):
    generator = np.random.default_rng(seed)
    for _ in range(count):
        yield np.clip(generator.normal(shift, 40, (16, 16, 3)) + generator.normal(0, 10, 3), 0, 255).astype(np.uint8)


def test_fid_and_kid_tell_pictures_apart():
    pytest.importorskip("torchmetrics", reason="torchmetrics is not installed")
    same = distribution.distances(noise(40, 100, 0), noise(40, 100, 0), Means())
    near = distribution.distances(noise(40, 100, 0), noise(40, 104, 1), Means())
    far = distribution.distances(noise(40, 100, 0), noise(40, 180, 1), Means())
    assert same["fid"] == pytest.approx(0, abs=1e-6) and same["kid"] <= 1e-6
    assert same["fid"] < near["fid"] < far["fid"] and near["kid"] < far["kid"]
    # Two Gaussians whose means are 80/255 apart in two dimensions, with nearly the same covariance.
    assert far["fid"] == pytest.approx(2 * (80 / 255) ** 2, rel=0.1)
    assert far == distribution.distances(noise(40, 100, 0), noise(40, 180, 1), Means())
    assert set(distribution.distances(noise(3, 0, 0), noise(3, 0, 1), Means(), ("fid",))) == {"fid"}
    with pytest.raises(InputError, match="1 real and 3 made"):
        distribution.distances(noise(1, 0, 0), noise(3, 0, 1), Means())


def test_the_inception_network_with_weights_from_a_file(tmp_path, monkeypatch):
    pytest.importorskip("torchmetrics", reason="torchmetrics is not installed")
    network = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3", reason="no torch-fidelity")
    with pytest.raises(InputError, match="no file.*--inception"):
        distribution.load_inception(tmp_path / "none.pth")
    (tmp_path / "bad.pth").write_bytes(b"no")
    with pytest.raises(CheckpointError, match="bad.pth"):
        distribution.load_inception(tmp_path / "bad.pth")
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(InputError, match="does not hold Inception's weights"):
        distribution.load_inception(tmp_path / "other.pth")
    with monkeypatch.context() as patch:  # random weights of the right shapes
        patch.setattr(network.FeatureExtractorInceptionV3, "load_state_dict", lambda self, state: None)
        made = network.FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], str(tmp_path / "other.pth"))
    torch.save(made.state_dict(), tmp_path / "inception.pth")
    extractor = distribution.load_inception(tmp_path / "inception.pth")
    found = distribution.distances(noise(2, 100, 0), noise(2, 180, 1), extractor, ("kid",))
    assert set(found) == {"kid", "kid_std"} and np.isfinite(found["kid"])


# --- the table, the page and the command


class Links(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.links = [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.links += [value for name, value in attributes if name in ("src", "href")]


def call(*arguments):
    parser = argparse.ArgumentParser()
    benchmark.add_arguments(parser)
    return benchmark.run(parser.parse_args([str(one) for one in arguments]))


def test_the_command_on_ready_pictures(bench, tmp_path, clip_folder, yunet_path, capsys):
    pytest.importorskip("torchmetrics", reason="torchmetrics is not installed")
    model = tmp_path / "tiny.safetensors"
    checkpoint.save(golden_model("tiny"), model)
    person = load_person(bench / "kept.safetensors")
    save_person(replace(person, encoder=checkpoint.face_encoder_hash(golden_model("tiny"))), bench, "eve")
    text = (bench / "bench.json").read_text("utf-8").replace("kept.safetensors", "eve.safetensors")
    (bench / "bench.json").write_text(text, "utf-8")
    (bench / "ready" / "kept").rename(bench / "ready" / "eve")
    (bench / "ready" / "eve" / "p2" / "0.png").unlink()
    out = tmp_path / "out"
    measures = (
        "--faceclip",
        model,
        "--detector",
        yunet_path,
        "--clip",
        clip_folder,
        "--real",
        bench,
        "--features",
        "clip",
    )
    assert call(bench / "bench.json", "--out", out, "--pictures", bench / "ready", *measures, "--device", "cpu") == 1
    text = capsys.readouterr().out
    assert "missing: eve / p2 / 0: no picture" in text and "1 without a face" in text
    rows = list(csv.DictReader((out / "results.csv").open(encoding="utf-8", newline="")))
    assert [row["kind"] for row in rows] == ["picture"] * 4 + ["identity"] * 2 + ["prompt"] * 2 + ["all"]
    assert float(rows[0]["similarity_faceclip"]) == pytest.approx(1, abs=1e-4) and rows[1]["faces"] == "0"
    assert rows[3]["picture"] == "" and "no picture" in rows[3]["problem"] and rows[0]["text"].startswith("<script>")
    assert rows[-1]["pictures"] == "3" and rows[-1]["without_face"] == "1" and float(rows[-1]["fid"]) >= 0
    assert all((out / row["picture"]).is_file() for row in rows[:3])
    html = (out / "index.html").read_text("utf-8")
    links = Links()
    links.feed(html)
    assert "script" not in links.tags and "&lt;script&gt;" in html and "R&amp;D &lt;b&gt;" in html
    assert links.links and all(not re.match(r"\w+:|/", link) and (out / link).is_file() for link in links.links)
    assert not [path for path in out.rglob("*") if "partial" in path.name]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--metrics", "similarity"), "--faceclip FILE, --insightface FOLDER or --sface FILE"),
        (("--metrics", "clip"), "--clip MODEL"),
        (("--metrics", "fid"), "--real FOLDER"),
        (("--real", "."), "--inception FILE.*not downloaded"),
        (("--server", "http://127.0.0.1:9"), "contradict"),
    ],
)
def test_what_a_measure_needs_is_said(bench, tmp_path, options, words, monkeypatch):
    monkeypatch.chdir(bench)
    with pytest.raises(InputError, match=words):
        call(bench / "bench.json", "--out", tmp_path / "out", "--pictures", bench / "ready", *options)


def test_without_pictures_and_without_a_server(bench, tmp_path):
    with pytest.raises(InputError, match="no pictures yet.*--server"):
        call(bench / "bench.json", "--out", tmp_path / "out")


def test_photos_are_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (20, 10)).save(tmp_path / "a.jpg", exif=exif)
    assert read_picture(tmp_path / "a.jpg").shape == (20, 10, 3)


def test_names_with_odd_characters_make_good_links(bench, tmp_path, photos):
    text = json.loads((bench / "bench.json").read_text("utf-8"))
    text["identities"] = [{"name": "Zoë (100) O'Hara + co", "pictures": "astronaut.png"}]
    (bench / "bench.json").write_text(json.dumps(text), "utf-8")
    grid, store = read_grid(bench / "bench.json"), Store(tmp_path / "out" / "pictures")
    rows = measure_grid(grid, store, [], Memory(tmp_path / "m.jsonl"))
    page.write_page(tmp_path / "out" / "index.html", grid, rows, table.summarise(rows))
    html = (tmp_path / "out" / "index.html").read_text("utf-8")
    assert "Zo%C3%AB%20%28100%29%20O%27Hara%20%2B%20co.jpg" in html and "not made yet" in html


def test_missing_packages_are_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchmetrics.image.fid", None)
    with pytest.raises(DependencyError, match=r"which the extra \"eval\" brings: .*-m pip install -e .*\[eval\]"):
        distribution.distances(noise(3, 0, 0), noise(3, 0, 1), Means())
