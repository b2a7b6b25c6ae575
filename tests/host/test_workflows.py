"""The example workflows: both forms say the same, fit the running host, can be found and read there, and run."""

import copy
import io
import itertools
import json
import re
import urllib.parse
import urllib.request

import graphs
import numpy
import pytest
from PIL import Image
from seeded import seeded

from faceclip.__main__ import main
from faceclip.comfy.environment import PACK_ROOT
from faceclip.comfy.server import PACK_NAME
from faceclip.comfy.workflow import SMALL_FILES, SMALL_SETTINGS, fill_in, for_small_model, small_variants
from faceclip.install import published
from faceclip.sampling import unet_file
from faceclip.sampling.unet_config import expected_shapes
from faceclip.small import models as small
from workflows import build, placing, thumbnails

FOLDER = PACK_ROOT / "workflows"
NAMES = sorted(path.stem for path in (FOLDER / "api").glob("*.json"))
# What the small model can draw. FaceT5's examples run in test_facet5_server.py; those below need files of others too,
# made small here, and the one with a ControlNet runs in test_compatible.py, which makes one.
SMALL = sorted(small_variants())
TITLES = {name: build.title_of(name) for name in NAMES}
WIDEST, TALLEST, WORDS = 2400, 1700, 60
FILES_OF_OTHERS = {
    "CheckpointLoaderSimple": "ckpt_name",
    "LoraLoaderModelOnly": "lora_name",
    "ControlNetLoader": "control_net_name",
}
# How much taller Nodes 2.0 draws a node (with the pack's name, and a bar where a file is missing) than was laid out.
TALLER = {"MarkdownNote": 12}
UNLINKED = re.compile(r'\{"name": "[^"]*", "type": "[^"]*", "links": null\}')


def read(*parts: str) -> dict:
    return json.loads(FOLDER.joinpath(*parts).read_text("utf-8"))


def template(name: str) -> dict:
    return read(f"{TITLES[name]}.json")


def get(url: str) -> bytes:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=60) as answer:
        return answer.read()


@pytest.fixture(scope="module")
def object_info(client, yunet_name) -> dict:
    """The host's, after the example that saves a person has run, as the one that loads it expects.

    Loaders of other people's files offer those that the examples name too: the test server has none of them.
    """
    client.run(for_small_model("saved_character", read("api", "saved_character.json"), steps=1))
    info = client.object_info()
    nodes = [node for name in NAMES for node in read("api", f"{name}.json").values()]
    for kind, choice in FILES_OF_OTHERS.items():
        named = sorted({node["inputs"][choice] for node in nodes if node["class_type"] == kind})
        assert named
        info[kind]["input"]["required"][choice][0] += named
    return info


