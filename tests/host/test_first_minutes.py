"""A ComfyUI that nobody has put anything into yet: what is there after the first start, and how far a few clicks go."""

import json
import time
import urllib.error
import urllib.request

import graphs
import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.actions.action_builder import ActionBuilder
from selenium.webdriver.common.keys import Keys

from faceclip.comfy.environment import PACK_ROOT
from faceclip.comfy.server import PACK_NAME
from faceclip.comfy.workflow import for_small_model
from faceclip.install import published
from faceclip.install.places import FOLDERS
from faceclip.small import models as small
from workflows import build

MENU = ".comfy-menu-button-wrapper, button:has(> * .comfyui-logo)"
PROMPT = "A surprised person wearing a green striped sweater, in a library, facing forward, in daylight, an ink comic."


@pytest.fixture
def page(empty, page_of):
    return page_of(empty, nodes2=False).show()


class Clicks:
    """A person's clicks, counted."""

    def __init__(self, page):
        self.page, self.count = page, 0

    def on(self, element) -> None:
        ActionChains(self.page.driver).move_to_element(element).click().perform()
        self.count += 1

    def on_text(self, text: str, among: str = "*") -> None:
        self.on(self.seen(text, among))

    def over(self, text: str) -> None:
        """The pointer rests there, which is no click."""
        ActionChains(self.page.driver).move_to_element(self.seen(text)).perform()

    def seen(self, text: str, among: str = "*"):
        find = (
            "[...document.querySelectorAll(arguments[1])].filter((e) => e.getClientRects().length"
            " && e.textContent.trim() === arguments[0]).at(-1)"
        )
        for _ in range(100):
            if found := self.page.driver.execute_script(f"return {find}", text, among):
                return found
            time.sleep(0.1)
        raise AssertionError(f"no {text!r} to be seen")

    def on_widget(self, node_class: str, name: str) -> None:
        """A widget that is drawn on the canvas."""
        x, y = self.page.run(
            "const node = app.graph.nodes.find((n) => n.type === a[0]), w = node.widgets.find((w) => w.name === a[1]);"
            "const { left, top } = app.canvas.canvas.getBoundingClientRect();"
            "const middle = [node.pos[0] + node.size[0] / 2, node.pos[1] + w.y + 8];"
            "const [x, y] = app.canvas.ds.convertOffsetToCanvas(middle);"
            "return [x + left, y + top]",
            node_class,
            name,
        )
        actions = ActionBuilder(self.page.driver)
        actions.pointer_action.move_to_location(round(x), round(y)).click()
        actions.perform()
        self.count += 1


def picture(page, but: str | None = None) -> str:
    """The address of the picture that Save Image shows, other than `but`."""
    save = "app.graph.nodes.find((n) => n.type === 'SaveImage')?.imgs?.[0]"
    return page.wait(f"const i = {save}; return i?.complete && i.src !== {json.dumps(but)} && i.src", 120)


def faces(page) -> str:
    return page.run("return app.graph.nodes.find((n) => n.type === 'LoadImage').widgets[0].value")


def test_our_folders_and_the_examples_pictures_are_there(empty):
    for kind in FOLDERS.values():
        if kind.ours:
            assert (empty.base_directory / "models" / kind.below[0]).is_dir()
    assert {"astronaut.png", "cartoon_ada.png", "cartoon_bo.png"} <= {
        path.name for path in (empty.base_directory / "input").iterdir()
    }


def test_six_clicks_and_a_prompt_from_nothing_to_a_portrait_of_a_chosen_face(page, tmp_path_factory):
    clicks = Clicks(page)
    clicks.on(page.find(MENU))
    clicks.over("FaceCLIP")
    clicks.on_text("Try FaceCLIP without weights")
    first = picture(page)
    assert faces(page) == "cartoon_ada_face.png"
    clicks.on_widget("LoadImage", "image")
    clicks.on_text("cartoon_bo_face.png", ".litemenu-entry")
    assert faces(page) == "cartoon_bo_face.png"
    prompt = "[...document.querySelectorAll('textarea')].find((e) => e.value.startsWith('A smiling'))"
    clicks.on(page.driver.execute_script(f"return {prompt}"))
    ActionChains(page.driver).key_down(Keys.CONTROL).send_keys("a").key_up(Keys.CONTROL).send_keys(PROMPT).perform()
    clicks.on_text("Run", "button")
    picture(page, but=first)
    assert page.prompt()["6"]["inputs"]["text"] == PROMPT
    page.screenshot(tmp_path_factory.getbasetemp() / "six clicks.png")
    assert clicks.count <= 6


