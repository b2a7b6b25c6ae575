"""The translations: every name of a node, an input, an output and a command is there in each language, and no other."""

import json
import re

import pytest
from test_help import nodes, shown  # noqa: F401  nodes is a fixture

from faceclip.comfy.environment import PACK_ROOT

LOCALES = PACK_ROOT / "locales"
LANGUAGES = ("zh", "ja")
COMMANDS = {
    found.replace(".", "_")
    for path in (PACK_ROOT / "web").glob("*.js")
    for found in re.findall(r'\bid: "(FaceCLIP\.\w+)"', path.read_text("utf-8"))
}


def read(language: str, name: str) -> dict:
    return json.loads((LOCALES / language / f"{name}.json").read_text("utf-8"))


def test_there_are_the_languages_that_this_file_looks_at():
    assert {path.name for path in LOCALES.iterdir()} == {"en", *LANGUAGES}


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_name_is_missing_and_none_is_stale(language, nodes):  # noqa: F811
    told = read(language, "nodeDefs")
    assert set(told) == set(nodes)
    for node_id, info in nodes.items():
        wanted = {name for kind in shown(info) for name in kind}
        assert set(told[node_id].get("inputs", {})) == wanted, node_id
        assert set(told[node_id].get("outputs", {})) == {str(i) for i in range(len(info["output_name"]))}, node_id
        names = [told[node_id]["display_name"]]
        names += [one["name"] for key in ("inputs", "outputs") for one in told[node_id].get(key, {}).values()]
        assert all(name.strip() for name in names), node_id


@pytest.mark.parametrize("language", ["en", *LANGUAGES])
def test_no_command_is_missing_and_none_is_stale(language):
    assert COMMANDS and set(read(language, "commands")) == COMMANDS
    assert read(language, "main")["templateWorkflows"]["category"]["ComfyUI-FaceCLIP"]


SHOWN = {"zh": ["对齐人脸", "人脸顺序", "裁剪图"], "ja": ["顔を整列", "顔の順序", "切り抜き"]}


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_newer_front_end_shows_a_node_in_that_language(newer_server, page_of, language):
    page = page_of(newer_server, nodes2=False).show()
    page.run("await app.extensionManager.setting.set('Comfy.Locale', a[0])", language)
    try:
        page.reload()
        seen = """(() => {
          const node = LiteGraph.createNode('FaceCLIPAlignFace')
          const widget = node?.widgets.find((one) => one.name == "input_faces_order")
          return node && [node.title, widget.label, node.outputs[1].localized_name]
        })()"""
        page.wait(f"return {seen}?.[0] === {json.dumps(SHOWN[language][0])}", 30)
        assert page.run(f"return {seen}") == SHOWN[language]
    finally:
        page.run("await app.extensionManager.setting.set('Comfy.Locale', 'en')")
        page.reload()
