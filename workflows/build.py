"""Makes the UI form of an example workflow from its API prompt, its layout and a running ComfyUI.

`python -m workflows.build NAME` reads api/NAME.json and layouts/NAME.json, asks the ComfyUI at --url for the inputs of
each node, and writes what the template browser offers, under the title that the layout gives. The prompt says what the
graph does, the layout only where things stand and what the note tells, so neither is said twice and the written file is
never edited. Seeds are set to change after each run, loaders of published files say where these come from, and
`extra.faceclip` tells what to change for the small model, by which web/templates.js also knows a template.

A layout: {"title", "rows": [[group, ...], ...], "notes": {...}, "sizes": {...}, "colors": {...}}. Groups of a row stand
side by side. A group is {"title", "color", "columns": [[id, ...], ...]}; an id is that of a node of the prompt or of a
note. A note is {"title", "text": [line of Markdown, ...]}. sizes: id -> [width, height]; colors: id -> a name of
NODE_COLORS. app: "node.input" -> label, what the app form of newer frontends shows beside the saved picture.
"""

import argparse
import json
import urllib.request
import uuid
from dataclasses import dataclass, field
from pathlib import Path

from faceclip.comfy.workflow import for_small_model, small_variants
from faceclip.install import published

from .node_classes import inputs_of, output_types, sockets_of, uploads
from .placing import Box, WorkflowError, arrange

FOLDER = Path(__file__).resolve().parent
# Loaders whose file may be a published one, and what the frontend may offer to download then.
MODELS = {
    "FaceCLIPLoader": (published.ENCODER, published.T5_ENCODER),
    "FaceCLIPUNETLoader": (published.UNET, published.DIT),
    "VAELoader": (published.VAE, published.FLUX_VAE),
}
NODE_COLORS = {"green": ("#232", "#353"), "red": ("#322", "#533"), "blue": ("#223", "#335")}
NOTE_COLORS = ("#432", "#653")
ELEMENT_HEIGHT = 300  # px, of an element of our own in the app form


@dataclass
class Links:
    """The links of the graph: rows as in the file, and which of them leave or enter a socket."""

    rows: list[list] = field(default_factory=list)
    out: dict[tuple[str, int], list[int]] = field(default_factory=dict)
    into: dict[tuple[str, str], int] = field(default_factory=dict)


def is_link(value, prompt: dict) -> bool:
    return isinstance(value, list) and len(value) == 2 and value[0] in prompt and isinstance(value[1], int)


def build(name: str, prompt: dict, layout: dict, object_info: dict) -> dict:
    """The workflow file, as a dict, of one API prompt. Raises WorkflowError."""
    for node_id, node in prompt.items():
        if node["class_type"] not in object_info:
            raise WorkflowError(f"Node {node_id!r} is a {node['class_type']}, which this ComfyUI does not have.")
    infos = {node_id: object_info[node["class_type"]] for node_id, node in prompt.items()}
    numbers = {item: number for number, item in enumerate([*prompt, *layout.get("notes", {})], 1)}
    if len(numbers) != len(prompt) + len(layout.get("notes", {})):
        raise WorkflowError("A note has the id of a node; give it another.")
    links = _links(prompt, infos, numbers)
    boxes, groups = arrange(prompt, infos, layout)
    order = {node_id: place for place, node_id in enumerate(_in_order(prompt))}
    nodes = []
    for node_id, node in prompt.items():
        shown = _node(node_id, node, infos[node_id], prompt, links)
        head = {"id": numbers[node_id], "type": node["class_type"], **_place_of(boxes[node_id])}
        nodes.append({**head, "flags": {}, "order": order[node_id], "mode": 0, **shown, **_color(node_id, layout)})
    for place, (note_id, note) in enumerate(layout.get("notes", {}).items(), len(prompt)):
        head = {"id": numbers[note_id], "type": "MarkdownNote", **_place_of(boxes[note_id])}
        nodes.append({**head, "flags": {}, "order": place, "mode": 0, **_note(note)})
    return {
        "id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"comfyui-faceclip/workflows/{name}")),
        "revision": 0,
        "last_node_id": len(numbers),
        "last_link_id": len(links.rows),
        "nodes": nodes,
        "links": links.rows,
        "groups": groups,
        "config": {},
        "extra": {},
        "version": 0.4,
    }


