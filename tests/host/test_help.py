"""Every node has a help page: the server serves it, and it names all inputs and outputs; so do its translations.

Translations stand in `web/docs/NODE/LANGUAGE.md`, where the front end looks before it takes the English page.
"""

import json
import re
import urllib.request
from pathlib import Path

import pytest

from faceclip.comfy.environment import PACK_ROOT
from faceclip.comfy.server import PACK_NAME

PAGES = PACK_ROOT / "web" / "docs"
TRANSLATED = sorted(PAGES.glob("*/*.md"))


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
    for page in TRANSLATED:
        with opener.open(f"{server.url}/extensions/{PACK_NAME}/docs/{page.parent.name}/{page.name}", timeout=60) as got:
            assert got.read() == page.read_bytes()


def parts(text: str) -> list[str]:
    """What stands above the first heading of a help page and below each."""
    return re.split(r"^## .*\n", text, flags=re.MULTILINE)


def kept(text: str) -> dict[str, list[str]]:
    """What is the same in every language: errors as they are shown, links, commands, code and rows of tables."""
    code = {" ".join(span.split()) for span in re.findall(r"`([^`]+)`", text)}
    return {
        "errors": sorted(" ".join(words.split()) for words in re.findall(r'\*\*(".+?")\*\*', text, re.DOTALL)),
        "links": sorted(re.findall(r"\]\((\S+?)\)", text)),
        "commands": re.findall(r"\n\n(    \w.*)", text),
        "code": sorted(code),
        "rows": [str(line.count("|")) for line in text.splitlines() if line.startswith("|")],
    }


def test_each_page_is_there_in_each_language():
    languages = {path.name for path in (PACK_ROOT / "locales").iterdir()} - {"en"}
    english = {path.stem for path in PAGES.glob("*.md")}
    assert set(TRANSLATED) == {PAGES / node_id / f"{language}.md" for node_id in english for language in languages}


@pytest.mark.parametrize("page", TRANSLATED, ids=lambda page: f"{page.parent.name}-{page.stem}")
def test_a_translated_page_follows_the_english(page: Path):
    english = (PAGES / f"{page.parent.name}.md").read_text("utf-8")
    told = page.read_text("utf-8")
    names = json.loads((PACK_ROOT / "locales" / page.stem / "nodeDefs.json").read_text("utf-8"))[page.parent.name]
    assert told.startswith(f"# {names['display_name']}\n")
    assert len(parts(told)) == len(parts(english))
    assert kept(told) == kept(english)
    # Each by the name that workflows and errors use, and by the name that the node shows in this language.
    shown_names = {name: one["name"] for name, one in names.get("inputs", {}).items()}
    outputs = re.findall(r"^- \*\*(\w+)\*\*|, \*\*([A-Z]\w+)\*\*", parts(english)[2], re.MULTILINE)
    found = [first or more for first, more in outputs]
    assert len(found) == len(names["outputs"])
    shown_names |= {name: names["outputs"][str(i)]["name"] for i, name in enumerate(found)}
    for name, in_this_language in shown_names.items():
        same = name.lower() == in_this_language.lower()
        assert (f"**{name}**" if same else f"**{name}**（{in_this_language}）") in told, name
