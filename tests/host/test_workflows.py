"""The example workflows: both forms say the same, fit the running host, can be found there, and run."""

import itertools
import json
import re
import urllib.request

import graphs
import pytest

from faceclip.comfy.environment import PACK_ROOT
from faceclip.comfy.server import PACK_NAME
from faceclip.comfy.workflow import for_small_model
from workflows import build

FOLDER = PACK_ROOT / "workflows"
NAMES = sorted(path.stem for path in (FOLDER / "api").glob("*.json"))
UNLINKED = re.compile(r'\{"name": "[^"]*", "type": "[^"]*", "links": null\}')


def read(*parts: str) -> dict:
    return json.loads(FOLDER.joinpath(*parts).read_text("utf-8"))


def get(url: str) -> bytes:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=60) as answer:
        return answer.read()


@pytest.fixture(scope="module")
def object_info(client) -> dict:
    return client.object_info()


def test_each_workflow_has_both_forms_and_a_layout():
    assert "portrait" in NAMES
    assert sorted(path.stem for path in FOLDER.glob("*.json")) == NAMES
    assert sorted(path.stem for path in (FOLDER / "layouts").glob("*.json")) == NAMES
    assert {path.stem for path in FOLDER.glob("*.jpg")} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_the_ui_form_is_what_the_builder_makes(name, object_info):
    written = (FOLDER / f"{name}.json").read_text("utf-8")
    built = build.build_text(name, object_info)
    if object_info["SaveImage"]["output"]:  # newer hosts give a few nodes an output more; the files are an older one's
        written, built = UNLINKED.sub("", written), UNLINKED.sub("", built)
    assert written == built, f"run: python workflows/build.py {name}"


@pytest.mark.parametrize("name", NAMES)
def test_the_prompt_fits_the_host(name, object_info):
    assert graphs.problems(graphs.with_small_model(read("api", f"{name}.json")), object_info) == []


@pytest.mark.parametrize("name", NAMES)
def test_every_node_of_a_prompt_has_a_title(name):
    assert all(node["_meta"]["title"] for node in read("api", f"{name}.json").values())


@pytest.mark.parametrize("name", NAMES)
def test_both_forms_are_the_same_graph(name, object_info):
    workflow = read(f"{name}.json")
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
    workflow = read(f"{name}.json")
    groups = [group["bounding"] for group in workflow["groups"]]
    boxes = [[x, y - build.TITLE, w, h + build.TITLE] for x, y, w, h in map(box_of, workflow["nodes"])]
    for kind in (groups, boxes):
        for one, other in itertools.combinations(kind, 2):
            assert not overlap(one, other), (one, other)
    for box in boxes:
        assert sum(overlap(box, group) for group in groups) == 1


def box_of(node: dict) -> list[float]:
    return [*node["pos"], *node["size"]]


def overlap(one: list[float], other: list[float]) -> bool:
    return all(one[i] < other[i] + other[i + 2] and other[i] < one[i] + one[i + 2] for i in (0, 1))


def test_the_hosts_template_browser_offers_them(server):
    listed = json.loads(get(server.url + "/workflow_templates"))
    assert sorted(listed[PACK_NAME]) == NAMES
    for name in NAMES:
        served = get(f"{server.url}/api/workflow_templates/{PACK_NAME}/{name}.json")
        assert served == (FOLDER / f"{name}.json").read_bytes()


@pytest.mark.parametrize("name", NAMES)
def test_it_runs_on_the_small_model(name, client, yunet_name):
    prompt = for_small_model(name, read("api", f"{name}.json"), steps=2)
    result = client.run(prompt)
    saved = [image for image in result.images() if image["type"] == "output"]
    assert saved, "it saves no picture"
    assert client.view(saved[0])[:8] == b"\x89PNG\r\n\x1a\n"


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
    assert node["widgets_values"] == [7, "fixed", "b", "fixed", "", ""]


def test_a_linked_widget_keeps_its_place_and_shows_its_default():
    workflow, node = built(seed=["make", 1], mode=["make", 2])
    assert node["widgets_values"][:3] == [3, "fixed", ""]
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
