"""Benchmark files: what they say, what is refused and how, which changes make another picture; prompts as built."""

import json

import numpy as np
import pytest
from PIL import Image

from faceclip.bulk.graph import Graph, Slots
from faceclip.bulk.grid import PORTRAIT, read_grid
from faceclip.errors import InputError

SMALL = """
prompts = ["a chef", {name = "beach", text = "on a beach"}]
seeds = [1, 2, 3]
[[identities]]
name = "Ada"
pictures = "ada.png"
[[identities]]
pictures = ["bob.png", "bob2.png"]
[[identities]]
identity = "eve.safetensors"
"""
SETTINGS = """
[settings]
width = 128
height = 192
files = {FaceCLIPLoader = "tiny.safetensors"}
values = {"settings.steps" = 4}
"""


@pytest.fixture
def folder(tmp_path):
    for number, name in enumerate(("ada.png", "bob.png", "bob2.png")):
        Image.fromarray(np.full((20, 20, 3), 40 * number, dtype=np.uint8)).save(tmp_path / name)
    (tmp_path / "eve.safetensors").write_bytes(b"eve")
    return tmp_path


def grid_of(folder, text, name="bench.toml"):
    (folder / name).write_text(text, "utf-8")
    return read_grid(folder / name)


def test_all_combinations_in_order(folder):
    grid = grid_of(folder, SMALL)
    assert grid.name == "bench" and [one.name for one in grid.identities] == ["Ada", "bob", "eve"]
    assert [(one.name, one.text) for one in grid.prompts] == [("p1", "a chef"), ("beach", "on a beach")]
    assert [cell.label for cell in grid.cells[:4]] == [
        "Ada / p1 / 1",
        "Ada / p1 / 2",
        "Ada / p1 / 3",
        "Ada / beach / 1",
    ]
    assert len(grid.cells) == len({cell.key for cell in grid.cells}) == 3 * 2 * 3


def test_json_says_the_same(folder):
    tomllib = pytest.importorskip("tomllib", reason="this Python reads no TOML by itself")
    text = json.dumps(tomllib.loads(SMALL + SETTINGS))
    assert grid_of(folder, text, "bench.json") == grid_of(folder, SMALL + SETTINGS)


def test_the_portrait_workflow_is_filled_in(folder):
    cell = grid_of(folder, SMALL + SETTINGS).cells[4]
    wanted = json.loads(PORTRAIT.read_text("utf-8"))
    for node in wanted.values():
        del node["_meta"]
        node["inputs"].update(
            {key: {"width": 128, "height": 192}[key] for key in node["inputs"].keys() & {"width", "height"}}
        )
    (upload,) = cell.uploads
    wanted["photo"]["inputs"]["image"] = upload
    wanted["positive"]["inputs"]["text"] = "on a beach"
    wanted["sample"]["inputs"]["noise_seed"] = 2
    wanted["settings"]["inputs"]["steps"] = 4
    wanted["faceclip"]["inputs"]["file"] = "tiny.safetensors"
    wanted["save"] = {"class_type": "PreviewImage", "inputs": {"images": ["decode", 0]}}
    assert cell.api == wanted
    assert upload.startswith("faceclip_eval/") and cell.uploads[upload] == folder / "ada.png"


def test_further_photos_become_further_references(folder):
    api = grid_of(folder, SMALL).cells[6].api
    assert api["identity"]["inputs"]["face"] == ["align", 0] and api["identity"]["inputs"]["face_2"] == ["align_2", 0]
    assert api["align_2"]["inputs"]["image"] == ["photo_2", 0] and api["align_2"]["inputs"]["detector"] == [
        "detector",
        0,
    ]
    assert api["photo"]["inputs"]["image"] != api["photo_2"]["inputs"]["image"]
    assert "face_3" not in api["identity"]["inputs"]


def test_a_saved_identity_needs_no_photo(folder):
    cell = grid_of(folder, SMALL).cells[12]
    assert cell.api["identity"] == {"class_type": "FaceCLIPLoadIdentity", "inputs": {"file": "eve.safetensors"}}
    assert not cell.uploads and not {"photo", "align", "detector"} & set(cell.api)


def test_other_references_of_a_workflow_are_left_out(folder):
    workflow = PORTRAIT.with_name("several_references.json")
    inputs = 'workflow = "several.json"\ninputs = {face = "%s"}'
    (folder / "several.json").write_text(workflow.read_text("utf-8"), "utf-8")
    prompt = json.loads(workflow.read_text("utf-8"))
    photo = next(node for node, value in prompt.items() if value["class_type"] == "LoadImage")
    cell = grid_of(folder, SMALL + "[settings]\n" + inputs % f"{photo}.image").cells[0]
    loaders = [node for node in cell.api.values() if node["class_type"] == "LoadImage"]
    assert [node["inputs"]["image"] for node in loaders] == list(cell.uploads)


