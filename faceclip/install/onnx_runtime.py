"""Which build of ONNX Runtime is in charge, and whether it hides the one that could use the GPU.

Every build installs into the same folder, so the one installed last wins, whatever the package list says. insightface
requires the CPU build by name and thereby often puts it in front of onnxruntime-gpu.
"""

import importlib.metadata
import os
import re
import shutil
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

CPU_BUILD = "onnxruntime"
# GPU builds and what each can run on, the one for NVIDIA last: the others are only ever installed on purpose.
GPU_BUILDS = {
    "onnxruntime-rocm": ("ROCMExecutionProvider", "MIGraphXExecutionProvider"),
    "onnxruntime-migraphx": ("MIGraphXExecutionProvider",),
    "onnxruntime-directml": ("DmlExecutionProvider",),
    "onnxruntime-openvino": ("OpenVINOExecutionProvider",),
    "onnxruntime-gpu": ("CUDAExecutionProvider",),
}
NVIDIA_BUILD = "onnxruntime-gpu"
# From this version on onnxruntime-gpu is built for CUDA 13, before it for CUDA 12 (its package metadata).
FIRST_FOR_CUDA_13 = "1.27"
OLDEST_PYTHON_FOR_CUDA_13 = (3, 11)
_NEWEST = "999"  # what pip would take
_INFO = ("capi", "build_and_package_info.py")  # in each build's files: which one it is


@dataclass(frozen=True)
class OnnxRuntimeState:
    """What `import onnxruntime` gives in this Python.

    version: of the build in charge, None if there is none or it cannot be imported. build: that build's package.
    builds: every installed build and its version. providers: what the build in charge can run on.
    cuda, torch_cuda: the CUDA versions that it and torch were made for, None for none or unknown.
    shadowed: a GPU build is installed, but another build in front of it hides its provider.
    problem: what is wrong, in a sentence, None if nothing is. fix: the pip requirement that puts it right, to be
    installed with ``--no-deps --force-reinstall`` (see `fix_command`), None if there is nothing to do.
    """

    version: str | None
    build: str | None
    builds: dict[str, str]
    providers: tuple[str, ...]
    cuda: str | None
    torch_cuda: str | None
    shadowed: bool
    problem: str | None
    fix: str | None

    def fix_command(self) -> str | None:
        """The command that a user can run to put things right, None if there is nothing to do."""
        return None if self.fix is None else _reinstall(self.fix)


def describe_onnxruntime() -> OnnxRuntimeState:
    """Looks at this Python's ONNX Runtime. Imports onnxruntime; never torch. Raises nothing."""
    builds = installed_builds()
    torch_cuda = _torch_cuda()
    try:
        import onnxruntime

        version, providers = onnxruntime.__version__, tuple(onnxruntime.get_available_providers())
        info = Path(onnxruntime.__file__).parent.joinpath(*_INFO).read_text("utf-8")
    except Exception as error:  # a broken build fails in many ways: ImportError, OSError, AttributeError
        problem = f"onnxruntime cannot be imported: {error}" if builds else "onnxruntime is not installed"
        fix = _requirement(_wanted_build(builds) or CPU_BUILD, builds, torch_cuda) if builds else None
        return OnnxRuntimeState(None, None, builds, (), None, torch_cuda, False, problem, fix)
    build, cuda = _assigned(info, "package_name"), _assigned(info, "cuda_version")
    return judge(version, build, builds, providers, cuda, torch_cuda)


def judge(
    version: str,
    build: str | None,
    builds: dict[str, str],
    providers: tuple[str, ...],
    cuda: str | None,
    torch_cuda: str | None,
) -> OnnxRuntimeState:
    """Tells from what was found whether something is wrong, and the requirement that mends it."""
    wanted = _wanted_build(builds)
    shadowed, problem, fix = False, None, None
    if wanted is not None:
        shadowed = not set(GPU_BUILDS[wanted]) & set(providers)
        if shadowed:
            left = ", ".join(providers)
            problem = f"{build or CPU_BUILD} {version} hides {wanted} {builds[wanted]}, which leaves only {left}"
        if wanted == NVIDIA_BUILD and _other_cuda(builds[wanted], torch_cuda):
            problem = f"{wanted} {builds[wanted]} is made for another CUDA than torch, which has CUDA {torch_cuda}"
        if problem:
            fix = _requirement(wanted, builds, torch_cuda)
    return OnnxRuntimeState(version, build, builds, providers, cuda, torch_cuda, shadowed, problem, fix)