def test_four_clicks_more_to_a_second_picture_of_the_saved_person(page, tmp_path_factory):
    clicks = Clicks(page)
    clicks.on(page.find(".templates-tab-button"))
    clicks.on_text("FaceCLIP", ".p-dialog *, [role=dialog] *")
    clicks.on_text(build.title_of("load_character"))
    page.wait("return app.graph.nodes.some((n) => n.type === 'FaceCLIPLoadIdentity')")
    clicks.on_text("Run", "button")
    picture(page)
    page.screenshot(tmp_path_factory.getbasetemp() / "four clicks.png")
    assert clicks.count <= 4


def template(name: str) -> dict:
    return json.loads((PACK_ROOT / "workflows" / f"{build.title_of(name)}.json").read_text("utf-8"))


def api(name: str) -> dict:
    return json.loads((PACK_ROOT / "workflows" / "api" / f"{name}.json").read_text("utf-8"))


def test_templates_are_offered_in_the_order_one_learns(page):
    listed = page.run("return (await (await import('/scripts/api.js')).api.getWorkflowTemplates())[a[0]]", PACK_NAME)
    numbered = [title for title in listed if title[0].isdigit()]
    assert [title[0] for title in numbered] == list("0123456789")
    # The other model's come after them, in an order of their own; then what needs other people's files or pictures.
    others = ["FaceT5 1", "FaceT5 2", "FaceT5 3", "Style 1 ", "Style 2 ", "Variatio"]
    assert [title[:8] for title in listed[len(numbered) :]] == others


def test_other_templates_open_with_the_small_model_as_long_as_there_is_no_other(page, empty):
    small.write_small_model(empty.base_directory / "models")
    page.open(template("portrait"), "portrait")
    wanted = graphs.renumbered(for_small_model("portrait", api("portrait")))
    shown = page.prompt()
    for key, node in wanted.items():
        assert {name: shown[key]["inputs"].get(name) for name in node["inputs"]} == node["inputs"], node["class_type"]
    assert page.run("return app.rootGraph.extra.faceclip === undefined"), "what is saved is an ordinary workflow"
    page.wait("return document.body.innerText.includes('Opened with the small model')")


def test_published_files_are_found_under_the_names_that_converting_gives_them(page, empty):
    models = empty.base_directory / "models"
    small.write_small_model(models)
    converted = {
        "faceclip": published.ENCODER.converted[0],
        "diffusion_models": f"FaceCLIP/{published.UNET.converted[0]}",
        "vae": published.VAE.name,
    }
    made = []
    for (folder, name), kind in zip(converted.items(), ("faceclip", "unet", "vae"), strict=True):
        made.append(models / folder / name)
        made[-1].parent.mkdir(exist_ok=True)
        made[-1].write_bytes((models / small.PLACES[kind]).read_bytes())
    try:
        page.open(template("load_character"), "converted")
        values = [page.prompt()[str(n)]["inputs"] for n in (1, 5, 8)]
        assert [next(iter(inputs.values())) for inputs in values] == list(converted.values())
        # A prompt through the API asks for the published names.
        prompt = for_small_model("load_character", api("load_character"), steps=1)
        prompt["faceclip"]["inputs"]["file"], prompt["unet"]["inputs"]["file"] = "face_clip_encoder.pt", "unet.pt"
        assert empty.client.run(prompt).images("save")
    finally:
        for path in made:
            path.unlink()


def test_another_sites_page_can_have_nothing_done(empty):
    request = urllib.request.Request(f"{empty.url}/faceclip/small_model", b"", {"Origin": "http://evil.example"})
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60)
    assert refused.value.code == 403
