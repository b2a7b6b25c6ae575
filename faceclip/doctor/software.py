"""The versions of everything that FaceCLIP stands on, whether it can be imported, and free memory."""

import importlib.metadata
import platform
import re
import shutil
import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path

from .. import __version__
from ..install.onnx_runtime import describe_onnxruntime, installed_builds
from ..install.quiet import keep_albumentations_offline
from .finding import OK, PROBLEM, WARN, Finding, one_line, size_text

MINIMUM_HOST = "0.3.75"
MINIMUM_TORCH = "2.6"  # before it, reading a .pt as weights only could be made to run code (CVE-2025-32434)
PACK = Path(__file__).absolute().parents[2]
PIP = f'"{sys.executable}" -m pip install'
# All of them install into one folder, the last one wins; each holds all that later ones have, but for windows in the
# headless ones.
_OPENCV_BUILDS = (
    "opencv-contrib-python",
    "opencv-contrib-python-headless",
    "opencv-python",
    "opencv-python-headless",
)
# Measured on ComfyUI 0.3.75: peak while the published UNet loads, as bf16 .safetensors and as the published .pt.
_RAM_SAFETENSORS, _RAM_PT = 5.6e9, 10.7e9


def check_host(version: str | None) -> Finding:
    """ComfyUI's version against the oldest one these nodes work in. "" stands for a host that does not tell its own."""
    if version is None:
        return Finding("ComfyUI", WARN, "not found from here; its version is unknown")
    if _numbers(version) >= _numbers(MINIMUM_HOST):
        return Finding("ComfyUI", OK, f"{version}, with FaceCLIP {__version__}")
    text = f"{version or 'of before it told its version'}, which is too old: {MINIMUM_HOST} or newer is wanted"
    return Finding("ComfyUI", PROBLEM, text, "Update ComfyUI, by its manager or by git pull in its folder.")


def check_python() -> Finding:
    """The Python that looks at itself here: often not the one that ComfyUI runs in."""
    return Finding("Python", OK, f"{platform.python_version()} on {platform.platform()}, {sys.executable}")


def check_torch() -> list[Finding]:
    """torch, and whether it can use an NVIDIA card that is there."""
    try:
        import torch

        version, cuda = torch.__version__, torch.version.cuda
        usable = torch.cuda.is_available()
    except Exception as error:  # a broken build fails in many ways: ImportError, OSError, AttributeError
        finding = _import_failed("torch", error, "torch", PROBLEM, "everything needs it")
        return [replace(finding, fix=f"Run this with ComfyUI's own Python, or mend this one: {finding.fix}")]
    if _numbers(version) < _numbers(MINIMUM_TORCH):
        text = f"{version}, which is too old: {MINIMUM_TORCH} or newer reads a .pt without running code from it"
        return [Finding("torch", PROBLEM, text, "Update torch as ComfyUI's own instructions say for this machine.")]
    if usable:
        return [Finding("torch", OK, f"{version}, CUDA {cuda}, {torch.cuda.get_device_name()}")]
    found = f"{version}, {f'made for CUDA {cuda}' if cuda else 'without CUDA'}"
    if shutil.which("nvidia-smi") is None:
        return [Finding("torch", OK, f"{found}; no NVIDIA card was found")]
    fix = "Update the NVIDIA driver." if cuda else "Install the CUDA build of torch with the command of pytorch.org."
    return [Finding("torch", WARN, f"{found}, which can't use the NVIDIA card that is here", fix)]


def check_onnxruntime() -> list[Finding]:
    """The build of ONNX Runtime in charge. Only the InsightFace detectors need it."""
    state = describe_onnxruntime()
    builds = ", ".join(f"{name} {version}" for name, version in state.builds.items())
    if not state.builds and state.version is None:
        text = "not installed: InsightFace detectors can't be used, YuNet can"
        return [Finding("onnxruntime", WARN, text, f"{PIP} onnxruntime")]
    if state.problem:
        text = f"{one_line(state.problem)} (installed: {builds})"
        return [Finding("onnxruntime", PROBLEM, text, state.fix_command() or f"{PIP} --force-reinstall onnxruntime")]
    text = f"{state.build or 'onnxruntime'} {state.version}, can run on {', '.join(state.providers)}"
    return [Finding("onnxruntime", OK, text + (f" (installed: {builds})" if len(state.builds) > 1 else ""))]


