"""The blueprints: the host offers them, both front ends load them, and they are the graphs of the examples."""

import json
import urllib.parse
import urllib.request

import graphs
import pytest

from faceclip.comfy.server import PACK_NAME
from workflows import blueprints

SPECS = blueprints.specs()


def read(name: str) -> dict:
    return json.loads((blueprints.SUBGRAPHS / f"{name}.json").read_text("utf-8"))


def get(url: str):
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=60) as answer:
        return json.load(answer)


def test_the_host_offers_them(server):
    listed = get(server.url + "/global_subgraphs")
    ours = {entry["name"]: key for key, entry in listed.items() if PACK_NAME in json.dumps(entry)}
    assert set(SPECS) <= {urllib.parse.unquote(name) for name in ours}
    for name in SPECS:
        assert json.loads(get(f"{server.url}/global_subgraphs/{ours[name]}")["data"]) == read(name)


@pytest.mark.parametrize("name", SPECS)
def test_the_file_is_what_the_builder_makes_and_ascii(name, client):
    assert blueprints.make(name, SPECS[name], client.object_info()) == read(name), "run: python -m workflows.blueprints"
    assert (blueprints.SUBGRAPHS / f"{name}.json").read_bytes().isascii()


@pytest.mark.parametrize("name", SPECS)
def test_one_node_queues_the_example(view, name):
    """Everything but what stays outside: every value, and what the one node's own widgets give on."""
    view.open(read(name), name)
    shown = view.prompt_of_any()
    wanted = graphs.renumbered(blueprints.inner_prompt(SPECS[name]))
    assert len(shown) == len(wanted)
    for key, node in wanted.items():
        inner = shown[f"{blueprints.OUTSIDE}:{key}"]
        assert inner["class_type"] == node["class_type"]
        for given, value in node["inputs"].items():
            expected = [f"{blueprints.OUTSIDE}:{value[0]}", value[1]] if isinstance(value, list) else value
            assert inner["inputs"].get(given) == expected, f"{node['class_type']}.{given}"


def test_a_change_in_the_one_node_reaches_the_inner_one(view):
    view.open(read("FaceCLIP Portrait"), "changed")
    view.run(
        "const node = app.rootGraph.nodes[0]; const w = node.widgets.find((w) => [w.name, w.label].includes('seed'));"
        "w.value = 77; w.callback?.(77, app.canvas, node)"
    )
    inner = [node for node in view.prompt_of_any().values() if node["class_type"] == "SamplerCustom"]
    assert inner[0]["inputs"]["noise_seed"] == 77
