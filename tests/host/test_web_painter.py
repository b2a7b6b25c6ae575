"""The painter of Add Person: the picture's proportions, who is there already, a box by drag and by keys."""

import pytest
from graphs import node
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

from workflows import build

FRAMES = ".faceclip-frame"
LAYOUT = {
    "rows": [[{"title": "", "color": "#888", "columns": [["size", "high", "scene"], ["first"], ["second", "mask"]]}]]
}


@pytest.fixture
def opened(view):
    """A scene of 1000 x 500 px with two people; nothing of it needs to run."""
    person = {"width": ["size", 0], "height": ["high", 0], "strength": 1.0, "scene_share": 0.2, "text": ""}
    prompt = {
        "size": node("PrimitiveInt", value=1000),
        "high": node("PrimitiveInt", value=500),
        "scene": node("CLIPTextEncode", text=""),
        "first": node("FaceCLIPAddPerson", conditioning=["scene", 0], **person, region="left third"),
        "second": node("FaceCLIPAddPerson", conditioning=["first", 0], **person, region="right half"),
        "mask": node("SolidMask", value=1.0, width=64, height=64),
    }
    prompt["first"]["_meta"] = {"title": "Ada"}
    prompt["second"]["_meta"] = {"title": "Bo"}
    view.open(
        build.build("painter", prompt, LAYOUT, view.run("return await (await fetch('/object_info')).json()")), "painter"
    )
    return view


def values(view) -> dict:
    """The widgets of the second person."""
    found = view.run(
        "return app.graph.nodes.find((n) => n.title === 'Bo').widgets.map((w) => [w.name, w.value ?? null])"
    )
    return dict(found)


def near(part: float):
    """A place in a frame whose border is as wide as some hundredths of it."""
    return pytest.approx(part, abs=0.02)


def boxes(view, frame: int) -> list[tuple[str, float]]:
    """Name and left edge, as a part of the frame, of each box in a frame."""
    return [
        (name, round(left, 2))
        for name, left in view.run(
            f"const frame = document.querySelectorAll('{FRAMES}')[a[0]], r = frame.getBoundingClientRect();"
            "return [...frame.children].map((e) => [e.innerText, (e.getBoundingClientRect().left - r.left) / r.width])",
            frame,
        )
    ]


def test_a_person_is_placed_by_drag(opened, tmp_path_factory):
    view = opened
    view.still(FRAMES)
    first, second = view.driver.find_elements("css selector", FRAMES)
    assert second.rect["width"] / second.rect["height"] == pytest.approx(2, rel=0.03)
    assert boxes(view, 0) == [("Ada", near(0))]
    assert boxes(view, 1) == [("Ada", near(0)), ("Bo", near(0.5))]
    width, height = second.rect["width"], second.rect["height"]
    drag = ActionChains(view.driver).move_to_element(second).click_and_hold()
    drag.move_by_offset(round(width / 4), round(height / 4)).release().perform()
    box = values(view)
    assert box["region"] == "box"
    assert [box[name] for name in ("x", "y", "box_width", "box_height")] == pytest.approx(
        [0.5, 0.5, 0.25, 0.25], abs=0.08
    )
    assert boxes(view, 1)[1] == ("Bo", near(box["x"]))
    view.screenshot(tmp_path_factory.getbasetemp() / f"painter {view.nodes2} {view.url[-4:]}.png")
    # By keys.
    view.run("document.querySelectorAll(a[0])[1].focus()", FRAMES)
    ActionChains(view.driver).send_keys(Keys.ARROW_LEFT, Keys.ARROW_LEFT, Keys.ARROW_UP).perform()
    moved = values(view)
    assert [moved["x"], moved["y"]] == pytest.approx([box["x"] - 0.02, box["y"] - 0.01])
    ActionChains(view.driver).key_down(Keys.SHIFT).send_keys(Keys.ARROW_RIGHT).key_up(Keys.SHIFT).perform()
    assert values(view)["box_width"] == pytest.approx(box["box_width"] + 0.01)
    # A click is no box.
    view.driver.find_elements("css selector", FRAMES)[1].click()
    assert values(view)["x"] == moved["x"]


def test_it_follows_what_comes_before(opened):
    view = opened
    view.run("app.graph.nodes.find((n) => n.type === 'PrimitiveInt').widgets[0].value = 250")
    view.set("FaceCLIPAddPerson", "region", "middle third")
    narrow = (
        f"const e = document.querySelectorAll('{FRAMES}')[1]; return Math.abs(e.clientWidth / e.clientHeight - 0.5)"
    )
    view.wait(f"{narrow} < 0.03")
    assert boxes(view, 1)[0] == ("Ada", near(1 / 3))
    # A mask takes the box's place.
    view.run(
        "const find = (t) => app.graph.nodes.find((n) => n.title === t || n.type === t);"
        "find('SolidMask').connect(0, find('Bo'), 'mask'); document.dispatchEvent(new Event('input'))"
    )
    view.wait("return document.body.innerText.includes('The wired mask says where')")
    assert boxes(view, 1) == [("Ada", near(1 / 3))]
