"""Results and errors stand in the nodes, in both renderers of two front ends, as long as they are true."""

import time

import graphs
import numpy as np
import pytest
from PIL import Image
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

from workflows import build

TEXT = ".faceclip-text"
ERROR = ".faceclip-text.faceclip-error"
REPORT = f"return [...document.querySelectorAll('{TEXT}')].find((e) => e.value.startsWith('picture 1: face 0'))?.value"
COUNT = f"return [...document.querySelectorAll('{TEXT}')].filter((e) => e.getClientRects().length).length"
LAYOUT = {"rows": [[{"title": "Face", "color": "#888", "columns": [["photo"], ["detector"], ["align", "show"]]}]]}


@pytest.fixture(scope="module")
def no_face(base_directory) -> dict[str, str]:
    """Pictures without a face: name -> how the error about it starts."""
    told = {}
    for width in (400, 500):
        noise = np.random.default_rng(width).integers(0, 255, (300, width, 3), dtype=np.uint8)
        name = f"no_face_{width}.png"
        Image.fromarray(noise).save(base_directory / "input" / name)
        told[name] = f"No face was found in the picture ({width} x 300 px)."
    return told


def workflow(page, photo: str = "astronaut.png", min_score: float = 0.6, first: str = "photo") -> dict:
    """A photo, the detector, Align Face and a preview. first: which node has the lowest id."""
    nodes = {
        "photo": {"class_type": "LoadImage", "inputs": {"image": photo}},
        **graphs.detected(provider="CPU", min_score=min_score),
        "show": {"class_type": "PreviewImage", "inputs": {"images": ["align", 1]}},
    }
    nodes = {first: nodes.pop(first), **nodes}
    object_info = page.run("return await (await fetch('/object_info')).json()")
    return build.build(f"results {first}", nodes, LAYOUT, object_info)


def own_score(page) -> float:
    """A minimum score that no other test of this server has used, so that it has nothing in its cache."""
    return 0.51 + page.nodes2 * 0.02


def test_a_result_stays_while_its_inputs_do(view, yunet_name, tmp_path_factory):
    score = own_score(view)
    view.open(workflow(view, min_score=score), "first")
    assert not view.driver.execute_script(REPORT)
    view.queue()
    text = view.wait(REPORT, 60)
    assert text.endswith("Good to use.")
    assert view.driver.execute_script(COUNT) == 2, "the detector's and the report"
    # Selectable.
    area = view.find(TEXT)
    area.click()
    ActionChains(view.driver).key_down(Keys.CONTROL).send_keys("a").key_up(Keys.CONTROL).perform()
    chosen = "const e = document.activeElement; return e.value.slice(e.selectionStart, e.selectionEnd)"
    assert view.driver.execute_script(chosen) == "YuNet runs on the CPU."
    # Neither saved nor queued.
    assert all("YuNet runs" not in str(node.get("widgets_values")) for node in view.nodes().values())
    assert "YuNet runs" not in str(view.prompt())
    # Another graph that gives the same: the server has nothing to run, and says nothing.
    view.open(workflow(view, min_score=score, first="align"), "second")
    assert view.wait(REPORT) == text
    view.queue()
    time.sleep(1)
    assert view.wait(REPORT) == text
    # Another that does not.
    view.open(workflow(view, min_score=score + 0.1), "third")
    assert view.wait(f"{COUNT} === 1 && 1"), "the detector's text only: it is the same there"
    # Back to the first one's tab.
    tab = "return [...document.querySelectorAll('.workflow-tabs .p-togglebutton, [data-testid=workflow-tab]')]"
    view.driver.execute_script(f"{tab}.find((e) => e.innerText.includes('first'))").click()
    assert view.wait(REPORT) == text
    view.screenshot(tmp_path_factory.getbasetemp() / f"result {view.nodes2} {view.url[-4:]}.png")
    # A reload of the page.
    view.reload()
    view.wait("return app.graph.nodes.length === 4")
    assert view.wait(REPORT) == text
    # Other inputs, and those from before.
    view.set("FaceCLIPAlignFace", "input_faces_order", "left-right")
    assert view.wait(f"{COUNT} === 1 && 1")
    view.set("FaceCLIPAlignFace", "input_faces_order", "large-small")
    assert view.wait(REPORT) == text


def close_dialog(page) -> None:
    """The host's, about an error, where it has one."""
    if page.driver.find_elements("css selector", ".p-dialog"):
        page.run("document.querySelector('.p-dialog-close-button').click()")  # not by hand: it is still moving
        page.gone(".p-dialog")


def is_told(page, reason: str) -> None:
    """Waits until the page says it beside the graph: in a toast or, in older front ends, in a dialog; closes that."""
    page.wait(f"return document.body.innerText.includes({reason!r})")
    close_dialog(page)


def test_an_error_is_told_and_stands_in_its_node(view, yunet_name, no_face, tmp_path_factory):
    (photo, reason), (other_photo, other_reason) = no_face.items()
    view.open(workflow(view, photo, own_score(view)), "no face")
    view.queue()
    area = view.find(ERROR, 60)
    assert area.get_attribute("value").startswith(reason)
    assert "255, 107, 107" in area.value_of_css_property("color")
    is_told(view, reason)
    view.screenshot(tmp_path_factory.getbasetemp() / f"error {view.nodes2} {view.url[-4:]}.png")
    # Inside a subgraph, about another picture.
    view.set("LoadImage", "image", other_photo)
    view.enclose("FaceCLIPAlignFace")
    view.wait(f"return !({COUNT.removeprefix('return ')})")
    view.queue()
    is_told(view, other_reason)
    assert view.find(ERROR).get_attribute("value").startswith(other_reason)
    # It goes with what was wrong.
    view.run("app.canvas.setGraph(app.rootGraph)")
    view.set("LoadImage", "image", "astronaut.png")
    view.queue()
    view.run(
        "const node = app.graph.nodes.find((n) => n.isSubgraphNode?.()); app.canvas.openSubgraph(node.subgraph, node)"
    )
    assert view.wait(REPORT, 60)
    assert not view.driver.find_elements("css selector", ERROR)


def test_what_the_server_refuses_stands_in_its_node(view, yunet_name, tmp_path_factory):
    align = "app.graph.nodes.find((n) => n.type === 'FaceCLIPAlignFace')"
    view.open(workflow(view, min_score=own_score(view) + 0.2), "refused")
    link = f"app.graph.nodes.find((n) => n.type === 'FaceCLIPDetectorLoader').connect(0, {align}, 'detector')"
    view.run(f"{align}.disconnectInput({align}.findInputSlot('detector'))")
    view.queue()
    needed = "Nothing arrives at detector, which is needed. Connect something to it."
    assert view.find(ERROR).get_attribute("value") == needed
    view.screenshot(tmp_path_factory.getbasetemp() / f"refused {view.nodes2} {view.url[-4:]}.png")
    close_dialog(view)
    view.run(f"{link}; document.dispatchEvent(new Event('input'))")
    view.wait(f"return !document.querySelector('{ERROR}')")
    # A value that is not in the list, inside a subgraph.
    view.set("FaceCLIPAlignFace", "input_faces_order", "sideways")
    view.enclose("FaceCLIPAlignFace")
    view.queue()
    told = view.find(ERROR).get_attribute("value")  # newer hosts' finding; older ones leave it to the node
    assert told.startswith(("input_faces_order is sideways, which is", "input_faces_order is 'sideways'; wanted"))
    close_dialog(view)
