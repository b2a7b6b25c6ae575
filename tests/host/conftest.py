"""A real ComfyUI with this pack in it, run as a process of its own, shared by all host tests."""

import os
import shutil
from pathlib import Path

import pytest

from faceclip.comfy.client import ComfyClient
from faceclip.comfy.server import ComfyServer
from faceclip.install.published import YUNET
from faceclip.small.models import write_small_model
from faceclip.small.pictures import place_examples


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
def client(server) -> ComfyClient:
    """The API client of the running server."""
    return server.client


@pytest.fixture(scope="session")
def yunet_name(base_directory, yunet_path) -> str:
    """YuNet's file name in the server's folders; skips the test where the file can't be had."""
    return YUNET.name
