"""Fixtures several test files share."""

import os
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def yunet_path() -> Path:
    """The YuNet file: FACECLIP_YUNET, a models folder, or shared/models beside the repo; skips where there is none."""
    from faceclip.install.published import YUNET

    named = os.environ.get("FACECLIP_YUNET")
    host = os.environ.get("COMFYUI_PATH")
    places = [Path(named)] if named else []
    places += [Path(host) / "models" / YUNET.folder / YUNET.name] if host else []
    # As a custom node the repo lies in ComfyUI/custom_nodes/NAME.
    places += [REPO.parents[1] / "models" / YUNET.folder / YUNET.name, REPO.parent / "shared" / "models" / YUNET.name]
    for path in places:
        if path.is_file():
            return path
    pytest.skip(f"{YUNET.name} is in none of: {', '.join(map(str, places))} (set FACECLIP_YUNET to its path)")


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
