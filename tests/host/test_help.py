"""Every node has a help page: the server serves it, and it names all inputs and outputs."""

import urllib.request

import pytest

from faceclip.comfy.environment import PACK_ROOT
from faceclip.comfy.server import PACK_NAME

PAGES = PACK_ROOT / "web" / "docs"


@pytest.fixture(scope="module")
def nodes(client) -> dict:
    """Node id -> what the host tells of it, for the nodes of this pack."""
    return {key: info for key, info in client.object_info().items() if PACK_NAME in info["python_module"]}


def shown(info: dict) -> list[dict]:
    """The inputs a user sees; the host gives output nodes hidden ones as well."""
    return [inputs for kind, inputs in info["input"].items() if kind != "hidden"]


def test_pages_and_nodes_are_the_same_set(nodes):
    assert {path.stem for path in PAGES.glob("*.md")} == set(nodes)


def test_each_page_names_every_input_and_output(nodes):
    for node_id, info in nodes.items():
        page = (PAGES / f"{node_id}.md").read_text("utf-8")
        assert page.startswith(f"# {info['display_name']}\n"), node_id
        inputs, _, rest = page.partition("## Inputs\n")[2].partition("## Outputs\n")
        outputs = rest.partition("\n## ")[0]
        for kind in shown(info):
            for name in kind:
                assert f"**{name}**" in inputs, f"{node_id}: {name}"
        for name in info["output_name"]:
            assert f"**{name}**" in outputs, f"{node_id}: {name}"
        assert "## When something goes wrong\n" in page, node_id


def test_every_input_and_output_has_a_tooltip(nodes):
    for node_id, info in nodes.items():
        for kind in shown(info):
            for name, spec in kind.items():
                assert spec[1].get("tooltip"), f"{node_id}: {name}"
        assert all(info["output_tooltips"]), node_id


def test_the_server_serves_them(server, nodes):
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    for node_id in nodes:
        with opener.open(f"{server.url}/extensions/{PACK_NAME}/docs/{node_id}.md", timeout=60) as answer:
            assert answer.read() == (PAGES / f"{node_id}.md").read_bytes()
