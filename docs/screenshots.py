"""Takes the README's pictures of the front end: `python -m docs.screenshots --url URL`, in the tests' environment.

The ComfyUI at --url must have this pack, its small model and YuNet, and a front end that knows the app form (1.58.1).
The portrait example is opened in a headless Chromium, its faces are found, and it is run. Templates that the small
model cannot draw get their graph as picture in the template browser, which says so.
"""

import argparse
import io
import json
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image

from faceclip.comfy.workflow import small_variants
from workflows.build import FOLDER, title_of
from workflows.thumbnails import framed

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests" / "host"))

from browser import Page, start_chromium  # noqa: E402

WIDTH, QUALITY = 1400, 80  # px, of JPEG
# Where the graph's groups are in the window, as parts of it: left, top, right, bottom.
GROUPS = """
const { scale, offset } = app.canvas.ds, { left, top } = app.canvas.canvas.getBoundingClientRect()
const boxes = app.graph.groups.map(({ pos: [x, y], size: [w, h] }) => [x, y, x + w, y + h])
const edges = [0, 1, 2, 3].map((i) => Math[i < 2 ? 'min' : 'max'](...boxes.map((box) => box[i])))
const place = (v, i) => ((v + offset[i % 2]) * scale + [left, top][i % 2]) / [innerWidth, innerHeight][i % 2]
return edges.map(place).map((part) => Math.min(1, Math.max(0, part)))"""
TOGGLE_APP = "await app.extensionManager.command.execute('Comfy.ToggleLinear')"
SKIP_TOUR = "[...document.querySelectorAll('button')].find((e) => e.innerText.trim() === 'Skip')?.click()"
DONE = "return Object.values(app.nodeOutputs).some((one) => one.images?.some((image) => image.type === 'output'))"


def look(page: Page, part: tuple[float, float, float, float]) -> Image.Image:
    """A part of the window: left, top, right, bottom as parts of it."""
    time.sleep(2)  # what moves comes to rest
    window = Image.open(io.BytesIO(page.driver.get_screenshot_as_png())).convert("RGB")
    left, top, right, bottom = (round(one * size) for one, size in zip(part, window.size * 2, strict=True))
    return window.crop((left, top, right, bottom))


def take(page: Page, name: str, part: tuple[float, float, float, float]) -> None:
    """A part of the window as docs/NAME.jpg."""
    picture = look(page, part)
    picture.thumbnail((WIDTH, WIDTH), Image.Resampling.LANCZOS)
    picture.save(HERE / f"{name}.jpg", quality=QUALITY)


def take_graphs(page: Page) -> None:
    """The thumbnails of the templates that the small model cannot draw."""
    for path in sorted((FOLDER / "layouts").glob("*.json")):
        if path.stem in small_variants():
            continue
        title = title_of(path.stem)
        page.open(json.loads((FOLDER / f"{title}.json").read_text("utf-8")), title)
        time.sleep(8)  # the message about missing files goes
        framed(look(page, page.run(GROUPS)), "its graph: needs other files").save(
            FOLDER / f"{title}.jpg", quality=QUALITY
        )


def main() -> None:
    parser = argparse.ArgumentParser(description="Takes the README's pictures of the front end.")
    parser.add_argument("--url", default="http://127.0.0.1:8188", help="a ComfyUI (default: %(default)s)")
    url = parser.parse_args().url
    workflow = json.loads((FOLDER / f"{title_of('portrait')}.json").read_text("utf-8"))
    with tempfile.TemporaryDirectory() as profile:
        driver = start_chromium(Path(profile))
        try:
            page = Page(driver, url, nodes2=True).show()
            page.open(workflow, title_of("portrait"))
            page.find(".faceclip-picker .faceclip-button").click()
            page.find(".faceclip-face", 120)
            page.queue()
            page.wait(DONE, 300)
            time.sleep(8)  # the message about the small model goes
            take(page, "graph", (0.12, 0.08, 0.88, 0.9))
            page.run(TOGGLE_APP)
            page.run(SKIP_TOUR)
            take(page, "app", (0.8, 0.03, 1.0, 1.0))
            page.run(TOGGLE_APP)
            take_graphs(page)
        finally:
            driver.quit()


if __name__ == "__main__":
    main()