def test_keys_follow_what_makes_the_picture_and_nothing_else(folder):
    before = [cell.key for cell in grid_of(folder, SMALL).cells]
    renamed = SMALL.replace('"Ada"', '"Countess"').replace('"beach"', '"sea"')
    assert [cell.key for cell in grid_of(folder, renamed).cells] == before
    (folder / "ada.png").rename(folder / "moved.png")
    assert [cell.key for cell in grid_of(folder, SMALL.replace("ada.png", "moved.png")).cells] == before
    (folder / "moved.png").rename(folder / "ada.png")
    for change in (("a chef", "a cook"), ("seeds = [1, 2, 3]", "seeds = [4, 5, 6]"), ("on a beach", "at sea")):
        assert [cell.key for cell in grid_of(folder, SMALL.replace(*change)).cells] != before
    assert not set(before) & {cell.key for cell in grid_of(folder, SMALL + SETTINGS).cells}
    (folder / "eve.safetensors").write_bytes(b"another eve")
    after = [cell.key for cell in grid_of(folder, SMALL).cells]
    assert after[:12] == before[:12] and not set(after[12:]) & set(before[12:])


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("seeds = [1, 2, 3]", "seeds = [1, -2]", ("bench.toml: seeds: -2 given", "0 to")),
        ("seeds = [1, 2, 3]", "seeds = [1, 1]", ("seeds: [1, 1] given", "each number once")),
        ("seeds = [1, 2, 3]", "seeds = []", ("seeds: an empty list given",)),
        ("seeds", "sedes", ("sedes: the table has no field 'sedes'", "did you mean 'seeds'?")),
        ('"a chef"', '""', ("prompts[0].text: '' given",)),
        ('"a chef"', "3", ("prompts[0]: 3 given, a text or a table with name and text wanted",)),
        ('text = "on a beach"', "text = 3", ("prompts[1].text: 3 given, a text wanted",)),
        ('"Ada"', '"../Ada"', ("identities[0].name: '../Ada' given",)),
        ('"Ada"', '"BOB"', ("identities[1].name: 'bob' given", "another")),
        ('"ada.png"', '"nobody.png"', ("identities[0].pictures: ", "nobody.png given, but there is no such file")),
        ('"ada.png"', "7", ("identities[0].pictures: 7 given, a text or a list",)),
        ('pictures = "ada.png"', "", ("identities[0]: pictures or identity: one of the two",)),
        ("width = 128", "width = 8", ("settings.width: 8 given", "16 to 16384")),
        ("width = 128", 'inputs = {seed = "sample.sed"}', ("settings.inputs.seed is 'sample.sed'", "noise_seed")),
        ("width = 128", 'inputs = {face = ["foto.image"]}', ("settings.inputs.face is 'foto.image'", "photo")),
        ("width = 128", 'inputs = {output = "end"}', ("settings.inputs.output is 'end'", "save")),
        ("width = 128", 'inputs = {colour = "a.b"}', ("settings.inputs.colour: the table has no", "known are face")),
        ('"settings.steps"', '"settings.step"', ("settings.values.settings.step", "steps")),
        ("FaceCLIPLoader", "CheckpointLoader", ("settings.files.CheckpointLoader", "no node of this class")),
        ("width = 128", 'workflow = "ada.png"', ("ada.png", "API")),
        ("[settings]", "[settings", ("not a TOML file",)),
    ],
)
def test_what_is_wrong_is_named(folder, old, new, words):
    text = SMALL + SETTINGS
    assert old in text
    with pytest.raises(InputError) as caught:
        grid_of(folder, text.replace(old, new))
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_too_many_photos_are_refused(folder):
    with pytest.raises(InputError, match=r"identities\[0\].pictures has 5 pictures.*up to 4"):
        for number in range(5):
            Image.fromarray(np.full((20, 20, 3), number, dtype=np.uint8)).save(folder / f"{number}.png")
        grid_of(folder, SMALL.replace('"ada.png"', json.dumps([f"{number}.png" for number in range(5)])))


def test_a_workflow_without_an_identity_takes_one_photo():
    prompt = {
        "in": {"class_type": "LoadImage", "inputs": {"image": "x.png"}},
        "out": {"class_type": "Other", "inputs": {"image": ["in", 0], "text": "", "seed": 0}},
        "loose": {"class_type": "Other", "inputs": {}},
    }
    graph = Graph(prompt, Slots(("in.image",), ("out.text",), ("out.seed",), output="out"), "x.json")
    built = graph.build("hi", 5, ["p.png"])
    assert built["in"]["inputs"] == {"image": "p.png"} and "loose" not in built
    assert built["out"]["inputs"] == {"image": ["in", 0], "text": "hi", "seed": 5}
    assert prompt["in"]["inputs"] == {"image": "x.png"}
    for wrong in ({"pictures": ["a", "b"]}, {"identity": "eve.safetensors"}):
        with pytest.raises(InputError, match="FaceCLIPEncodeIdentity"):
            graph.build("hi", 5, **wrong)
