"""The pack in ComfyUI's real frontend, in a headless Chromium: workflows load as meant, texts and help pages appear."""

import io
import itertools
import json
import time

import graphs
import pytest
from PIL import Image, ImageChops

from faceclip.comfy.environment import PACK_ROOT
from faceclip.comfy.workflow import for_small_model
from faceclip.small import models as small
from workflows import build

WORKFLOWS = PACK_ROOT / "workflows"
NAMES = sorted(path.stem for path in (WORKFLOWS / "api").glob("*.json"))
# With values of its own: the host shows nothing of a node whose result it remembers from another test.
# A node the frontend does not know or marks; newer ones also mark a node whose model file the server lacks.
ABSENT_FILE = "n.widgets?.some((w) => Array.isArray(w.options?.values) && !w.options.values.includes(w.value))"
WRONG = f"!(n.type in LiteGraph.registered_node_types) || n.has_errors && !({ABSENT_FILE})"
# Types whose sockets the frontend makes by rules of its own; newer hosts have nodes with them.
DYNAMIC = ("COMFY_AUTOGROW_V3", "COMFY_DYNAMICCOMBO_V3", "COMFY_DYNAMICSLOT_V3", "COMFY_MATCHTYPE_V3")
DETECTOR_NODES = {
    "photo": {"class_type": "LoadImage", "inputs": {"image": "astronaut.png"}},
    **graphs.detected(provider="CPU", min_score=0.61),
    "show": {"class_type": "PreviewImage", "inputs": {"images": ["align", 1]}},
}
DETECTOR_LAYOUT = {
    "rows": [[{"title": "Face", "color": "#888", "columns": [["photo"], ["detector"], ["align", "show"]]}]],
    "sizes": {"detector": [320, 82]},  # just enough for its widgets
}


@pytest.fixture
def page(server, page_of):
    """The front end that the host brings along, drawing on the canvas."""
    return page_of(server, nodes2=False).show()


def workflow_of(name: str) -> dict:
    """The template as a user saved it: without the mark by which it would open with the small model."""
    workflow = json.loads((WORKFLOWS / f"{build.title_of(name)}.json").read_text("utf-8"))
    workflow["extra"].pop("faceclip", None)
    return workflow


def would_queue(page, wanted: dict) -> None:
    shown = page.prompt()
    assert {key: node["class_type"] for key, node in shown.items()} == {k: n["class_type"] for k, n in wanted.items()}
    for key, node in wanted.items():
        assert {name: shown[key]["inputs"].get(name) for name in node["inputs"]} == node["inputs"], node["class_type"]


@pytest.mark.parametrize("name", NAMES)
def test_a_workflow_loads_as_it_was_laid_out_and_makes_its_api_prompt(page, name, tmp_path_factory):
    workflow = workflow_of(name)
    page.open(workflow, name)
    page.screenshot(tmp_path_factory.getbasetemp() / f"{name}.png")
    assert page.run(f"return app.graph.nodes.filter((n) => {WRONG}).map((n) => n.type)") == []
    shown = page.nodes()
    for node in workflow["nodes"]:
        again = shown[node["id"]]
        # A node that the frontend makes larger than we placed it would lie on its neighbour.
        assert [again["pos"], again["size"]] == [node["pos"], node["size"]], node["type"]
        assert again.get("widgets_values", []) == node["widgets_values"], node["type"]
        assert sockets_of(again) == sockets_of(node), node["type"]
    would_queue(page, graphs.renumbered(json.loads((WORKFLOWS / "api" / f"{name}.json").read_text("utf-8"))))


# Class and box of every node and note, title included, and the boxes of the groups, in px of the canvas.
DRAWN = """
const { scale, offset } = app.canvas.ds, { left, top } = app.canvas.canvas.getBoundingClientRect()
const nodes = app.graph.nodes.map((node) => {
  const { x, y, width, height } = document.querySelector(`[data-node-id="${node.id}"]`).getBoundingClientRect()
  return [node.type, (x - left) / scale - offset[0], (y - top) / scale - offset[1], width / scale, height / scale]
})
return [nodes, app.graph.groups.map(({ pos, size }) => [...pos, ...size])]"""


@pytest.mark.parametrize("name", NAMES)
def test_no_node_covers_another_or_leaves_its_group_in_nodes_2(newer_server, page_of, name, tmp_path_factory):
    page = page_of(newer_server, nodes2=True).show()
    page.open(workflow_of(name), name)
    page.screenshot(tmp_path_factory.getbasetemp() / f"{name} nodes 2.png")
    drawn, groups = page.run(DRAWN)
    assert len(drawn) == len(workflow_of(name)["nodes"])
    for one, other in itertools.combinations(drawn, 2):
        assert not covers(one[1:], other[1:]), (one, other)
    for node in drawn:
        assert sum(holds(group, node[1:]) for group in groups) == 1, node


def holds(group: list[float], box: list[float]) -> bool:
    return all(group[i] - 1 <= box[i] and box[i] + box[i + 2] <= group[i] + group[i + 2] + 1 for i in (0, 1))


def covers(one: list[float], other: list[float]) -> bool:
    return all(one[i] + 1 < other[i] + other[i + 2] and other[i] + 1 < one[i] + one[i + 2] for i in (0, 1))


def sockets_of(node: dict) -> list[tuple]:
    # The frontend puts a button into nodes that take an upload.
    sockets = [socket for socket in node["inputs"] if socket["name"] != "upload"]
    return [(socket["name"], socket["type"], socket["link"], socket.get("widget")) for socket in sockets]


