"""The face picker of Align Face: Find faces, click, keys, pages, in both renderers of two front ends."""

import json

import cv2
import graphs
import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

from faceclip.comfy.client import Client
from workflows import build

FACES = "document.querySelectorAll('.faceclip-face')"
REPORT = "[...document.querySelectorAll('.faceclip-text')].map((e) => e.value).find((v) => v.startsWith('picture 1'))"
CHOSEN = "return [...document.querySelectorAll('.faceclip-face')].findIndex((e) => e.ariaPressed === 'true')"
ALIGN = "FaceCLIPAlignFace"
LAYOUT = {"rows": [[{"title": "Face", "color": "#888", "columns": [["photo"], ["detector"], ["align", "show"]]}]]}
TWO = {"rows": [[{**LAYOUT["rows"][0][0], "columns": [["photo", "other"], ["both", "detector"], ["align", "show"]]}]]}


@pytest.fixture(scope="module")
def group(base_directory) -> str:
    """The name of a photo of six people in the server's input folder."""
    data = pytest.importorskip("insightface.data", reason="the photo comes with insightface")
    cv2.imwrite(str(base_directory / "input" / "group.jpg"), data.get_image("t1"))
    return "group.jpg"


@pytest.fixture
def own(view, yunet_name):
    """A minimum score that no other renderer's test has used, so that the server has nothing in its cache."""
    return 0.61 + 0.01 * view.nodes2


def nodes(photo: str, min_score: float) -> dict:
    return {
        "photo": {"class_type": "LoadImage", "inputs": {"image": photo}},
        **graphs.detected(provider="CPU", min_score=min_score),
        "show": {"class_type": "PreviewImage", "inputs": {"images": ["align", 1]}},
    }


def built(view, prompt: dict, layout: dict) -> dict:
    return build.build("picker", prompt, layout, view.run("return await (await fetch('/object_info')).json()"))


def find_faces(view, faces: int) -> None:
    view.find(".faceclip-picker .faceclip-button").click()
    view.wait(f"return {FACES}.length === {faces}", 60)


def click_face(view, number: int) -> None:
    ActionChains(view.driver).move_to_element(
        view.driver.find_elements("css selector", ".faceclip-face")[number]
    ).click().perform()


def inputs(view) -> dict:
    return next(
        node["inputs"]
        for node in view.run("return (await app.graphToPrompt()).output").values()
        if node["class_type"] == ALIGN
    )


def press(view, *keys: str) -> None:
    for key in keys:
        ActionChains(view.driver).send_keys(key).perform()


def test_a_face_is_chosen_by_eye(view, own, group, tmp_path_factory):
    view.open(built(view, nodes(group, own), LAYOUT), "one photo")
    assert view.run(f"return {FACES}.length") == 0
    find_faces(view, 6)
    client = Client(view.url)
    last = list(json.loads(client._request("/history?max_items=1")).values())[-1]
    assert [node["class_type"] for node in last["prompt"][2].values()].count("PreviewImage") == 0
    assert not view.run(f"return {REPORT} ?? null"), "a report of face 0, maybe wrong"
    boxes = view.run(f"return [...{FACES}].map((e) => e.innerText)")
    assert boxes[0].startswith("0 · 0.9")
    # The host's own preview is not shown a second time.
    assert view.run("return app.graph.nodes.find((n) => n.type === a[0]).imgs?.length", ALIGN) in (None, 0)
    click_face(view, 2)
    assert view.driver.execute_script(CHOSEN) == 2
    assert (inputs(view)["input_faces_index"], inputs(view)["chosen_faces"]) == (2, "")
    press(view, Keys.ARROW_RIGHT)
    assert inputs(view)["input_faces_index"] == 3
    press(view, Keys.ARROW_LEFT, "5")
    assert inputs(view)["input_faces_index"] == 5
    view.screenshot(tmp_path_factory.getbasetemp() / f"picker {view.nodes2} {view.url[-4:]}.png")
    caption = view.find(".faceclip-caption").text
    assert caption.startswith("face 5 of 6, score 0.9")
    view.queue()
    assert view.wait(f"return {REPORT}", 60).startswith("picture 1: face 5 of 6")
    # Another photo: no box is left.
    view.set("LoadImage", "image", "astronaut.png")
    view.wait(f"return {FACES}.length === 0")
    # The number 5, past the one face of this photo, does not hinder.
    find_faces(view, 1)
    assert "5 is not there" in view.find(".faceclip-caption").text
    click_face(view, 0)
    assert inputs(view)["input_faces_index"] == 0


def test_each_photo_of_a_batch_has_a_face_of_its_own(view, own, group):
    two = {
        **nodes(group, own + 0.1),
        "other": {"class_type": "LoadImage", "inputs": {"image": group}},
        "both": {"class_type": "ImageBatch", "inputs": {"image1": ["photo", 0], "image2": ["other", 0]}},
    }
    two["align"]["inputs"]["image"] = ["both", 0]
    view.open(built(view, two, TWO), "two photos")
    find_faces(view, 6)
    assert "photo 1 of 2" in view.find(".faceclip-pager").text
    click_face(view, 1)
    view.find(".faceclip-pager [aria-label='next photo']").click()
    assert "photo 2 of 2" in view.find(".faceclip-pager").text
    click_face(view, 4)
    assert inputs(view)["chosen_faces"] == "1, 4"
    press(view, Keys.PAGE_UP)
    assert "photo 1 of 2" in view.find(".faceclip-pager").text
    view.queue()
    report = view.wait(f"return {REPORT}", 60)
    assert "picture 1: face 1 of 6" in report and "picture 2: face 4 of 6" in report
    # One number is for all.
    view.set(ALIGN, "input_faces_index", 3)
    assert inputs(view)["chosen_faces"] == ""
    assert view.driver.execute_script(CHOSEN) == 3


def test_it_works_inside_a_subgraph(view, own, group):
    view.open(built(view, nodes(group, own + 0.2), LAYOUT), "subgraph")
    view.enclose("FaceCLIPDetectorLoader", ALIGN)
    find_faces(view, 6)
    click_face(view, 4)
    assert inputs(view)["input_faces_index"] == 4