def check_opencv() -> Finding:
    """OpenCV, which aligns every face, its FaceDetectorYN, which runs YuNet, and the build that is in charge."""
    builds = installed_builds(_OPENCV_BUILDS)
    name = next(iter(builds), "opencv-python")
    try:
        import cv2

        version = cv2.__version__
    except Exception as error:
        finding = _import_failed("cv2", error, name, PROBLEM, "it aligns faces and runs YuNet")
        if builds and getattr(error, "name", None) in (None, "cv2"):  # not another package that it misses
            if ".so" in str(error) and not name.endswith("-headless"):
                name += "-headless"  # a library of the desktop is missing, most often libGL, as on servers
            version = builds.get(name) or next(iter(builds.values()))
            finding = replace(finding, fix=_reinstall(f"{name}=={version}"))
        return replace(finding, topic="OpenCV")
    if not hasattr(cv2, "FaceDetectorYN"):
        text = f"{version}, without FaceDetectorYN, which runs the face detector YuNet"
        return Finding("OpenCV", PROBLEM, text, _reinstall("opencv-python>=4.8"))
    if "contrib" in name and not hasattr(cv2, "ximgproc"):
        text = f"{version}, with FaceDetectorYN; it hides {name} {builds[name]}, which another pack needs"
        return Finding("OpenCV", WARN, text, _reinstall(f"{name}=={builds[name]}"))
    return Finding("OpenCV", OK, f"{version}, with FaceDetectorYN")


def check_packages() -> list[Finding]:
    """The other packages: they are imported, since an installed package is not always one that works."""
    keep_albumentations_offline()  # which insightface may import
    found = [_check_package("safetensors", "safetensors", PROBLEM, "it reads every model file")]
    for package in ("tokenizers", "regex", "ftfy"):
        found.append(_check_package(package, package, PROBLEM, "it splits prompts into tokens"))
    found.append(_check_package("insightface", "insightface", WARN, "only its detectors need it, YuNet does not"))
    return found


def check_memory() -> list[Finding]:
    """Free RAM, and free memory of each card that torch can use."""
    found = []
    free, total = _ram()
    if total:
        text = f"{size_text(free)} free of {size_text(total)}"
        if free < _RAM_SAFETENSORS:
            text += f"; loading the published UNet takes {size_text(_RAM_SAFETENSORS)} as bf16 .safetensors"
            fix = "Close other programs, or give the machine more swap."
            found.append(Finding("RAM", WARN, text, fix))
        elif free < _RAM_PT:
            text += f"; loading unet.pt takes {size_text(_RAM_PT)}"
            fix = f'"{sys.executable}" -m faceclip convert unet.pt unet.safetensors --dtype bf16'
            found.append(Finding("RAM", WARN, text, fix))
        else:
            found.append(Finding("RAM", OK, text))
    try:
        import torch

        for number in range(torch.cuda.device_count()):
            free, total = torch.cuda.mem_get_info(number)
            text = f"{size_text(free)} free of {size_text(total)}, {torch.cuda.get_device_name(number)}"
            found.append(Finding("VRAM", OK, text))
    except Exception as error:  # a torch that can't be imported has a finding of its own; a card may be lost or full
        if "torch" in sys.modules:
            found.append(Finding("VRAM", WARN, f"unknown: {one_line(error)}"))
    return found


def _reinstall(requirement: str) -> str:
    return f'{PIP} --force-reinstall --no-deps "{requirement}"'


def _check_package(module: str, package: str, state: str, purpose: str) -> Finding:
    try:
        import_module(module)
    except Exception as error:  # as with torch
        return _import_failed(module, error, package, state, purpose)
    try:
        return Finding(module, OK, importlib.metadata.version(package))
    except importlib.metadata.PackageNotFoundError:
        return Finding(module, OK, "version unknown")


def _import_failed(module: str, error: Exception, package: str, state: str, purpose: str) -> Finding:
    """A finding for a package that is missing, misses another package, or breaks."""
    missing = error.name if isinstance(error, ModuleNotFoundError) and error.name else ""
    if missing == module:
        return Finding(module, state, f"not installed; {purpose}", f"{PIP} {package}")
    fix = f"{PIP} --force-reinstall --no-deps {package}"
    if missing and missing.partition(".")[0] != module:
        fix = f"{PIP} {missing.partition('.')[0]}"
    return Finding(module, state, f"can't be imported: {type(error).__name__}: {one_line(error)}; {purpose}", fix)


def _ram() -> tuple[float, float]:
    """Free and total bytes of RAM, (0, 0) where this can't be known."""
    try:
        import psutil

        memory = psutil.virtual_memory()
        return memory.available, memory.total
    except Exception:
        pass  # ComfyUI needs psutil, but this must work where packages are missing
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            text = file.read()
        values = {name: int(number) * 1024 for name, number in re.findall(r"^(\w+):\s+(\d+) kB", text, re.MULTILINE)}
        return values["MemAvailable"], values["MemTotal"]
    except (OSError, KeyError):
        return 0, 0


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])