def _links(prompt: dict, infos: dict, numbers: dict) -> Links:
    links = Links()
    for node_id, node in prompt.items():
        known = {item.name for item in inputs_of(infos[node_id])}
        if unknown := set(node["inputs"]) - known:
            raise WorkflowError(f"Node {node_id!r} has no input {', '.join(sorted(unknown))}.")
        for slot, item in enumerate(sockets_of(infos[node_id])):
            value = node["inputs"].get(item.name)
            if not is_link(value, prompt):
                continue
            source, output = value
            types = output_types(infos[source])
            if not 0 <= output < len(types):
                raise WorkflowError(f"{item.name} of {node_id!r} wants output {output} of {source!r}; there is none.")
            number = len(links.rows) + 1
            links.rows.append([number, numbers[source], output, numbers[node_id], slot, types[output]])
            links.out.setdefault((source, output), []).append(number)
            links.into[node_id, item.name] = number
    return links


def _in_order(prompt: dict) -> list[str]:
    """Ids of the nodes, each after those it needs."""
    done: dict[str, None] = {}

    def visit(node_id: str, below: tuple[str, ...]):
        if node_id in below:
            raise WorkflowError(f"The links make a circle: {' -> '.join([*below, node_id])}.")
        for value in prompt[node_id]["inputs"].values():
            if is_link(value, prompt) and value[0] not in done:
                visit(value[0], (*below, node_id))
        done[node_id] = None

    for node_id in prompt:
        visit(node_id, ())
    return list(done)


def _node(node_id: str, node: dict, info: dict, prompt: dict, links: Links) -> dict:
    sockets = []
    for item in sockets_of(info):
        socket = {"name": item.name, "type": item.type, "link": links.into.get((node_id, item.name))}
        if item.optional:
            socket["shape"] = 7  # how the frontend draws what may stay empty
        if item.is_widget:
            socket["widget"] = {"name": item.name}
        sockets.append(socket)
    outputs = []
    for number, (name, type_) in enumerate(zip(info["output_name"], output_types(info), strict=True)):
        outputs.append({"name": name, "type": type_, "links": links.out.get((node_id, number))})
    title = node.get("_meta", {}).get("title")
    own_title = title not in (None, info["display_name"] or info["name"])
    return {
        **({"title": title} if own_title else {}),
        "inputs": sockets,
        "outputs": outputs,
        "properties": {"Node name for S&R": node["class_type"], **_models(node)},
        "widgets_values": _widget_values(node_id, node["inputs"], info, prompt),
    }


def _models(node: dict) -> dict:
    files = [file for file in MODELS.get(node["class_type"], ()) if file.name in node["inputs"].values()]
    if not files:
        return {}
    return {"models": [{"name": file.name, "url": file.address, "directory": file.folder} for file in files]}


def _widget_values(node_id: str, given: dict, info: dict, prompt: dict) -> list:
    values = []
    inputs = inputs_of(info)
    for place, item in enumerate(inputs):
        value = given.get(item.name)
        if not item.is_widget and value is not None and not is_link(value, prompt):
            raise WorkflowError(f"{item.name} of {node_id!r} is {value!r}; it takes a link to a {item.type}.")
        if item.is_widget:
            values.append(item.default if value is None or is_link(value, prompt) else value)
            values += ["randomize" if item.type == "INT" else "fixed"] if item.has_control else []
            values += [""] if item.has_control and item.type == "COMBO" else []  # the filter of such a combo
        last_required = not item.optional and all(later.optional for later in inputs[place + 1 :])
        if last_required and uploads(inputs):
            values.append("image")  # the value of the upload button, whatever is uploaded
    return values