def test_the_builder_knows_the_sockets_and_widgets_of_every_node(page, client):
    object_info = client.object_info()
    layout = {"rows": [[{"title": "", "color": "", "columns": [["node"]]}]]}
    made = page.run(
        "return a[0].map((type) => { const node = LiteGraph.createNode(type); app.graph.add(node);"
        "const saved = node.serialize(); app.graph.remove(node); return JSON.parse(JSON.stringify(saved)) })",
        list(object_info),
    )
    compared = 0
    for shown in made:
        if any(kind in DYNAMIC for kind, *_ in graphs.specs(object_info[shown["type"]]).values()):
            continue
        if {socket["type"] for socket in shown["inputs"] if "widget" in socket} - {*graphs.WIDGETS, "IMAGEUPLOAD"}:
            continue  # the frontend's own widgets for sound, 3D and webcams
        prompt = {"node": {"class_type": shown["type"], "inputs": {}}}
        built = build.build("node", prompt, layout, object_info)["nodes"][0]
        assert sockets_of(built) == sockets_of(shown), shown["type"]
        # The frontend may add buttons, at the end.
        assert len(built["widgets_values"]) <= len(shown.get("widgets_values", [])) <= len(built["widgets_values"]) + 2
        compared += 1
    assert compared > 300


def test_a_node_grows_once_for_its_text(page, client, yunet_name, tmp_path_factory):
    # Else the page may know what this detector says, and have grown it already.
    for path, body in (("/history", {"clear": True}), ("/free", {"unload_models": True, "free_memory": True})):
        client._request(path, json.dumps(body).encode(), {"Content-Type": "application/json"})
    page.reload()
    page.open(build.build("detector", DETECTOR_NODES, DETECTOR_LAYOUT, client.object_info()), "detector")
    before, prompt = page.nodes(), page.prompt()
    find = "app.graph.nodes.find((n) => n.type === 'FaceCLIPDetectorLoader')"
    widget = f"{find}.widgets.find((w) => w.name === 'faceclip_text')"
    page.queue()
    assert "YuNet runs on the CPU" in page.wait(f"return {widget}?.element.value", 60)
    page.screenshot(tmp_path_factory.getbasetemp() / "detector.png")
    after = page.nodes()
    assert page.prompt() == prompt
    for number, node in before.items():
        # A node without widgets has an empty list or, in newer frontends beside a preview, none.
        assert after[number].get("widgets_values", []) == node.get("widgets_values", [])
    width, height = after[2]["size"]
    assert width == before[2]["size"][0]
    assert before[2]["size"][1] < height <= before[2]["size"][1] + 100
    # A size that the user gave is left as it is when the text goes and comes again.
    page.run(f"{find}.setSize([500, 400])")
    page.set("FaceCLIPDetectorLoader", "provider", "auto")
    page.wait(f"return {widget}.hidden")
    page.set("FaceCLIPDetectorLoader", "provider", "CPU")
    page.wait(f"return !{widget}.hidden")
    assert page.nodes()[2]["size"] == [500, 400]
    assert len(page.run(f"return {find}.widgets.map((w) => w.name)")) == 3


def test_a_user_fills_in_an_example_and_sees_the_picture(page, client, yunet_name, tmp_path_factory):
    """The portrait, with the files and words of the small model that comes along, queued as the Run button does."""
    prompt = json.loads((WORKFLOWS / "api" / "portrait.json").read_text("utf-8"))
    wanted = graphs.renumbered(for_small_model("portrait", prompt, noise_seed=7))
    page.open(workflow_of("portrait"), "portrait")
    values = {
        number: {name: value for name, value in node["inputs"].items() if not isinstance(value, list)}
        for number, node in wanted.items()
    }
    page.run(
        "for (const [id, inputs] of Object.entries(a[0])) for (const [name, value] of Object.entries(inputs)) {"
        "const node = app.graph.getNodeById(Number(id)), widget = node.widgets.find((w) => w.name === name);"
        "widget.value = value; widget.callback?.(value, app.canvas, node) }",
        values,
    )
    would_queue(page, wanted)
    page.run("await app.queuePrompt(0)")
    save = "app.graph.nodes.find((n) => n.type === 'SaveImage')"
    address = page.wait(f"return {save}.imgs?.[0]?.complete && {save}.imgs[0].src", 240)
    time.sleep(1)
    page.driver.save_screenshot(str(tmp_path_factory.getbasetemp() / "portrait_done.png"))
    shown = page.run("return [...new Uint8Array(await (await fetch(a[0])).arrayBuffer())]", address)
    shown = Image.open(io.BytesIO(bytes(shown)))
    assert shown.size == (small.SIZE, small.SIZE)
    client.free()
    by_api = [image for image in client.run(wanted).images() if image["type"] == "output"]
    assert ImageChops.difference(shown, Image.open(io.BytesIO(client.view(by_api[0])))).getbbox() is None


def test_the_help_page_opens_from_the_node(page):
    page.open(workflow_of("portrait"), "portrait")
    page.run("app.canvas.selectNode(app.graph.nodes.find((n) => n.type === 'FaceCLIPEncodePrompt'))")
    page.wait("return !!document.querySelector('[data-testid=info-button]')")
    page.run("document.querySelector('[data-testid=info-button]').click()")
    text = page.wait("return document.querySelector('.node-help-content')?.innerText?.includes('Long prompts') && 1")
    assert text


def test_the_console_has_no_error_of_the_extension(page):
    page.driver.get_log("browser")  # other tests queue what is refused, which the front end logs
    page.reload()
    for name in ("portrait", "face_detail"):
        page.open(workflow_of(name), name)
    ours = [entry for entry in page.driver.get_log("browser") if "/ComfyUI-FaceCLIP/" in entry["message"]]
    # The frontend first asks for a translated help page; that there is none is no fault.
    assert [entry for entry in ours if "/docs/" not in entry["message"]] == []
