"""The whole recipe on a handful of people: every stage, the shipped files, and all measures on them."""

import argparse
import json

import pytest
import torch

import faceclip
from faceclip.errors import CheckpointError, InputError
from faceclip.sampling import unet_file
from faceclip.small import models as small
from faceclip.train.small import command, recipe, scores, shipped, style

SMALL = """
seed = 3
[data]
people = 24
scenes = 2
held_out_people = 6
held_out_scenes = 2
"""
STAGE = """
[{name}]
minutes = 5
steps = 2
batch_size = 8
warmup = 1
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("small")
    file = folder / "recipe.toml"
    file.write_text(SMALL + "".join(STAGE.format(name=name) for name in recipe.STAGES))
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    arguments = parser.parse_args([str(folder / "work"), "--recipe", str(file)])
    assert command.run(arguments) == 0
    return folder / "work", arguments


def test_a_second_call_does_nothing_again(made):
    folder, arguments = made
    files = {path: path.stat().st_mtime_ns for path in folder.rglob("*.safetensors")}
    assert command.run(arguments) == 0
    assert files == {path: path.stat().st_mtime_ns for path in folder.rglob("*.safetensors")}


def test_the_shipped_files_load_as_any_other(made):
    folder, _ = made
    model = faceclip.load(folder / "models" / small.ENCODER_FILE)
    assert model.config == small.ENCODER and next(model.parameters()).dtype == torch.bfloat16
    state, config = unet_file.read(folder / "models" / small.UNET_FILE)
    assert config == small.UNET and all(value.dtype == torch.bfloat16 for value in state.values())
    assert (folder / "models" / small.VAE_FILE).is_file()


def test_every_measure_is_taken(made):
    folder, _ = made
    table = json.loads((folder / "models" / scores.MEASURES_FILE).read_text())
    for letter in ("l", "g"):
        for kind in ("face", "text", "image"):
            assert 0 <= table[f"{letter}: joint -> {kind}"] <= 100
    assert -2 <= table["likeness gain"] <= 2 and 0 <= table["attributes right"] <= 100
    ablation = table["left out"]
    assert set(ablation) == {"all terms", "without face", "without text", "without image"}


def test_the_style_companion_is_made_of_the_shipped_files(made, tmp_path):
    folder, _ = made
    few = style.Style(people=4, scenes=2, steps=2, batch_size=4, rank=2)
    assert not style.make(tmp_path, folder / "models", few).stopped
    (path,) = tmp_path.rglob(small.STYLE_FILE)
    state, _ = unet_file.read(folder / "models" / small.UNET_FILE)
    from safetensors.torch import load_file

    written = {key.split(".")[0] for key in load_file(path)}
    assert written == {"lora_unet_" + key.rpartition(".")[0].replace(".", "_") for key in state}
    assert not style.make(tmp_path, folder / "models", few).stopped  # what is there is taken as it is
    assert len(list(tmp_path.rglob(small.STYLE_FILE))) == 1


def test_a_print_keeps_half_of_each_colour():
    black_and_white = torch.tensor([0.0, 1.0]).expand(1, 3, 1, 2)
    inks = torch.tensor([style.INKS[0], style.INKS[-1]]).T / 255
    assert torch.allclose(style.printed(black_and_white)[0, :, 0], (black_and_white[0, :, 0] + inks) / 2)


def test_a_missing_or_cut_judge_is_named(made, tmp_path):
    folder, _ = made
    for path in (folder / "models").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    from safetensors.torch import load_file, save_file

    judges = load_file(tmp_path / shipped.JUDGES_FILE)
    del judges["classifier.landmarks.weight"]
    from faceclip.files.state_dict import read_state_dict

    save_file(judges, tmp_path / shipped.JUDGES_FILE, read_state_dict(folder / "models" / shipped.JUDGES_FILE)[1])
    with pytest.raises(CheckpointError, match="landmarks.weight"):
        shipped.load(tmp_path)


def test_a_table_of_losses_that_is_whole_is_not_made_again(made):
    """As after a stop between the last row and the note that the stage is done."""
    folder, arguments = made
    (folder / "ablation" / "done").unlink()
    assert command.run(arguments) == 0
    assert (folder / "ablation" / "done").exists()


def test_another_recipe_is_refused_where_one_is_done(made, tmp_path):
    folder, arguments = made
    other = tmp_path / "other.toml"
    other.write_text(arguments.recipe.read_text().replace("seed = 3", "seed = 4"))
    with pytest.raises(InputError, match="made by another recipe.*new folder"):
        command.run(argparse.Namespace(**{**vars(arguments), "recipe": other}))


@pytest.mark.parametrize(
    ("line", "other", "words"),
    [
        ("warmup = 1", "warm_up = 1", r"\[vae\] warm_up: .*'warmup'"),
        ("steps = 2", "steps = 0", r"\[vae\] steps: 0 given"),
        ("people = 24", "persons = 24", r"\[data\] persons"),
    ],
)
def test_a_wrong_field_is_named_before_anything_is_drawn(made, tmp_path, line, other, words):
    _, arguments = made
    file = tmp_path / "recipe.toml"
    file.write_text(arguments.recipe.read_text().replace(line, other, 1))
    with pytest.raises(InputError, match=words):
        command.run(argparse.Namespace(**{**vars(arguments), "recipe": file, "folder": tmp_path / "work"}))
    assert not (tmp_path / "work").exists()


def test_a_recipe_without_a_stage_is_refused(tmp_path):
    file = tmp_path / "recipe.toml"
    file.write_text(SMALL)
    with pytest.raises(InputError, match="has seed, data; wanted seed, data and the stages vae, face"):
        recipe.read(file)
