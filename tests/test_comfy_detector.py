"""YuNet for the demo and the tests, fetched by the real command from a stand-in for the hub."""

import os
import socket
import sys
import time
from pathlib import Path

import pytest
from hub import Hub

from faceclip.comfy.detector import provide_yunet
from faceclip.install.published import YUNET

pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")

_OF_PLACES = ("FACECLIP_YUNET", "COMFYUI_PATH")
ADDRESS = f"/{YUNET.repo}/resolve/main/{YUNET.path}"


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """An empty cache and no host: provide(hub's address) -> the file or None, and what was said."""
    for name in [name for name in os.environ if name.startswith(("HF_", "TRANSFORMERS_")) or name in _OF_PLACES]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("FACECLIP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")

    def provide(url: str, **options) -> tuple[Path | None, str]:
        monkeypatch.setenv("HF_ENDPOINT", url)
        said: list[str] = []
        found = provide_yunet(Path(sys.executable), said.append, **options)
        return found, "\n".join(said)

    return provide


def test_it_is_fetched_once_and_kept(machine, tmp_path, yunet_path):
    content = yunet_path.read_bytes()
    with Hub({ADDRESS: content}, YUNET.sha256) as hub:
        found, said = machine(hub.url)
        assert found == tmp_path / "cache" / "models" / "face_detection" / YUNET.name, said
        assert found.read_bytes() == content and "MIT" in said and YUNET.url in said
        hub.asked.clear()
        assert machine(hub.url) == (found, "") and not hub.asked


def test_what_is_there_is_not_fetched(machine, tmp_path):
    file = tmp_path / "models" / "face_detection" / YUNET.name
    file.parent.mkdir(parents=True)
    file.touch()
    assert machine("http://127.0.0.1:9", models=[tmp_path / "models"]) == (file, "")


def test_another_file_is_refused(machine, tmp_path):
    with Hub({ADDRESS: bytes(YUNET.size or 0)}, YUNET.sha256) as hub:
        found, said = machine(hub.url)
    assert found is None and "is not the published" in said and "FACECLIP_YUNET can name a file" in said
    assert not list((tmp_path / "cache").rglob("*.onnx"))


def test_a_hub_that_is_not_there_is_left_at_once(machine):
    with socket.socket() as taken:  # bound and not listening: every connection is refused
        taken.bind(("127.0.0.1", 0))
        started = time.monotonic()
        found, said = machine(f"http://127.0.0.1:{taken.getsockname()[1]}")
    assert found is None and "Going on without it" in said and "can't be read" in said
    assert time.monotonic() - started < 30


def test_a_hub_that_falls_silent_is_left_in_time(machine):
    with Hub({ADDRESS: bytes(YUNET.size or 0)}, YUNET.sha256, silent_at=100) as hub:
        started = time.monotonic()
        found, said = machine(hub.url, patience=5.0)
    assert found is None and "it did not arrive within 5 s" in said
    assert time.monotonic() - started < 20
