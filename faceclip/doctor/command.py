"""`python -m faceclip doctor`: what is wrong with this installation, and one line that mends each problem."""

import argparse
import re
from pathlib import Path

from ..install import places
from .examine import examine
from .finding import PROBLEM, Finding, one_line, report


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    places.add_argument(parser)
    parser.add_argument("--hash", action="store_true", help="compare SHA-256 with the published files")


def run(arguments: argparse.Namespace) -> int:
    """Look, print the report; 0 if all is well, 1 if there are problems."""
    found = places.look_around(arguments.models)
    fix = "Name the folder: --models path/to/ComfyUI/models"
    problems = [Finding("models", PROBLEM, one_line(problem), fix) for problem in found.problems]
    version = next((host_version(host) for host in found.hosts if (host / "main.py").is_file()), None)
    findings = examine(version, found.folders, arguments.hash) + problems
    print(report(findings))
    return int(any(finding.state == PROBLEM for finding in findings))


def host_version(host: Path) -> str:
    """The version that a ComfyUI's files name, "" for one from before they did."""
    try:
        text = (host / "comfyui_version.py").read_text("utf-8")
    except OSError:
        return ""
    found = re.search(r"""^__version__\s*=\s*['"]([^'"]+)""", text, re.MULTILINE)
    return found.group(1) if found else ""
