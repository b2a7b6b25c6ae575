"""Run by ComfyUI's manager after ``pip install -r requirements.txt``: puts the right builds in charge.

Two libraries come in several builds that share one folder, so that the last one installed wins:

- ONNX Runtime: insightface requires the CPU build by name, which hides onnxruntime-gpu and with it CUDA.
- OpenCV: insightface requires opencv-python by name, which overwrites an opencv-contrib-python that another pack
  needs, or a headless build on a machine without a display.

Where that happened, the build that should win is installed once more, in the version that is there, and nothing else
is touched: no other package, and never torch or numpy. A second run changes nothing. If it fails, the pack still
works, on the CPU, and says so.
"""

import importlib.metadata
import importlib.util
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ONNX_RUNTIME = Path(__file__).resolve().parent / "faceclip" / "install" / "onnx_runtime.py"
# The richest build first: each holds all that the later ones have, but for windows in the headless ones.
OPENCV_BUILDS = (
    "opencv-contrib-python",
    "opencv-contrib-python-headless",
    "opencv-python",
    "opencv-python-headless",
)

_LOOK_AT_ONNXRUNTIME = """
import dataclasses, importlib.util, json, sys
spec = importlib.util.spec_from_file_location("faceclip_onnx_runtime", sys.argv[1])
module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
print(json.dumps(dataclasses.asdict(module.describe_onnxruntime())))
"""
_LOOK_AT_OPENCV = "import cv2, json; print(json.dumps({'contrib': hasattr(cv2, 'ximgproc')}))"


def main() -> int:
    for mend in (mend_onnxruntime, mend_opencv):
        try:
            mend()
        except Exception as error:  # whatever goes wrong here must not stop ComfyUI's manager
            _say(f"{mend.__name__} failed and was skipped: {error}")
    return 0


def mend_onnxruntime() -> None:
    """Puts a GPU build of ONNX Runtime back in front of the CPU build, and checks that it is there."""
    state = _ask(_LOOK_AT_ONNXRUNTIME, str(ONNX_RUNTIME))
    if not state["fix"]:
        found = f"{state['build']} {state['version']}" if state["version"] else state["problem"]
        _say(f"ONNX Runtime: {found}, with {', '.join(state['providers']) or 'no providers'}; nothing to do.")
        return
    _say(f"ONNX Runtime: {state['problem']}. Installing {state['fix']} once more.")
    _reinstall(state["fix"])
    state = _ask(_LOOK_AT_ONNXRUNTIME, str(ONNX_RUNTIME))
    _say(f"ONNX Runtime: {state['build']} {state['version']} is in charge, with {', '.join(state['providers'])}.")


def mend_opencv() -> None:
    """Puts the richest installed OpenCV back in charge, or a headless one where windows can't be linked."""
    builds = {name: version for name in OPENCV_BUILDS if (version := _version(name))}
    state = _try_opencv()
    if state is None and builds:
        name, version = next(iter(builds.items()))
        headless = name if name.endswith("-headless") else f"{name}-headless"
        wanted = f"{headless}=={builds.get(headless, version)}"
        _say(f"OpenCV: {name} {version} can't be imported, most often for want of libGL. Installing {wanted}.")
    elif state and not state["contrib"] and any("contrib" in name for name in builds):
        name, version = next(iter(builds.items()))
        wanted = f"{name}=={version}"
        _say(f"OpenCV: another build hides {name} {version}. Installing {wanted} once more.")
    else:
        _say(f"OpenCV: {', '.join(f'{name} {version}' for name, version in builds.items())}; nothing to do.")
        return
    _reinstall(wanted)
    _say("OpenCV: can be imported." if _try_opencv() else "OpenCV: still can't be imported.")


def _reinstall(requirement: str) -> None:
    options = ["--no-deps", requirement]
    if importlib.util.find_spec("pip"):
        command = [sys.executable, "-m", "pip", "install", "--force-reinstall", *options]
    elif shutil.which("uv"):
        command = ["uv", "pip", "install", "--python", sys.executable, "--reinstall", *options]
    else:
        raise RuntimeError(f"neither pip nor uv is here to install {requirement}")
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace")
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr.strip()[-800:]}")


def _try_opencv() -> dict | None:
    try:
        return _ask(_LOOK_AT_OPENCV)
    except RuntimeError:
        return None


def _ask(code: str, *arguments: str) -> dict:
    """Runs code in a fresh Python, which sees the packages as they are now, and reads the JSON it prints."""
    # An empty folder to start in: what lies in the current one could hide installed packages.
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", code, *arguments]
        done = subprocess.run(command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr.strip()[-800:])
    return json.loads(done.stdout.strip().splitlines()[-1])


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _say(line: str) -> None:
    print(f"[FaceCLIP] {line}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
