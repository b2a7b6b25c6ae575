"""What CONTRIBUTING.md, docs/architecture.md and GitHub's workflows name is there: paths, functions and commands."""

import argparse
import ast
import importlib
import re
import shlex
from pathlib import Path

import pytest

from faceclip.__main__ import COMMANDS
from faceclip.comfy.environment import PACK_ROOT

PAGES = ("CONTRIBUTING.md", "docs/architecture.md")
QUOTED = re.compile(r"`([^`\n]+)`")
PATH = re.compile(r"(?:[\w.-]+/)+(?:[\w.*-]+)?|[\w-]+\.(?:md|py|toml|json|yml|yaml|cff)|\.[\w-]+\.yaml")
PLACEHOLDER = re.compile(r"[A-Z]{2,}")


def named(page: str) -> list[str]:
    """Everything between backticks, and the lines of code blocks without their comments."""
    text = (PACK_ROOT / page).read_text("utf-8")
    blocks = re.findall(r"^```\w*\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    lines = [line.partition(" #")[0].strip() for block in blocks for line in block.splitlines()]
    return [*QUOTED.findall(re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)), *filter(None, lines)]


def exists(path: str) -> bool:
    """Whether a path of the repository is there; capitals such as NODEID stand for any name."""
    return (PACK_ROOT / path).exists() or bool(
        PLACEHOLDER.search(path) and any(PACK_ROOT.glob(PLACEHOLDER.sub("*", path)))
    )


def defined(tree: ast.AST, name: str) -> bool:
    """Whether a function, class, method (Class.method) or constant is defined at the top of a file."""
    first, _, rest = name.partition(".")
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name == first:
            return not rest or defined(node, rest)
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(isinstance(target, ast.Name) and target.id == first for target in targets):
            return not rest
    return False


@pytest.mark.parametrize("page", PAGES)
def test_paths_and_names_are_there(page):
    checked = 0
    for token in named(page):
        path, _, name = token.partition(":")
        if not PATH.fullmatch(path):
            continue
        assert exists(path), f"{page}: {token}"
        if name:
            assert defined(ast.parse((PACK_ROOT / path).read_text("utf-8")), name), f"{page}: {token}"
        checked += 1
    assert checked > 15


@pytest.mark.parametrize("page", PAGES)
def test_commands_are_there(page):
    for line in named(page):
        words = [word for word in shlex.split(line) if not re.fullmatch(r"\w+=\S+", word)]
        if words[:3] == ["python", "-m", "faceclip"]:
            check_command(words[3:])
        elif words[:3] == ["python", "-m", "tests"]:
            paths = [word for word in words[3:] if "/" in word or word.endswith(".py")]
            assert all(map(exists, paths)), line
        elif words[:1] == ["python"] and words[1:2] != ["-m"]:
            assert exists(words[1]), line


def test_workflows_run_the_tests_command():
    """Whatever else they do, GitHub's jobs test by the command of the README, on files that are there."""
    yaml = pytest.importorskip("yaml", reason="PyYAML comes with ComfyUI")
    for path in sorted((PACK_ROOT / ".github/workflows").glob("*.yml")):
        for job in yaml.safe_load(path.read_text("utf-8"))["jobs"].values():
            steps = [step["run"] for step in job.get("steps", ()) if "run" in step]
            for line in (
                line for text in steps for line in text.splitlines() if "pytest" in line or "-m tests" in line
            ):
                assert line.startswith("python -m tests "), line
                words = line.removesuffix(" -m evaluation").split()[3:]
                assert all(exists(word.partition("=")[2] or word) for word in words), line


def check_command(words: list[str]) -> None:
    """The command and the options in these words are known."""
    if not words:
        return
    module = importlib.import_module(COMMANDS[words[0]][0], "faceclip")
    parser = argparse.ArgumentParser()
    module.add_arguments(parser)
    known = set(parser._option_string_actions)
    assert not {word for word in words[1:] if word.startswith("--")} - known, words


def test_versions_agree():
    """pyproject.toml, the package and the citation name one version, and the changelog has a part for it."""
    import faceclip

    version = re.escape(faceclip.__version__)
    for name, line in (
        ("pyproject.toml", rf'^version = "{version}"$'),
        ("CITATION.cff", rf"^version: {version}$"),
        ("CHANGELOG.md", rf"^## .*\b{version}\b"),
    ):
        assert re.search(line, Path(PACK_ROOT / name).read_text("utf-8"), re.MULTILINE), name


def test_benchmarks_are_called_as_modules_that_are_there():
    pages = [*PACK_ROOT.glob("*.md"), *PACK_ROOT.glob("docs/*.md"), *PACK_ROOT.glob("web/docs/**/*.md")]
    text = "\n".join(page.read_text("utf-8") for page in pages + sorted(PACK_ROOT.glob("benchmarks/*.py")))
    called = set(re.findall(r"python -m benchmarks\.(\w+)", text))
    assert called and not [name for name in called if not (PACK_ROOT / "benchmarks" / f"{name}.py").is_file()]
    assert "python benchmarks/" not in text, "as a script it would not find faceclip"
