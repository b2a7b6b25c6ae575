"""The gallery of Load Identity: choose, rename, delete after asking, bring in a file."""

import json
import time
import urllib.error
import urllib.request

import pytest
import torch
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

from faceclip.identity.file import save_person
from faceclip.identity.person import Person
from faceclip.install.places import IDENTITIES
from faceclip.model.config import FACE_GRID
from faceclip.model.encoder import Identity
from faceclip.model.face_encoder import FaceFeatures

FILE = (
    "return app.graph.nodes.find((n) => n.type === 'FaceCLIPLoadIdentity').widgets.find((w) => w.name === 'file').value"
)
NAMES = "return [...document.querySelectorAll('.faceclip-person')].map((e) => e.innerText.trim())"


@pytest.fixture
def shelf(base_directory, tmp_path):
    """A folder with nobody but Ada and Bo in it, and a file of Cy from elsewhere."""
    folder = base_directory / "models" / IDENTITIES
    folder.mkdir(exist_ok=True)
    others = {path: path.read_bytes() for path in folder.glob("*.safetensors")}
    for path in others:
        path.unlink()
    features = FaceFeatures(torch.randn(1, 64), torch.randn(1, FACE_GRID**2, 64))
    for place, name, colour in ((folder, "ada", 0), (folder, "bo", 1), (tmp_path, "cy", 2)):
        thumbnails = torch.zeros(1, 3, 112, 112, dtype=torch.uint8)
        thumbnails[0, colour] = 255
        save_person(Person(Identity(features, features), (1.0,), thumbnails, "0123456789abcdef", name), place, name)
    yield folder, tmp_path / "cy.safetensors"
    for path in folder.glob("*.safetensors"):
        path.unlink()
    for path, content in others.items():
        path.write_bytes(content)


def press(view, label: str) -> None:
    view.run(
        "[...document.querySelectorAll('.faceclip-details button')].find((e) => e.innerText === a[0]).click()", label
    )


def drop(view, selector: str, path) -> None:
    """Drops a file on an element as the pointer does."""
    view.still(selector)
    box = view.find(selector).rect
    data = {"items": [], "files": [str(path)], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        place = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2}
        view.driver.execute_cdp_cmd("Input.dispatchDragEvent", {"type": kind, **place, "data": data})


def confirm(view) -> None:
    """Presses the button of the dialog that does it, by its place: the last one."""
    view.find("[role=dialog]")
    view.run("[...document.querySelectorAll('[role=dialog] button')].filter((e) => e.innerText.trim()).at(-1).click()")
    view.gone("[role=dialog]")


def test_people_are_kept_by_their_pictures(view, shelf, tmp_path_factory):
    folder, elsewhere = shelf
    view.run("app.canvas.setGraph(app.rootGraph); app.rootGraph.clear()")  # the last test may be in a subgraph
    time.sleep(0.5)  # Nodes 2.0 first has to see the last test's nodes go
    view.run(
        "const node = LiteGraph.createNode('FaceCLIPLoadIdentity'); node.size = [340, 420]; node.pos = [300, 200];"
        "app.graph.add(node); app.canvas.ds.reset()"
    )
    view.wait(f"{NAMES}.join() === 'ada,bo'")
    view.wait("return [...document.querySelectorAll('.faceclip-person img')].every((e) => e.naturalWidth === 112)")
    view.driver.find_elements("css selector", ".faceclip-person")[1].click()
    view.wait(f"return ({FILE.removeprefix('return ')}) === 'bo.safetensors'")
    assert "1 reference, encoder 01234567" in view.find(".faceclip-details").text
    view.screenshot(tmp_path_factory.getbasetemp() / f"gallery {view.nodes2} {view.url[-4:]}.png")
    press(view, "Rename")
    field = view.find("[role=dialog] input")
    field.send_keys(Keys.CONTROL, "a")
    field.send_keys("Bo Diddley", Keys.ENTER)
    view.wait(f"{NAMES}.join() === 'ada,Bo Diddley'")
    assert view.driver.execute_script(FILE) == "Bo Diddley.safetensors"
    drop(view, ".faceclip-grid", elsewhere)
    view.wait(f"{NAMES}.includes('cy')")
    assert view.driver.execute_script(FILE) == "cy.safetensors"
    press(view, "Delete")
    confirm(view)
    view.wait(f"{NAMES}.length === 2")
    view.driver.find_element("css selector", ".faceclip-details input").send_keys(str(elsewhere))
    view.wait(f"{NAMES}.includes('cy')")
    assert view.driver.execute_script(FILE) == "cy.safetensors"
    press(view, "Delete")
    view.find("[role=dialog]")
    ActionChains(view.driver).send_keys(Keys.ESCAPE).perform()
    view.gone("[role=dialog]")
    assert (folder / "cy.safetensors").is_file()
    press(view, "Delete")
    confirm(view)
    view.wait(f"{NAMES}.length === 2")
    assert not (folder / "cy.safetensors").exists()
    assert view.driver.execute_script(FILE) in ("ada.safetensors", "Bo Diddley.safetensors")


def ask(server, path: str, body: dict, **headers) -> tuple[int, dict]:
    headers = {"Content-Type": "application/json", **headers}
    request = urllib.request.Request(f"{server.url}/faceclip/identities/{path}", json.dumps(body).encode(), headers)
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read() or b"{}")


def test_nothing_outside_the_folder_is_touched(server, shelf):
    folder, elsewhere = shelf
    (folder.parent / "mine.safetensors").write_bytes(elsewhere.read_bytes())
    for path in ("delete", "rename"):
        for file in ("../mine.safetensors", str(elsewhere), "", None, "nobody.safetensors"):
            status, answer = ask(server, path, {"file": file, "name": "x"})
            assert status == 400 and answer["error"]
    assert ask(server, "rename", {"file": "ada.safetensors", "name": "../ada"})[0] == 400
    assert ask(server, "delete", {"file": "ada.safetensors"}, Origin="http://elsewhere.example")[0] == 403
    assert (folder.parent / "mine.safetensors").is_file() and (folder / "ada.safetensors").is_file()
    (folder.parent / "mine.safetensors").unlink()
