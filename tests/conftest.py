"""Fixtures several test files share."""

import os
from pathlib import Path

import pytest
from skip_summary import pytest_terminal_summary as pytest_terminal_summary
from work_units import pytest_xdist_make_scheduler as pytest_xdist_make_scheduler


@pytest.fixture(scope="session")
def yunet_path() -> Path:
    """The file that FACECLIP_YUNET names; skips where it names none."""
    named = os.environ.get("FACECLIP_YUNET")
    if not named:
        pytest.skip("FACECLIP_YUNET names no YuNet file (`python -m tests` fetches one)")
    return Path(named)


@pytest.fixture(scope="session")
def yunet(yunet_path):
    from faceclip.faces.detect.yunet import YuNet

    return YuNet(yunet_path)


@pytest.fixture(scope="session")
def photos():
    """Real photos as uint8 RGB: `group` (six people), `hanks` (a 112 px portrait), `astronaut` (public domain)."""
    data = pytest.importorskip("insightface.data", reason="the photos of people come with insightface")
    astronaut = pytest.importorskip("skimage.data", reason="the astronaut comes with scikit-image").astronaut()
    return {
        "group": data.get_image("t1", to_rgb=True),
        "hanks": data.get_image("Tom_Hanks_54745", to_rgb=True),
        "astronaut": astronaut,
    }


@pytest.fixture
def comfy():
    """Starts a made-up ComfyUI with what FakeComfy takes, as often as it is called; all end with the test."""
    pytest.importorskip("aiohttp")
    from fake_comfy import FakeComfy

    servers = []

    def start(**options):
        servers.append(FakeComfy(**options))
        return servers[-1]

    yield start
    for server in servers:
        server.close()
