"""The package's extras (train, eval, bulk, ray, test, dev): what each brings, and the command that installs it.

Standard library only: asked before anything is installed, and when something is missing. pyproject.toml is where they
stand; a copy that pip installed has none beside it and asks its own package data.
"""

import functools
import importlib.metadata
import os
import re
import sys
from pathlib import Path

PACK = Path(os.path.abspath(__file__)).parents[2]  # without ".."
PROJECT = PACK / "pyproject.toml"
PACKAGE = "comfyui-faceclip"
REPOSITORY = "https://github.com/faceclip/ComfyUI-FaceCLIP"  # a placeholder, as in pyproject.toml
_OF_THE_LIBRARY = ("train", "eval", "bulk", "ray")  # the extras that bring what the library imports
# Names of modules whose packages are called otherwise.
_PACKAGES = {"cv2": "opencv-python", "open_clip": "open-clip-torch"}


def requirements(extra: str) -> list[str]:
    """The requirement lines of an extra, those of the extras that it names among them; none for an unknown one."""
    found = []
    for line in _extras().get(extra, []):
        inner = re.fullmatch(rf"{PACKAGE}\[([\w, ]+)\]", line)
        names = inner.group(1).replace(" ", "").split(",") if inner else []
        found += [one for name in names for one in requirements(name)] if inner else [line]
    return list(dict.fromkeys(found))


def extra_of(module: str, first: str = "") -> str | None:
    """The extra that brings a module of another package, None if none does or the nodes need it as well.

    first: the extra to name where several bring it.
    """
    module = module.partition(".")[0]
    wanted = _normal(_PACKAGES.get(module, module))
    if wanted in map(_normal, requirements_of_the_nodes()):
        return None
    order = sorted(_OF_THE_LIBRARY, key=lambda extra: extra != first)
    return next((extra for extra in order if wanted in map(_normal, requirements(extra))), None)


def requirements_of_the_nodes() -> list[str]:
    """The requirement lines of the package itself, without any extra."""
    return _read()[0]


def install_line(extra: str = "") -> str:
    """The command that installs an extra with the package, or without one what the nodes need."""
    pip = f'"{sys.executable}" -m pip install'
    if not PROJECT.is_file():
        return f'{pip} "{PACKAGE}[{extra}]"' if extra else f'{pip} "{PACKAGE}"'
    return f'{pip} -e "{PACK}[{extra}]"' if extra else f'{pip} -r "{PACK / "requirements.txt"}"'


def _extras() -> dict[str, list[str]]:
    return _read()[1]


@functools.cache
def _read() -> tuple[list[str], dict[str, list[str]]]:
    if PROJECT.is_file():
        text = PROJECT.read_text("utf-8")
        return _arrays(text, "project")["dependencies"], _arrays(text, "project.optional-dependencies")
    own, extras = [], {}
    try:
        lines = importlib.metadata.requires(PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:  # a copy of the folder alone
        lines = []
    for line in lines:
        named = re.search(r"""extra == ['"]([\w-]+)['"]""", line)
        place = extras.setdefault(named.group(1), []) if named else own
        place.append(line.partition(";")[0].strip() if named else line)
    return own, extras


def _arrays(text: str, table: str) -> dict[str, list[str]]:
    """The arrays of strings in a table of our pyproject.toml, whose strings hold neither `#` nor `"`.

    No TOML reader: Python 3.10 has none, and nothing is installed yet. A test compares this with tomllib's reading.
    """
    body = re.search(rf"^\[{re.escape(table)}\]$(.*?)(?=^\[[\w.\"-]+\]$|\Z)", text, re.MULTILINE | re.DOTALL)
    plain = re.sub(r"#.*", "", body.group(1)) if body else ""
    found = re.findall(r"^([\w-]+) = \[(.*?)\]\s*$", plain, re.MULTILINE | re.DOTALL)
    return {name: re.findall(r'"([^"]*)"', array) for name, array in found}


def _normal(requirement: str) -> str:
    """A requirement's package, as package indexes spell it."""
    name = re.split(r"[^\w.-]", requirement, maxsplit=1)[0]
    return re.sub(r"[-_.]+", "-", name).lower()
