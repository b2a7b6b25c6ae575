"""A run that skips says at its end how many tests, and why."""

import os
import subprocess
import sys
from pathlib import Path

TESTS = """
import pytest

@pytest.fixture
def host():
    pytest.skip("no ComfyUI is named")

@pytest.mark.parametrize("number", range(12))
def test_at_the_host(host, number):
    pass

def test_with_a_package():
    pytest.importorskip("no_such_package", reason="no_such_package is not installed")

def test_that_runs():
    pass
"""


def run(folder: Path, text: str) -> str:
    file = folder / "test_it.py"
    file.write_text(text, "utf-8")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "skip_summary",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        folder,
        file,
    ]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True).stdout


def test_reasons_are_counted(tmp_path):
    text = run(tmp_path, TESTS)
    end = text.partition(" 13 not run ")[2].splitlines()
    assert [line.strip() for line in end[1:3]] == [
        "12  no ComfyUI is named",
        "1  no_such_package is not installed",
    ]
    assert "1 passed, 13 skipped" in text


def test_a_whole_run_says_nothing(tmp_path):
    assert "not run" not in run(tmp_path, "def test_it():\n    pass\n")
