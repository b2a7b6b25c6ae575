"""The hooks of .pre-commit-config.yaml pass: lint, format, imports, types, web/ and the forms of .github."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from faceclip.comfy.environment import PACK_ROOT

yaml = pytest.importorskip("yaml", reason="PyYAML comes with ComfyUI")

SETTINGS = yaml.safe_load((PACK_ROOT / ".pre-commit-config.yaml").read_text("utf-8"))
HOOKS = [hook for repository in SETTINGS["repos"] for hook in repository["hooks"]]
# As in an activated environment: programs of this Python first.
PATH = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])


@pytest.mark.parametrize("hook", HOOKS, ids=lambda hook: hook["id"])
def test_hook(hook):
    program, *arguments = shlex.split(hook["entry"])
    found = shutil.which(program, path=PATH)
    if found is None:
        pytest.skip(f"{program} is not installed; `python -m tests` brings it")
    if hook.get("pass_filenames", True):
        names = [path.relative_to(PACK_ROOT).as_posix() for path in files()]
        matching = [name for name in names if re.search(hook["files"], name)]
        assert matching, f"no file matches {hook['files']}"
        arguments += matching
    environment = {**os.environ, "PATH": PATH, "NO_COLOR": "1"}
    done = subprocess.run([found, *arguments], cwd=PACK_ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def files() -> list[Path]:
    """What stands at the root of the repository, and all of .github."""
    return [path for path in (*PACK_ROOT.iterdir(), *(PACK_ROOT / ".github").rglob("*")) if path.is_file()]
