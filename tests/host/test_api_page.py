"""The script of docs/api.md, as it is written there."""

import re
import subprocess
import sys

from faceclip.comfy.environment import PACK_ROOT
from faceclip.small import models as small

PAGE = (PACK_ROOT / "docs" / "api.md").read_text("utf-8")
SCRIPT = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)[1]


def run(server, folder, workflow: str, photo):
    (folder / "portrait.py").write_text(SCRIPT, "utf-8")
    command = [sys.executable, "portrait.py", server.url, PACK_ROOT / "workflows" / "api" / workflow, photo]
    return subprocess.run([*command, "A smiling person"], cwd=folder, capture_output=True, text=True, timeout=120)


def test_the_script_brings_a_portrait(server, tmp_path):
    done = run(server, tmp_path, "small_model.json", small.FOLDER / "cartoon_bo_face.png")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "portrait.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert len([line for line in SCRIPT.splitlines() if line.strip()]) <= 20


def test_it_says_what_went_wrong(server, tmp_path):
    from PIL import Image

    Image.new("RGB", (300, 200)).save(tmp_path / "wide.png")
    done = run(server, tmp_path, "small_model.json", tmp_path / "wide.png")
    assert done.returncode == 1 and "an aligned face is square" in done.stderr