def _note(note: dict) -> dict:
    color, background = NOTE_COLORS
    return {
        "title": note["title"],
        "inputs": [],
        "outputs": [],
        "properties": {},
        "widgets_values": ["\n".join(note["text"])],
        "color": color,
        "bgcolor": background,
    }


def _color(node_id: str, layout: dict) -> dict:
    name = layout.get("colors", {}).get(node_id)
    return dict(zip(("color", "bgcolor"), NODE_COLORS[name], strict=True)) if name else {}


def _place_of(box: Box) -> dict:
    return {"pos": [box.x, box.y], "size": [box.width, box.height]}


def to_text(workflow: dict) -> str:
    """The file's text: one line for each node, link and group, so that a change is seen where it is."""
    parts = []
    for key, value in workflow.items():
        text = json.dumps(value, ensure_ascii=False)
        if isinstance(value, list) and value:
            lines = ",\n".join("    " + json.dumps(item, ensure_ascii=False) for item in value)
            text = f"[\n{lines}\n  ]"
        parts.append(f"  {json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def title_of(name: str) -> str:
    """What the template browser calls an example: its file's name without .json."""
    return json.loads((FOLDER / "layouts" / f"{name}.json").read_text("utf-8"))["title"]


def build_text(name: str, object_info: dict) -> str:
    """The template's text, from the files in this folder. Raises WorkflowError."""
    prompt, layout = (json.loads((FOLDER / part / f"{name}.json").read_text("utf-8")) for part in ("api", "layouts"))
    made = build(name, prompt, layout, object_info)
    if "app" in layout:
        made["extra"]["linearData"] = _app_form(made["nodes"], prompt, layout["app"])
    if name in small_variants():
        small = build(name, for_small_model(name, prompt), layout, object_info)
        made["extra"]["faceclip"] = {"small_model": _changes(made["nodes"], small["nodes"])}
    return to_text(made)


def _app_form(nodes: list[dict], prompt: dict, shown: dict[str, str]) -> dict:
    """What newer frontends read as the app form; the labels go to the nodes' sockets. Our own elements have theirs."""
    numbers = {node_id: number for number, node_id in enumerate(prompt, 1)}
    inputs = []
    for name, label in shown.items():
        node_id, _, input_name = name.partition(".")
        node = next(node for node in nodes if node["id"] == numbers[node_id])
        if input_name.startswith("faceclip_"):
            inputs.append([node["id"], input_name, {"height": ELEMENT_HEIGHT}])
            continue
        next(socket for socket in node["inputs"] if socket["name"] == input_name)["label"] = label
        inputs.append([node["id"], input_name])
    return {"inputs": inputs, "outputs": [numbers["save"]]}


def _changes(nodes: list[dict], others: list[dict]) -> list[list]:
    """[node id, index of the widget, value] of everything that is another value in `others`."""
    return [
        [node["id"], index, value]
        for node, other in zip(nodes, others, strict=True)
        for index, (before, value) in enumerate(zip(node["widgets_values"], other["widgets_values"], strict=True))
        if before != value
    ]


def object_info_of(url: str) -> dict:
    """What the ComfyUI at `url` tells of its nodes."""
    with urllib.request.urlopen(url + "/object_info", timeout=60) as answer:
        return json.load(answer)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = sorted(path.stem for path in (FOLDER / "layouts").glob("*.json"))
    parser.add_argument("names", nargs="*", default=names, help=f"which to make (default: all: {', '.join(names)})")
    parser.add_argument(
        "--url", default="http://127.0.0.1:8188", help="a ComfyUI with this pack (default: %(default)s)"
    )
    arguments = parser.parse_args()
    object_info = object_info_of(arguments.url)
    for name in arguments.names:
        path = FOLDER / f"{title_of(name)}.json"
        path.write_text(build_text(name, object_info), "utf-8")
        print(path)


if __name__ == "__main__":
    main()