def test_each_workflow_has_both_forms_and_a_layout():
    assert "portrait" in NAMES
    assert sorted(path.stem for path in FOLDER.glob("*.json")) == sorted(TITLES.values())
    assert sorted(path.stem for path in (FOLDER / "layouts").glob("*.json")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_the_ui_form_is_what_the_builder_makes(name, object_info):
    written = (FOLDER / f"{TITLES[name]}.json").read_text("utf-8")
    built = build.build_text(name, object_info)
    if object_info["SaveImage"]["output"]:  # newer hosts give a few nodes an output more; the files are an older one's
        written, built = UNLINKED.sub("", written), UNLINKED.sub("", built)
    assert written == built, f"run: python -m workflows.build {name}"


@pytest.mark.parametrize("name", NAMES)
def test_the_prompt_fits_the_host(name, object_info):
    assert graphs.problems(graphs.with_small_model(read("api", f"{name}.json")), object_info) == []


@pytest.mark.parametrize("name", NAMES)
def test_every_node_of_a_prompt_has_a_title(name):
    assert all(node["_meta"]["title"] for node in read("api", f"{name}.json").values())


@pytest.mark.parametrize("name", NAMES)
def test_both_forms_are_the_same_graph(name, object_info):
    workflow = template(name)
    assert graphs.link_problems(workflow) == []
    shown = graphs.prompt_of(workflow, object_info)
    assert graphs.problems(graphs.with_small_model(shown), object_info) == []
    wanted = graphs.renumbered(read("api", f"{name}.json"))
    assert shown.keys() == wanted.keys()
    for number, node in wanted.items():
        assert shown[number]["class_type"] == node["class_type"]
        # The UI form names every widget, also optional ones that the prompt leaves to their defaults.
        assert {key: shown[number]["inputs"].get(key) for key in node["inputs"]} == node["inputs"]


@pytest.mark.parametrize("name", NAMES)
def test_nodes_lie_apart_and_in_their_groups(name):
    workflow = template(name)
    groups = [group["bounding"] for group in workflow["groups"]]
    boxes = [box_of(node) for node in workflow["nodes"]]
    for kind in (groups, boxes):
        for one, other in itertools.combinations(kind, 2):
            assert not overlap(one, other), (one, other)
    for box in boxes:
        assert sum(overlap(box, group) for group in groups) == 1


def box_of(node: dict) -> list[float]:
    """With its title, and as tall as the renderer that draws it tallest makes it."""
    (x, y), (width, height) = node["pos"], node["size"]
    return [x, y - placing.TITLE, width, height + placing.TITLE + TALLER.get(node["type"], 60)]


def overlap(one: list[float], other: list[float]) -> bool:
    return all(one[i] < other[i] + other[i + 2] and other[i] < one[i] + one[i + 2] for i in (0, 1))


@pytest.mark.parametrize("name", NAMES)
def test_it_can_be_read_at_the_zoom_it_opens_with(name):
    workflow = template(name)
    boxes = [group["bounding"] for group in workflow["groups"]]
    assert max(x + w for x, _, w, _ in boxes) - min(x for x, *_ in boxes) <= WIDEST
    assert max(y + h for _, y, _, h in boxes) - min(y for _, y, *_ in boxes) <= TALLEST
    notes = [node["widgets_values"][0] for node in workflow["nodes"] if node["type"] == "MarkdownNote"]
    assert len(notes) <= 1 and all(len(note.split()) <= WORDS for note in notes)


@pytest.mark.parametrize("name", NAMES)
def test_seeds_change_and_published_files_say_where_they_come_from(name):
    nodes = template(name)["nodes"]
    for node in nodes:
        if any(socket["name"] == "noise_seed" for socket in node["inputs"]):
            assert "randomize" in node["widgets_values"]
    wanted = (published.ENCODER, published.UNET, published.VAE)
    if name.startswith("facet5_"):
        wanted = (published.T5_ENCODER, published.DIT, published.FLUX_VAE)
    elif name == "style_lora":  # its UNet is that of a checkpoint
        wanted = (published.ENCODER, published.VAE)
    elif name == "small_model":
        return
    models = {model["name"]: model for node in nodes for model in node["properties"].get("models", [])}
    for file in wanted:
        assert models[file.name] == {"name": file.name, "url": file.address, "directory": file.folder}
        assert any(file.name in node["widgets_values"] for node in nodes)


@pytest.mark.parametrize("name", SMALL)
def test_a_template_tells_what_to_change_for_the_small_model(name, object_info):
    workflow = template(name)
    for node_id, widget, value in workflow["extra"]["faceclip"]["small_model"]:
        next(node for node in workflow["nodes"] if node["id"] == node_id)["widgets_values"][widget] = value
    shown = graphs.prompt_of(workflow, object_info)
    for number, node in graphs.renumbered(for_small_model(name, read("api", f"{name}.json"))).items():
        assert {key: shown[number]["inputs"].get(key) for key in node["inputs"]} == node["inputs"]


@pytest.mark.parametrize("name", NAMES)
def test_its_pictures_are_there_after_installing(name, base_directory):
    pictures = {node["widgets_values"][0] for node in template(name)["nodes"] if node["type"] == "LoadImage"}
    assert pictures <= {path.name for path in (base_directory / "input").iterdir()}


def test_the_hosts_template_browser_offers_them(server):
    listed = json.loads(get(server.url + "/workflow_templates"))
    assert sorted(listed[PACK_NAME]) == sorted(TITLES.values())
    for title in TITLES.values():
        served = get(f"{server.url}/api/workflow_templates/{PACK_NAME}/{urllib.parse.quote(title)}.json")
        assert served == (FOLDER / f"{title}.json").read_bytes()


@pytest.mark.parametrize("name", SMALL)
def test_the_template_browser_shows_a_picture_of_it(name, server):
    url = f"{server.url}/api/workflow_templates/{PACK_NAME}/{urllib.parse.quote(TITLES[name])}.jpg"
    picture = Image.open(io.BytesIO(get(url)))
    assert picture.size == (thumbnails.SIDE, thumbnails.SIDE)
    assert len(picture.resize((16, 16)).getcolors()) > 50


@pytest.mark.parametrize("name", SMALL)
def test_it_runs_on_the_small_model(name, client, object_info):
    prompt = for_small_model(name, read("api", f"{name}.json"), steps=2)
    result = client.run(prompt)
    saved = [image for image in result.images() if image["type"] == "output"]
    assert saved, "it saves no picture"
    assert client.view(saved[0])[:8] == b"\x89PNG\r\n\x1a\n"


def saved_pixels(client, prompt: dict) -> dict[str, numpy.ndarray]:
    """What a prompt saves: prefix of its name -> pixels."""
    saved = [image for image in client.run(prompt).images() if image["type"] == "output"]
    opened = {image["filename"].split("_0")[0]: Image.open(io.BytesIO(client.view(image))) for image in saved}
    return {prefix: numpy.asarray(picture.convert("RGB")) for prefix, picture in opened.items()}


def test_putting_a_person_into_a_photo_changes_nothing_outside_the_mask(client, object_info, base_directory):
    """What the mask reaches, however little, is what a black crop darkens on white, put back by the same nodes."""
    prompt = for_small_model("put_person", read("api", "put_person.json"), steps=1)
    photo = numpy.asarray(Image.open(base_directory / "input" / prompt["picture"]["inputs"]["image"]).convert("RGB"))
    height, width, _ = photo.shape
    for name, colour, sides in (("white", 0xFFFFFF, (width, height)), ("black", 0, (small.SIZE, small.SIZE))):
        sides = dict(zip(("width", "height"), sides, strict=True))
        prompt[name] = graphs.node("EmptyImage", **sides, batch_size=1, color=colour)
    prompt["reached"] = copy.deepcopy(prompt["paste"])
    prompt["reached"]["inputs"] |= {"image": ["white", 0], "crop": ["black", 0], "keep_colour": False}
    prompt["save_reached"] = graphs.node("SaveImage", images=["reached", 0], filename_prefix="reached")
    saved = saved_pixels(client, prompt)
    outside = (saved["reached"] == 255).all(axis=2)
    changed = (saved["faceclip_photo"] != photo).any(axis=2)
    assert 0.1 < outside.mean() < 0.9
    assert changed[~outside].mean() > 0.5
    assert not changed[outside].any()


def test_two_people_are_put_into_a_photo_one_after_the_other(client):
    """The template's nodes twice, the second behind the first: each changes its own face and leaves the other's."""
    prompt = for_small_model("put_person", read("api", "put_person.json"), steps=4)
    for node_id in ("compare", "preview", "judge"):
        del prompt[node_id]
    prompt["bo"] = graphs.node("LoadImage", image="cartoon_bo.png")
    pictures = {"image1": ["picture", 0], "image2": ["bo", 0], "spacing_width": 0, "spacing_color": "white"}
    prompt["photo_of_two"] = graphs.node("ImageStitch", direction="right", match_image_size=True, **pictures)
    prompt["crop"]["inputs"] |= {"image": ["photo_of_two", 0], "input_faces_order": "left-right"}
    prompt["paste"]["inputs"]["image"] = ["photo_of_two", 0]
    shared = {"faceclip", "unet", "vae", "settings", "detector", "picture", "negative", "part", "bo", "photo_of_two"}
    for node_id in [node_id for node_id in prompt if node_id not in shared]:
        second = copy.deepcopy(prompt[node_id])
        for name, value in second["inputs"].items():
            if isinstance(value, list) and value[0] not in shared:
                second["inputs"][name] = [f"{value[0]}_2", value[1]]
        prompt[f"{node_id}_2"] = second
    prompt["photo_2"]["inputs"]["image"] = "cartoon_ada_2.png"
    for node_id in ("crop_2", "paste_2"):
        prompt[node_id]["inputs"]["image"] = ["paste", 0]
    # The small model's faces are blurred, and the detector is less sure of the first one now.
    prompt["crop_2"]["inputs"] |= {"input_faces_index": 1, "min_score": 0.3}
    prompt["save_2"]["inputs"]["filename_prefix"] = "second"
    prompt["save_photo"] = graphs.node("SaveImage", images=["photo_of_two", 0], filename_prefix="before")
    saved = saved_pixels(client, prompt)
    before, first, second = (saved[name].astype(int) for name in ("before", "faceclip_photo", "second"))
    middle = before.shape[1] // 2
    for one, other, side, rest in (
        (before, first, slice(0, middle), slice(middle, None)),
        (first, second, slice(middle, None), slice(0, middle)),
    ):
        assert (one[:, side] != other[:, side]).any(axis=2).mean() > 0.02
        assert (one[:, rest] == other[:, rest]).all()


@pytest.fixture(scope="module")
def other_checkpoints(base_directory) -> dict[str, str]:
    """Stand-ins of the small UNet's sizes: checkpoint's name in the examples -> file; beside them the examples' LoRA.

    ComfyUI's own checkpoint loader knows no sizes but SDXL's, so ours loads them.
    """
    unets, loras = base_directory / "models" / "diffusion_models", base_directory / "models" / "loras"
    shapes = expected_shapes(small.UNET)
    origin = seeded(shapes)
    change = seeded({f"style {key}": shape for key, shape in shapes.items() if len(shape) > 1})
    style = {key: value + 0.1 * change.get(f"style {key}", 0.0) for key, value in origin.items()}
    files = {
        "sd_xl_base_1.0.safetensors": "origin.safetensors",
        "your_sdxl_checkpoint.safetensors": "style.safetensors",
    }
    for state, file in zip((origin, style), files.values(), strict=True):
        unet_file.save(state, small.UNET, unets / file, force=True)
    loras.mkdir(exist_ok=True)
    base, out = str(unets / "origin.safetensors"), str(loras / "faceclip_sdxl_lora.safetensors")
    assert main(["lora", str(unets / small.UNET_FILE), "--base", base, "--rank", "4", "--out", out, "--force"]) == 0
    return files


@pytest.mark.parametrize("name", ["style_merge", "style_lora"])
def test_it_runs_with_another_checkpoint(name, client, server, object_info, other_checkpoints):
    def drawn(change: str) -> numpy.ndarray:
        prompt = fill_in(read("api", f"{name}.json"), SMALL_FILES, {**SMALL_SETTINGS, "steps": 2})
        for node in prompt.values():
            if node["class_type"] == "CheckpointLoaderSimple":
                file = other_checkpoints[node["inputs"]["ckpt_name"]]
                node |= graphs.node("FaceCLIPUNETLoader", file=file, weight_dtype="default")
        return saved_pixels(client, fill_in(prompt, {}, {change: 0.0}))["faceclip"]

    changed, plain = drawn(""), drawn("strength" if name == "style_merge" else "strength_model")
    assert (changed != plain).mean() > 0.5
    assert "lora key not loaded" not in server.log_text()


# The builder on graphs that the examples do not have.

MODEL = {"class_type": "Make", "inputs": {}}
INFO = {
    "Make": {
        "name": "Make",
        "display_name": "Make",
        "input": {"required": {}},
        "output": ["MODEL", "INT", ["a", "b"]],
        "output_name": ["MODEL", "number", "choice"],
    },
    "Use": {
        "name": "Use",
        "display_name": None,
        "input": {
            "required": {
                "seed": ["INT", {"default": 3}],
                "model": ["MODEL"],
                "mode": [["a", "b"], {"control_after_generate": True}],
            },
            "optional": {"extra": ["MODEL"], "number": ["INT", {"forceInput": True}], "text": ["STRING", {}]},
        },
        "input_order": {"required": ["model", "seed", "mode"], "optional": ["extra", "number", "text"]},
        "output": [],
        "output_name": [],
    },
}
LAYOUT = {"rows": [[{"title": "All", "color": "#888", "columns": [["make"], ["use"]]}]]}


def use(**inputs) -> dict:
    return {"make": MODEL, "use": {"class_type": "Use", "inputs": {"model": ["make", 0], "mode": "b", **inputs}}}


def built(**inputs) -> tuple[dict, dict]:
    workflow = build.build("x", use(**inputs), LAYOUT, INFO)
    assert graphs.link_problems(workflow) == []
    return workflow, workflow["nodes"][1]


def test_sockets_come_before_widgets_and_required_before_optional():
    _, node = built(seed=7)
    assert [socket["name"] for socket in node["inputs"]] == ["model", "extra", "number", "seed", "mode", "text"]
    assert [socket["name"] for socket in node["inputs"] if "widget" in socket] == ["seed", "mode", "text"]
    assert node["widgets_values"] == [7, "randomize", "b", "fixed", "", ""]


def test_a_linked_widget_keeps_its_place_and_shows_its_default():
    workflow, node = built(seed=["make", 1], mode=["make", 2])
    assert node["widgets_values"][:3] == [3, "randomize", ""]
    assert [row[3:] for row in workflow["links"]] == [[2, 0, "MODEL"], [2, 3, "INT"], [2, 4, "COMBO"]]


def test_an_input_that_takes_no_widget_is_linked():
    workflow, _ = built(number=["make", 1], extra=["make", 0])
    assert [row[4] for row in workflow["links"]] == [0, 1, 2]


@pytest.mark.parametrize(
    ("prompt", "layout", "message"),
    [
        ({"make": {"class_type": "Gone", "inputs": {}}}, LAYOUT, "Gone"),
        (use(typo=1), LAYOUT, "no input typo"),
        (use(extra=4), LAYOUT, "takes a link"),
        (use(extra=["make", 5]), LAYOUT, "output 5"),
        ({**use(), "more": MODEL}, LAYOUT, "look at more"),
        (use(), {**LAYOUT, "notes": {"hint": {"title": "", "text": []}}}, "look at hint"),
        (use(), {**LAYOUT, "notes": {"use": {"title": "", "text": []}}}, "id of a node"),
        (use(), {**LAYOUT, "sizes": {"gone": [1, 1]}}, "gone"),
    ],
)
def test_what_does_not_fit_together_is_said(prompt, layout, message):
    with pytest.raises(build.WorkflowError, match=message):
        build.build("x", prompt, layout, INFO)
