"""The translations: every name, tooltip and description is there in each language, none stale, and no other.

``locales/en/nodeDefs.json`` is the English that the translations follow. Where a node's text changes, the test of the
English fails until the change is made there too, beside its translations.
"""

import ast
import json
import re
import urllib.request
from pathlib import Path

import pytest
from test_help import nodes, shown  # noqa: F401  nodes is a fixture

from faceclip.comfy.environment import PACK_ROOT
from faceclip.comfy.server import PACK_NAME

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


def sentences(node: dict) -> dict[str, str]:
    """ "description", "inputs.NAME" and "outputs.NUMBER" -> the text, of one node in a file of translations."""
    kinds = ("inputs", "outputs")
    tips = {f"{kind}.{name}": one["tooltip"] for kind in kinds for name, one in node.get(kind, {}).items()}
    return {"description": node["description"], **tips}


def test_the_english_is_what_the_nodes_say(nodes):  # noqa: F811
    english = read("en", "nodeDefs")
    assert set(english) == set(nodes)
    for node_id, info in nodes.items():
        said = {f"inputs.{name}": spec[1]["tooltip"] for kind in shown(info) for name, spec in kind.items()}
        said |= {f"outputs.{number}": tip for number, tip in enumerate(info["output_tooltips"])}
        told = "changed: translate it anew in each language, then write it into locales/en/nodeDefs.json"
        assert sentences(english[node_id]) == {"description": info["description"], **said}, f"{node_id} {told}"


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_tooltip_is_missing_and_each_has_the_numbers_of_the_english(language):
    english, translated = read("en", "nodeDefs"), read(language, "nodeDefs")
    for node_id, node in english.items():
        wanted, told = sentences(node), sentences(translated[node_id])
        assert set(told) == set(wanted), node_id
        for key, text in told.items():
            assert text.strip(), f"{node_id}.{key}"
            assert not set("{}|@") & set(text), f"{node_id}.{key}: the front end reads these as its own syntax"
            assert numbers(text) == numbers(wanted[key]), f"{node_id}.{key}: {text}"


def numbers(text: str) -> list[str]:
    """The numbers in a text, sorted: word order differs by language. Digits of names (FaceT5, fp8) don't count."""
    return sorted(re.findall(r"(?<![A-Za-z0-9_.])-?\d+(?:\.\d+)?", text))


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_server_hands_the_tooltips_to_the_front_end(language, server):
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"{server.url}/i18n", timeout=60) as answer:
        served = json.load(answer)[language]["nodeDefs"]
    assert {key: served[key] for key in read(language, "nodeDefs")} == read(language, "nodeDefs")


@pytest.mark.parametrize("language", ["en", *LANGUAGES])
def test_no_command_is_missing_and_none_is_stale(language):
    assert COMMANDS and set(read(language, "commands")) == COMMANDS
    assert read(language, "main")["templateWorkflows"]["category"]["ComfyUI-FaceCLIP"]


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_word_of_our_widgets_is_missing_and_none_is_stale(language):
    web = PACK_ROOT / "web"
    modules = [path for path in web.rglob("*.js") if not path.name.startswith("words")]
    source = "\n".join(path.read_text("utf-8") for path in modules)
    table = (web / "shared" / f"words_{language}.js").read_text("utf-8")
    found = re.findall(r'^  (?:(\w+)|"(.+?)"):\s+"(.+)",$', table, re.M)
    words = {plain or quoted: said for plain, quoted, said in found}
    assert len(words) == table.count('",\n') and set(re.findall(r'\bsay\(\s*"(.+?)"', source)) <= set(words)
    assert re.findall(r'(?:textContent|ariaLabel|title|alt|detail): "(.+?)"', source) == []  # none goes unsaid
    for english, said in words.items():
        assert f'"{english}"' in source, english
        assert sorted(re.findall(r"{\w+}", said)) == sorted(re.findall(r"{\w+}", english)), english


def spoken(path: Path) -> list[str]:
    """The texts in a module's code; "\0" stands for what is put in."""
    found = []
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        parts = node.values if isinstance(node, ast.JoinedStr) else [node]
        found.append("".join(str(one.value) if isinstance(one, ast.Constant) else "\0" for one in parts))
    return found


def test_each_beginning_of_an_error_is_one_that_the_code_says_and_is_translated():
    beginnings = re.findall(r'^  "(.+)",$', (PACK_ROOT / "web" / "shared" / "reasons.js").read_text("utf-8"), re.M)
    folders = (
        "nodes",
        "faceclip/faces",
        "faceclip/identity",
        "faceclip/install",
        "faceclip/model",
        "faceclip/sampling",
    )
    modules = [path for folder in folders for path in (PACK_ROOT / folder).rglob("*.py")]
    texts = [text for path in [*modules, PACK_ROOT / "faceclip" / "pixels.py"] for text in spoken(path)]
    said = [text.replace("\0", filling) for text in texts for filling in ("1", "the picture", "picture 1 of 1")]
    for beginning in beginnings:
        pattern = re.compile(".+?".join(map(re.escape, re.split(r"{\w+}", beginning))))
        assert any(pattern.match(text) for text in said), beginning
        for language in LANGUAGES:
            assert f'"{beginning}":' in (PACK_ROOT / "web" / "shared" / f"words_{language}.js").read_text("utf-8")
    assert len(beginnings) == 18


ERROR = "No face was found in picture 2 of 3 (512 x 384 px). The best score seen is 0.20."
EXPLAINED = {
    "zh": "第 2 张图像（共 3 张，512 x 384 像素）中未找到人脸。",
    "ja": "3 枚中 2 枚目の画像（512 x 384 px）に顔が見つかりません。",
}
SHOWN = {
    "zh": ["对齐人脸", "人脸顺序", "裁剪图", "查找人脸"],
    "ja": ["顔を整列", "顔の順序", "切り抜き", "顔を探す"],
}


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_newer_front_end_shows_a_node_in_that_language(newer_server, page_of, language):
    page = page_of(newer_server, nodes2=False).show()
    page.run("await app.extensionManager.setting.set('Comfy.Locale', a[0])", language)
    try:
        page.reload()
        seen = """(() => {
          const node = LiteGraph.createNode('FaceCLIPAlignFace')
          const widget = node?.widgets.find((one) => one.name == "input_faces_order")
          const button = node?.widgets.find((one) => one.name == "faceclip_picker")?.element.querySelector("button")
          return node && [node.title, widget.label, node.outputs[1].localized_name, button?.textContent]
        })()"""
        page.wait(f"return {seen}?.[0] === {json.dumps(SHOWN[language][0])}", 30)
        assert page.run(f"return {seen}") == SHOWN[language]
        page.run("(await import(a[0])).tell('FaceCLIP', a[1])", f"/extensions/{PACK_NAME}/errors.js", ERROR)
        for sentence in (EXPLAINED[language], ERROR):
            page.wait(f"return document.body.innerText.includes({sentence!r})")
    finally:
        page.run("await app.extensionManager.setting.set('Comfy.Locale', 'en')")
        page.reload()
