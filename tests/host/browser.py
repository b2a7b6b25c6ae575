"""ComfyUI's real front end in a headless Chromium, as the tests of `web/` use it: real clicks, real keys."""

import json
import shutil
import time
import urllib.request
from pathlib import Path

import pytest

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-dev-shm-usage --window-size=2560,1440"
)
READY = "return !!window.app?.graph && !!window.LiteGraph?.registered_node_types?.FaceCLIPLoader"
# Without these the front end greets a new user with the template browser over the graph, and covers a graph whose
# published files are not here, which it opens again after a reload, with a dialog about them.
SETTINGS = {"Comfy.TutorialCompleted": True, "Comfy.Workflow.ShowMissingModelsWarning": False}


def start_chromium(profile: Path):
    """A WebDriver; skips the test where selenium or the browser is missing."""
    webdriver = pytest.importorskip(
        "selenium.webdriver", reason="selenium is not installed; `python -m tests` brings it"
    )
    browser = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if not browser or not shutil.which("chromedriver"):
        pytest.skip("no Chromium with its chromedriver here (Debian: chromium, chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for flag in [*FLAGS.split(), f"--user-data-dir={profile}"]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
    driver.shown = None  # the Page in its tab
    return driver


def set_settings(url: str, settings: dict) -> None:
    """The user's settings, as the front end reads them when it starts."""
    body = json.dumps(SETTINGS | settings).encode()
    request = urllib.request.Request(url + "/settings", body, {"Content-Type": "application/json"})
    urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60).close()


class Page:
    """The front end in a browser tab. nodes2: whether it draws nodes with Vue, not on the canvas."""

    def __init__(self, driver, url: str, nodes2: bool = False):
        self.driver = driver
        self.url = url
        self.nodes2 = nodes2
        driver.set_script_timeout(60)

    def show(self) -> "Page":
        """Loads the page, unless the tab, which others use too, still shows it."""
        if self.driver.shown is not self:
            set_settings(self.url, {"Comfy.VueNodes.Enabled": self.nodes2})
            self.reload()
            self.driver.shown = self
        return self

    def reload(self) -> None:
        self.driver.get("about:blank")  # else the old page may still answer
        self.driver.get(self.url)
        self.wait(READY, 60)

    def run(self, script: str, *arguments):
        """The result of a piece of JavaScript that may wait, with `a` its arguments; raises what it throws."""
        done = self.driver.execute_async_script(
            "const a = [...arguments], done = a.pop();"
            f"(async () => {{ {script} }})().then((v) => done([v ?? null]), (e) => done(`${{e?.stack ?? e}}`))",
            *arguments,
        )
        assert isinstance(done, list), done
        return done[0]

    def wait(self, script: str, timeout: float = 20):
        """The first true value of an expression, looked at again and again."""
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            if value := self.driver.execute_script(script):
                return value
            time.sleep(0.1)
        raise AssertionError(f"not within {timeout:.0f} s: {script}")

    def open(self, workflow: dict, name: str) -> None:
        self.run("await app.loadGraphData(a[0], true, true, a[1])", workflow, name)
        self.wait("return app.graph.nodes.length > 0")
        time.sleep(0.4)  # pictures, and the sizes that follow from them
        self.wait_until_still("app.graph.nodes.map((n) => [n.size[0], n.size[1], n.imgs?.length])")

    def prompt(self) -> dict:
        """The graph as the front end would queue it, by number of node."""
        output = self.prompt_of_any()
        return {key: output[key] for key in sorted(output, key=int)}

    def prompt_of_any(self) -> dict:
        """The same for a graph with subgraphs, whose inner nodes have ids such as 5:3."""
        return self.run("return (await app.graphToPrompt()).output")

    def nodes(self) -> dict[int, dict]:
        """What the front end would save of each node."""
        return {node["id"]: node for node in self.run("return JSON.parse(JSON.stringify(app.graph.serialize().nodes))")}

    def find(self, selector: str, timeout: float = 20):
        """The first visible element of a CSS selector, waited for."""
        visible = "[...document.querySelectorAll(a)].find((e) => e.getClientRects().length)"
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            found = self.driver.execute_script(f"const a = arguments[0]; return {visible}", selector)
            if found:
                return found
            time.sleep(0.1)
        raise AssertionError(f"not seen within {timeout:.0f} s: {selector}")

    def still(self, selector: str) -> None:
        """Waits until an element no longer moves: banners come and push the graph down, views are fitted."""
        self.wait_until_still(f"document.querySelector({selector!r}).getBoundingClientRect()")

    def wait_until_still(self, expression: str) -> None:
        """Waits until an expression has had the same value three times in a row."""
        values = [None]
        while len(values) < 3 or len(set(values[-3:])) > 1:
            values.append(self.driver.execute_script(f"return JSON.stringify({expression})"))
            time.sleep(0.15)

    def gone(self, selector: str, timeout: float = 20) -> None:
        """Waits until nothing of a CSS selector is left in the page."""
        self.wait(f"return !document.querySelector({selector!r})", timeout)

    def set(self, node_class: str, name: str, value) -> None:
        """Sets a widget as its user would, by the first node of a class."""
        self.run(
            "const node = app.graph.nodes.find((n) => n.type === a[0]), w = node.widgets.find((w) => w.name === a[1]);"
            "w.value = a[2]; w.callback?.(a[2], app.canvas, node); document.dispatchEvent(new Event('input'))",
            node_class,
            name,
            value,
        )

    def enclose(self, *node_classes: str) -> None:
        """Puts all nodes of some classes into a subgraph and enters it."""
        self.run(
            "app.graph.convertToSubgraph(new Set(app.graph.nodes.filter((n) => a[0].includes(n.type))))", node_classes
        )
        time.sleep(0.5)  # as long as anybody needs to enter it: Nodes 2.0 first has to see it go
        self.enter()

    def enter(self) -> None:
        """Enters the first subgraph."""
        self.run("const node = app.graph.nodes.find((n) => n.subgraph); app.canvas.openSubgraph(node.subgraph, node)")

    def queue(self) -> None:
        """What the Run button does."""
        self.run("await app.queuePrompt(0)")

    def screenshot(self, path: Path) -> None:
        self.driver.save_screenshot(str(path))
