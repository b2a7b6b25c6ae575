"""The small model that comes with the pack: its files, and that it still does what its figures say."""

import json

import pytest
import torch

from faceclip import tiny
from faceclip.errors import ModelNotFoundError
from faceclip.state_dict import read_state_dict
from faceclip.train.toy import measure, models, recipe, report


@pytest.fixture(scope="module")
def toy():
    return models.load()


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    data = report.held_out_data(tmp_path_factory.mktemp("toy") / "held_out", recipe.read())
    return measure.Sample.of(data)


def test_all_files_together_stay_small():
    assert sum(path.stat().st_size for path in tiny.FOLDER.iterdir()) < 30e6


def test_they_are_written_once_and_mended(tmp_path):
    paths = tiny.write_tiny_models(tmp_path)
    assert sorted(path.relative_to(tmp_path).as_posix() for path in paths.values()) == [
        "diffusion_models/faceclip_sdxl_tiny.safetensors",
        "faceclip/faceclip_tiny.safetensors",
        "vae/faceclip_tiny_vae.safetensors",
    ]
    state, _ = read_state_dict(paths["vae"])
    shapes = {key: tuple(value.shape) for key, value in state.items() if value.ndim}
    assert shapes == tiny.vae_shapes()  # what the host's loader knows, though the pack holds less
    before, whole = {path: path.stat().st_mtime_ns for path in paths.values()}, paths["vae"].read_bytes()
    paths["vae"].write_bytes(whole[:-10])
    tiny.write_tiny_models(tmp_path)
    assert paths["vae"].read_bytes() == whole
    assert all(path.stat().st_mtime_ns == time for path, time in before.items() if path != paths["vae"])
    assert not list(tmp_path.rglob("*.partial"))


def test_a_file_the_pack_lacks_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(tiny, "FOLDER", tmp_path / "nowhere")
    with pytest.raises(ModelNotFoundError, match="nowhere.*faceclip_tiny.safetensors is missing"):
        tiny.write_tiny_models(tmp_path)


def test_people_it_never_saw_are_found_by_face_text_and_picture(toy, sample):
    found = measure.retrieval(toy.alignment, sample)
    for name in ("g: joint -> face", "g: joint -> text", "g: joint -> image"):
        assert found[name] >= report.BARS[name], found


def test_the_figures_written_down_are_the_figures_measured(toy, sample):
    written = json.loads((tiny.FOLDER / measure.MEASURES_FILE).read_text("utf-8"))
    for name, value in measure.retrieval(toy.alignment, sample).items():
        assert value == pytest.approx(written[name], abs=1.0), name  # two of 200, for other processors' rounding


def test_generated_people_are_recognised(toy, sample):
    few = measure.Sample(sample.data, sample.wanted[:40], sample.reference[:40])
    drawn = measure.draw_people(toy.faceclip, toy.unet, toy.vae.decode, few)
    found = measure.likeness(toy.faceclip, toy.classifier, drawn, few)
    written = json.loads((tiny.FOLDER / measure.MEASURES_FILE).read_text("utf-8"))
    assert found["identity recognised"] >= report.BARS["identity recognised"]
    assert found["likeness gain"] > 0.8 * written["likeness gain"]
    assert found["attributes right"] > written["attributes right"] - 8
    assert torch.equal(drawn.pictures, drawn.pictures.clamp(0, 1))