def startup_notice() -> str | None:
    """One line where the CPU build lies over a GPU build, with what mends it; else None.

    Tells by the files of the packages: nothing is imported, so that it may be asked whenever the pack is loaded.
    """
    builds = installed_builds()
    wanted = _wanted_build(builds)
    if CPU_BUILD not in builds or wanted is None or _build_on_disk() != CPU_BUILD:
        return None
    hidden = f"{CPU_BUILD} {builds[CPU_BUILD]} hides {wanted} {builds[wanted]}"
    return f"{hidden}, so InsightFace detectors can only run on the CPU. What mends it: {remedy(wanted)}"


def remedy(build: str) -> str:
    """The command that puts a build in charge, installed or not: its files are laid over those of the other builds.

    The version is the one that is installed, or one that fits torch's CUDA. Nothing is imported.
    """
    return _reinstall(_requirement(build, installed_builds(), _torch_cuda()))


def installed_builds(packages: Iterable[str] = (CPU_BUILD, *GPU_BUILDS)) -> dict[str, str]:
    """Those of the packages that are installed, with their versions; by default, the builds of ONNX Runtime."""
    found = {}
    for name in packages:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _build_on_disk() -> str | None:
    """The package whose files lie in the folder that all builds share, None if that can't be read."""
    try:
        folder = Path(str(importlib.metadata.distribution(CPU_BUILD).locate_file("onnxruntime")))
        return _assigned(folder.joinpath(*_INFO).read_text("utf-8"), "package_name")
    except (importlib.metadata.PackageNotFoundError, OSError):
        return None


def _requirement(build: str, builds: dict[str, str], torch_cuda: str | None) -> str:
    """What pip is to install for a build: in its installed version, unless that is for another CUDA than torch's."""
    if build == NVIDIA_BUILD and (fitting := _other_cuda(builds.get(build, _NEWEST), torch_cuda)):
        return build + fitting
    return f"{build}=={builds[build]}" if build in builds else build


def _reinstall(requirement: str) -> str:
    return f'"{sys.executable}" -m pip install --no-deps --force-reinstall "{requirement}"'


def _wanted_build(builds: dict[str, str]) -> str | None:
    """The GPU build that should be in charge: NVIDIA's where there is such a card, else one that was chosen."""
    if NVIDIA_BUILD in builds and _has_nvidia_driver():
        return NVIDIA_BUILD
    return next((name for name in GPU_BUILDS if name in builds), None)


def _has_nvidia_driver() -> bool:
    return shutil.which("nvidia-smi") is not None or os.path.exists("/proc/driver/nvidia/version")


def _other_cuda(version: str, torch_cuda: str | None) -> str | None:
    """The version range of onnxruntime-gpu that fits torch's CUDA, if this version does not; else None."""
    if torch_cuda is None:
        return None
    for_13 = _numbers(version) >= _numbers(FIRST_FOR_CUDA_13)
    major = _numbers(torch_cuda)[0]
    if major == 12 and for_13:
        return f"<{FIRST_FOR_CUDA_13}"
    if major == 13 and not for_13 and sys.version_info >= OLDEST_PYTHON_FOR_CUDA_13:
        return f">={FIRST_FOR_CUDA_13}"
    return None


def _torch_cuda() -> str | None:
    """The CUDA version torch was built for, read from its files: importing torch takes seconds."""
    try:
        folder = Path(str(importlib.metadata.distribution("torch").locate_file("torch")))
        text = (folder / "version.py").read_text("utf-8")
    except (importlib.metadata.PackageNotFoundError, OSError):
        return None
    return _assigned(text, "cuda")


def _assigned(text: str, name: str) -> str | None:
    """The string assigned to a name in Python source, with or without a type annotation."""
    found = re.search(rf"^{name}\b[^=\n]*=\s*['\"]([^'\"]+)['\"]", text, re.MULTILINE)
    return found.group(1) if found else None


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])
