"""Makes the blueprints in subgraphs/, each one node in place of an example, from the same API prompts.

`python -m workflows.blueprints` asks the ComfyUI at --url for the inputs of each node. blueprints.toml names the nodes
of the example that stay outside, and which inner inputs the one node shows: label -> "node.input", or several of them.
"""

import argparse
import json
import uuid

from faceclip.files.toml import read_toml

from .build import FOLDER, build, object_info_of, to_text
from .node_classes import inputs_of

SUBGRAPHS = FOLDER.parent / "subgraphs"
INSIDE_INPUT, INSIDE_OUTPUT, OUTSIDE = -10, -20, 100  # node ids
WIDTH, ROW = 300, 24  # px


def specs() -> dict:
    return read_toml(FOLDER / "blueprints.toml")


def inner_prompt(spec: dict) -> dict:
    """The example's prompt without the nodes that stay outside, and without the links to them."""
    prompt = json.loads((FOLDER / "api" / f"{spec['api']}.json").read_text("utf-8"))
    kept = {node_id: node for node_id, node in prompt.items() if node_id not in spec["outside"]}
    for node in kept.values():
        node["inputs"] = {
            name: value
            for name, value in node["inputs"].items()
            if not (isinstance(value, list) and value[0] in spec["outside"])
        }
    return kept


def make(name: str, spec: dict, object_info: dict) -> dict:
    """The blueprint's file, as a dict."""
    prompt = inner_prompt(spec)
    made = build(name, prompt, {"rows": [[_group(prompt)]]}, object_info)
    numbers = {node_id: number for number, node_id in enumerate(prompt, 1)}
    nodes = {node["id"]: node for node in made["nodes"]}
    kind = _uuid(name)
    links = [
        dict(zip(("id", "origin_id", "origin_slot", "target_id", "target_slot", "type"), row, strict=True))
        for row in made["links"]
    ]
    inputs, shown, values = [], [], []
    for slot, (label, targets) in enumerate(spec["inputs"].items()):
        into = []
        for target in [targets] if isinstance(targets, str) else targets:
            node_id, _, input_name = target.partition(".")
            node = nodes[numbers[node_id]]
            place, socket = next((i, one) for i, one in enumerate(node["inputs"]) if one["name"] == input_name)
            into.append({"id": len(links) + 1, "origin_id": INSIDE_INPUT, "origin_slot": slot, "target_id": node["id"]})
            into[-1] |= {"target_slot": place, "type": socket["type"]}
            links.append(into[-1])
            socket["link"] = into[-1]["id"]
        named = {"name": label, "type": socket["type"]}
        inputs.append({"id": _uuid(name, label), **named, "linkIds": [link["id"] for link in into], "pos": [0, 0]})
        shown.append({**named, "link": None, **({"widget": {"name": label}} if "widget" in socket else {})})
        if "widget" in socket:
            known = {item.name: item.default for item in inputs_of(object_info[node["type"]])}
            values.append(prompt[node_id]["inputs"].get(input_name, known[input_name]))
    source = nodes[numbers[spec["output"]]]
    last = {"id": len(links) + 1, "origin_id": source["id"], "origin_slot": 0, "target_id": INSIDE_OUTPUT}
    links.append({**last, "target_slot": 0, "type": "IMAGE"})
    source["outputs"][0]["links"] = [*(source["outputs"][0]["links"] or []), last["id"]]
    right = max(node["pos"][0] + node["size"][0] for node in made["nodes"])
    subgraph = {
        "id": kind,
        "version": 1,
        "state": {"lastGroupId": 0, "lastNodeId": len(nodes), "lastLinkId": len(links), "lastRerouteId": 0},
        "revision": 0,
        "config": {},
        "name": name,
        "inputNode": {"id": INSIDE_INPUT, "bounding": [-200, 100, 128, 30 + 20 * len(inputs)]},
        "outputNode": {"id": INSIDE_OUTPUT, "bounding": [right + 80, 100, 128, 60]},
        "inputs": inputs,
        "outputs": [{"id": _uuid(name, "output"), "name": "IMAGE", "type": "IMAGE", "linkIds": [last["id"]]}],
        "widgets": [],
        "nodes": made["nodes"],
        "groups": [],
        "links": links,
        "extra": {},
    }
    output = {"name": "IMAGE", "type": "IMAGE", "links": None}
    outer = {"id": OUTSIDE, "type": kind, "pos": [0, 0], "size": [WIDTH, 80 + ROW * len(inputs) + 80 * len(values)]}
    outer |= {"flags": {}, "order": 0, "mode": 0, "title": name, "inputs": shown, "outputs": [output]}
    outer |= {"properties": {}, "widgets_values": values}
    return {
        "revision": 0,
        "last_node_id": OUTSIDE,
        "last_link_id": 0,
        "nodes": [outer],
        "links": [],
        "version": 0.4,
        "definitions": {"subgraphs": [subgraph]},
        "extra": {"BlueprintDescription": spec["description"], "BlueprintSearchAliases": spec["search"]},
    }


def _group(prompt: dict) -> dict:
    """Columns by how many nodes come before a node."""
    depths: dict[str, int] = {}

    def depth(node_id: str) -> int:
        if node_id not in depths:
            before = [value[0] for value in prompt[node_id]["inputs"].values() if isinstance(value, list)]
            depths[node_id] = 1 + max(map(depth, before), default=-1)
        return depths[node_id]

    columns: dict[int, list] = {}
    for node_id in prompt:
        columns.setdefault(depth(node_id), []).append(node_id)
    return {"title": "", "color": "#888", "columns": [columns[key] for key in sorted(columns)]}


def _uuid(*names: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, "/".join(("comfyui-faceclip/subgraphs", *names))))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--url", default="http://127.0.0.1:8188", help="a ComfyUI with this pack (default: %(default)s)"
    )
    object_info = object_info_of(parser.parse_args().url)
    for name, spec in specs().items():
        path = SUBGRAPHS / f"{name}.json"
        path.write_text(to_text(make(name, spec, object_info)), "utf-8")
        print(path)


if __name__ == "__main__":
    main()
