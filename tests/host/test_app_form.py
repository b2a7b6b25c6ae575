"""The app form of the templates that have one, in the front end that knows of it."""

import json
import time

import pytest
from test_browser import workflow_of

from workflows.build import FOLDER

FORMS = {
    path.stem: layout["app"]
    for path in sorted((FOLDER / "layouts").glob("*.json"))
    if "app" in (layout := json.loads(path.read_text("utf-8")))
}


def test_portrait_saved_person_and_two_people_have_one():
    assert {"portrait", "saved_character", "load_character", "two_people"} <= set(FORMS)


@pytest.mark.parametrize(("name", "nodes2"), [*((name, True) for name in FORMS), ("two_people", False)])
def test_the_form_shows_its_inputs_by_their_labels(newer_server, page_of, yunet_name, name, nodes2, tmp_path_factory):
    page = page_of(newer_server, nodes2).show()
    page.open(workflow_of(name), name)
    toggle(page)
    try:
        for label in FORMS[name].values():
            page.wait(f"return document.body.innerText.includes({label!r})")
        for number in range(sum(key.endswith("faceclip_picker") for key in FORMS[name])):
            find_faces(page, number)
        page.screenshot(tmp_path_factory.getbasetemp() / f"app {name} {nodes2}.png")
    finally:
        toggle(page)


def toggle(page) -> None:
    page.run("await app.extensionManager.command.execute('Comfy.ToggleLinear')")


def find_faces(page, number: int) -> None:
    """A face is found and chosen in one of the form's pickers; its number, which stands beside it, follows."""
    index = (
        "app.graph.nodes.filter((n) => n.type === 'FaceCLIPAlignFace')[a[0]]"
        ".widgets.find((w) => w.name === 'input_faces_index')"
    )
    page.run(f"{index}.value = 1", number)
    page.run("[...document.querySelectorAll('button')].find((e) => e.innerText.trim() === 'Skip')?.click()")  # a tour
    picker = "[...document.querySelectorAll('.faceclip-picker')].filter((e) => e.getClientRects().length)"
    page.wait(f"return {picker}.length > {number}")
    page.run(f"{picker}[a[0]].querySelector('.faceclip-button').click()", number)
    page.wait(f"return !!{picker}[{number}].querySelector('.faceclip-face')", 60)
    time.sleep(0.5)  # the form draws its widgets anew once a run has ended
    page.run(f"{picker}[a[0]].querySelector('.faceclip-face').click()", number)
    assert page.run(f"return {index}.value", number) == 0
