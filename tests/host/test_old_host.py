"""A ComfyUI older than the pack needs: one clear message, none of the pack's nodes, and the rest keeps working.

No ComfyUI that old is at hand where these tests run: the one of COMFYUI_PATH is copied and told to say an old version.
"""

import shutil

import pytest

from faceclip.comfy.server import PACK_NAME, ComfyServer

OLD = "0.3.64"
MESSAGE = f"{PACK_NAME} needs ComfyUI 0.3.75 or newer, this is {OLD}."
NOT_COPIED = (".*", "__pycache__", "venv", "custom_nodes", "models", "input", "output", "temp", "user")


@pytest.fixture(scope="module")
def server_that_says_it_is_old(comfyui, tmp_path_factory):
    """A running copy of the host whose version file says OLD, with the pack in its custom nodes."""
    folder = tmp_path_factory.mktemp("old_comfyui")
    copy = folder / "ComfyUI"

    def left_out(parent, names):
        # Only at the top: deeper folders of these names, such as comfy_api's input/, are the host's code.
        patterns = NOT_COPIED if parent == str(comfyui) else ("__pycache__",)
        return shutil.ignore_patterns(*patterns)(parent, names)

    shutil.copytree(comfyui, copy, ignore=left_out)
    (copy / "comfyui_version.py").write_text(f'__version__ = "{OLD}"\n', encoding="utf-8")
    with ComfyServer(copy, folder / "base") as running:
        yield running


def test_a_newer_host_that_says_it_is_old_gets_one_message_and_no_nodes(server_that_says_it_is_old):
    server = server_that_says_it_is_old
    log = server.log_text()
    assert log.count(MESSAGE) == 1, log
    assert "IMPORT FAILED" not in log and "Traceback" not in log, log
    listed = server.client.object_info()
    assert "KSampler" in listed  # the rest of the host answers
    assert not [name for name in listed if name.startswith("FaceCLIP")]
