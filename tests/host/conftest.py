"""A real ComfyUI with this pack in it, run as a process of its own, shared by all host tests."""

import os
import shutil
from pathlib import Path

import pytest
from browser import Page, start_chromium
from hub import Hub

from faceclip.comfy.client import Client
from faceclip.comfy.environment import STAMP, cache_folder, front_end_folder
from faceclip.comfy.server import ComfyServer
from faceclip.install.published import YUNET
from faceclip.small.models import write_small_model
from faceclip.small.pictures import place_examples

_drivers: list = []  # the one that `chromium` started, if it did


def pytest_runtest_teardown(item, nextitem) -> None:
    """Leaves the browser's page before a test that needs none: an open one draws all the time, on a third of a core."""
    driver = _drivers and _drivers[0]
    if driver and driver.shown and (nextitem is None or "chromium" not in nextitem.fixturenames):
        driver.get("about:blank")
        driver.shown = None


@pytest.fixture(scope="session")
def comfyui() -> Path:
    """The host's folder, from COMFYUI_PATH; skips the test where there is none."""
    path = os.environ.get("COMFYUI_PATH")
    if not path:
        pytest.skip("COMFYUI_PATH names no ComfyUI (`python -m tests` gets one by itself)")
    return Path(path)


@pytest.fixture(scope="session")
def base_directory(comfyui, tmp_path_factory) -> Path:
    """ComfyUI's base directory: the small model, photos, where it can be had YuNet, and a pack of other nodes."""
    base = tmp_path_factory.mktemp("comfyui")
    for folder in ("models", "input"):
        (base / folder).mkdir()
    write_small_model(base / "models")
    place_examples(base / "input")
    shutil.copytree(Path(__file__).parent / "other_pack", base / "custom_nodes" / "other_pack")
    if os.environ.get("FACECLIP_YUNET"):
        (base / "models" / YUNET.folder).mkdir(exist_ok=True)
        shutil.copy(os.environ["FACECLIP_YUNET"], base / "models" / YUNET.folder / YUNET.name)
    return base


@pytest.fixture(scope="session")
def server(comfyui, base_directory):
    """The running ComfyServer: ``.url``, ``.base_directory``, ``.log_text()``."""
    with ComfyServer(comfyui, base_directory) as running:
        yield running


@pytest.fixture(scope="session")
def client(server) -> Client:
    """The API client of the running server."""
    return server.client


@pytest.fixture(scope="session")
def yunet_name(base_directory, yunet_path) -> str:
    """YuNet's file name in the server's folders; skips the test where the file can't be had."""
    return YUNET.name


@pytest.fixture(scope="session")
def newer_front_end() -> Path:
    """The folder of a newer front end than the host's own."""
    folder = front_end_folder(cache_folder())
    if not (folder / STAMP).is_file():
        pytest.skip("the newer front end is not in the cache: `python -m tests` fetches it")
    return folder


@pytest.fixture(scope="session")
def newer_server(comfyui, newer_front_end, base_directory, tmp_path_factory):
    """A ComfyServer with the same models and photos, and a newer front end than the host's own."""
    base = tmp_path_factory.mktemp("newer")
    for name in ("models", "input"):
        (base / name).symlink_to(base_directory / name)
    with ComfyServer(comfyui, base, arguments=["--front-end-root", str(newer_front_end)]) as running:
        yield running


@pytest.fixture(scope="session")
def hub():
    """A stand-in for the hub on loopback, from which `empty` downloads; a test says what it serves."""
    with Hub({}, "") as running:
        yield running


@pytest.fixture(scope="session")
def empty(comfyui, newer_front_end, hub, tmp_path_factory):
    """A ComfyUI with this pack and a newer front end, and no model, picture or saved person; open to the network."""
    arguments = ["--front-end-root", str(newer_front_end), "--listen", "0.0.0.0"]
    online = {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "TRANSFORMERS_OFFLINE": "0", "NO_PROXY": "*"}
    base = tmp_path_factory.mktemp("empty")
    with ComfyServer(comfyui, base, arguments=arguments, environment=online) as running:
        yield running


@pytest.fixture(scope="session")
def chromium(tmp_path_factory):
    """The WebDriver that all tests of the front end share."""
    driver = start_chromium(tmp_path_factory.mktemp("chromium"))
    _drivers.append(driver)
    yield driver
    _drivers.clear()
    driver.quit()


@pytest.fixture(scope="session")
def page_of(chromium):
    """Page of a server and a renderer, made once: (server, nodes2) -> Page."""
    pages = {}

    def get(server, nodes2: bool) -> Page:
        return pages.setdefault((server.url, nodes2), Page(chromium, server.url, nodes2))

    return get


@pytest.fixture(
    scope="session",
    params=[("server", False), ("server", True), ("newer_server", False), ("newer_server", True)],
    ids=["own front end", "own front end, Nodes 2.0", "1.58.1", "1.58.1, Nodes 2.0"],
)
def renderer(request, page_of) -> tuple[Page, ComfyServer]:
    """Each of the four ways to draw a graph that the front end must work in."""
    name, nodes2 = request.param
    server = request.getfixturevalue(name)
    return page_of(server, nodes2), server


@pytest.fixture
def view(renderer) -> Page:
    """The front end, once for each of the four ways to draw a graph."""
    return renderer[0].show()
