"""`python -m faceclip doctor`: what is wrong with this installation, and one line that mends each problem."""

import argparse
import os
import re
from pathlib import Path

from ..errors import InputError
from .examine import examine
from .finding import PROBLEM, Finding, report
from .model_files import folders_below, read_extra_paths
from .software import PACK

_EXTRA_PATHS = "extra_model_paths.yaml"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument(
        "--models",
        action="append",
        type=Path,
        default=[],
        metavar="DIR",
        help="ComfyUI's models folder, may be given several times (default: that of the ComfyUI this pack lies in, "
        "and of the one COMFYUI_PATH names)",
    )
    parser.add_argument("--hash", action="store_true", help="compare SHA-256 with the published files")


def run(arguments: argparse.Namespace) -> int:
    """Look, print the report; 0 if all is well, 1 if there are problems."""
    hosts = find_hosts()
    models = [folder.absolute() for folder in arguments.models] or [host / "models" for host in hosts]
    extra, findings = {}, []
    for host in hosts if not arguments.models else ():
        if (host / _EXTRA_PATHS).is_file():
            try:
                for key, places in read_extra_paths(host / _EXTRA_PATHS).items():
                    extra.setdefault(key, []).extend(places)
            except InputError as error:
                fix = f"Mend {_EXTRA_PATHS}, or run this with ComfyUI's own Python."
                findings.append(Finding(_EXTRA_PATHS, PROBLEM, str(error), fix))
    if not models:
        text = f"no ComfyUI was found above {PACK}, and COMFYUI_PATH names none"
        findings.append(Finding("models", PROBLEM, text, "Name the folder: --models path/to/ComfyUI/models"))
    version = host_version(hosts[0]) if hosts else None
    findings = examine(version, folders_below(models, extra), arguments.hash) + findings
    print(report(findings))
    return int(any(finding.state == PROBLEM for finding in findings))


def find_hosts() -> list[Path]:
    """The ComfyUI that this pack lies in (ComfyUI/custom_nodes/PACK), and the one that COMFYUI_PATH names."""
    named = os.environ.get("COMFYUI_PATH")
    places = [PACK.parents[1], *([Path(named).absolute()] if named else [])]
    return [place for place in dict.fromkeys(places) if (place / "main.py").is_file() and (place / "comfy").is_dir()]


def host_version(host: Path) -> str:
    """The version that a ComfyUI's files name, "" for one from before they did."""
    try:
        text = (host / "comfyui_version.py").read_text("utf-8")
    except OSError:
        return ""
    found = re.search(r"""^__version__\s*=\s*['"]([^'"]+)""", text, re.MULTILINE)
    return found.group(1) if found else ""
