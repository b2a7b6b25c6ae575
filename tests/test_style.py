"""The whole repository is clean for ruff, with the settings of pyproject.toml."""

import subprocess
import sys

import pytest

from faceclip.comfy.environment import PACK_ROOT


@pytest.mark.parametrize("arguments", [("check",), ("format", "--check")])
def test_ruff(arguments):
    pytest.importorskip("ruff", reason="ruff is not installed; `python -m tests` brings it")
    done = subprocess.run(
        [sys.executable, "-m", "ruff", *arguments, "--no-cache", "."], cwd=PACK_ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
