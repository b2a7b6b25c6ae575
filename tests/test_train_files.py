"""The run files that ship can be read once the files they name are there; the commands in docs/training.md exist."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from faceclip.__main__ import COMMANDS
from faceclip.errors import InputError
from faceclip.train import run_file

ROOT = Path(__file__).resolve().parents[1]
RUNS = sorted((ROOT / "faceclip" / "train" / "runs").glob("*.toml"))
GUIDE = ROOT / "docs" / "training.md"
needs_toml = pytest.mark.skipif(sys.version_info < (3, 11), reason="tomli may be missing")


@needs_toml
@pytest.mark.parametrize("shipped", RUNS, ids=lambda path: path.stem)
def test_run_files_name_only_what_is_missing_and_parse_with_it(shipped, tmp_path):
    text = shipped.read_text("utf-8")
    path = tmp_path / shipped.name
    path.write_text(text, "utf-8")
    with pytest.raises(InputError, match="no such file"):
        run_file.load(path)
    for name in re.findall(r'^[\w ]+= "([\w/]+\.safetensors)"', text, re.MULTILINE):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    run = run_file.load(path)
    assert run.kind == ("diffusion" if shipped.stem == "lora" else shipped.stem)
    assert run.run.output == tmp_path / "out" / shipped.stem


def test_there_is_a_run_file_for_each_stage():
    assert {path.stem for path in RUNS} == {*run_file.KINDS, "lora"}


def commands() -> list[list[str]]:
    """The command lines of the guide's code blocks, continued lines joined, comments left out."""
    blocks = re.findall(r"^```(?:bash|sh)\n(.*?)^```", GUIDE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


@pytest.fixture(scope="module")
def helps() -> dict[str, str]:
    """--help of each of our commands, in one process that imports nothing heavy."""
    code = (
        "import argparse, importlib, json, sys\n"
        "from faceclip.__main__ import COMMANDS\n"
        "found = {}\n"
        "for name, (module, _) in COMMANDS.items():\n"
        "    parser = argparse.ArgumentParser()\n"
        "    importlib.import_module(module, 'faceclip').add_arguments(parser)\n"
        "    found[name] = parser.format_help()\n"
        "json.dump(found, sys.stdout)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_commands_of_the_guide_exist(helps):
    found = commands()
    ours = [line[line.index("faceclip") + 1 :] for line in found if "faceclip" in line]
    assert {line[0] for line in ours} >= {"prepare", "train", "toy", "eval"}
    for name, *arguments in ours:
        assert name in COMMANDS
        for option in (word for word in arguments if word.startswith("--")):
            assert option in helps[name], f"{name} has no {option}"


def test_files_the_guide_names_exist():
    named = {word for line in commands() for word in line}
    named |= set(re.findall(r"`((?:faceclip|benchmarks|docs|web)/[\w./]+)`", GUIDE.read_text("utf-8")))
    files = {word for word in named if word.startswith(("faceclip/", "benchmarks/", "docs/", "web/"))}
    assert files
    assert not [file for file in files if not (ROOT / file).exists()]
