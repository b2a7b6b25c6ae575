"""No type errors: basedpyright, which is pyright with its node in the package, by the settings of pyproject.toml."""

import subprocess
import sys

import pytest

from faceclip.comfy.environment import PACK_ROOT


def test_types():
    pytest.importorskip("basedpyright", reason="basedpyright is not installed; `python -m tests` brings it")
    command = [sys.executable, "-m", "basedpyright", "--pythonpath", sys.executable]
    done = subprocess.run(command, cwd=PACK_ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
