"""requirements.txt, as ComfyUI's manager installs it, and which build of ONNX Runtime is then in charge."""

import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest

from faceclip.comfy.environment import PACK_REQUIREMENTS, PACK_ROOT, python_of, read_requirements
from faceclip.install import onnx_runtime

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
# What decides which build of ONNX Runtime ends in charge. Others are installed without what they require.
WHOLE = ("insightface", "onnxruntime-gpu")
needs_gpu_wheels = pytest.mark.skipif(
    (sys.platform, platform.machine()) != ("linux", "x86_64"), reason="onnxruntime-gpu has wheels for x86-64 only"
)


class Venv:
    """A virtual environment, and what its onnxruntime says in a process of its own."""

    def __init__(self, folder: Path):
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True, stdin=subprocess.DEVNULL)
        self.folder = folder
        self.python = python_of(folder)

    def run(self, *arguments: str | Path, folder: Path | None = None) -> str:
        # Without the user's own packages, and by default where nothing can be imported by accident.
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        done = subprocess.run(
            [str(self.python), *map(str, arguments)],
            cwd=folder or self.folder,
            env={**environment, "PYTHONNOUSERSITE": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        return done.stdout

    def providers(self) -> list[str]:
        code = "import json, onnxruntime; print(json.dumps(onnxruntime.get_available_providers()))"
        return json.loads(self.run("-c", code).splitlines()[-1])

    def doctor(self) -> list[str]:
        """What the doctor says of onnxruntime here."""
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        command = [str(self.python), "-m", "faceclip", "doctor", "--models", str(self.folder)]
        done = subprocess.run(command, cwd=PACK_ROOT, env=environment, capture_output=True, text=True)
        assert done.returncode == 1, "there are no models and no torch here"
        return [line for line in done.stdout.splitlines() if "onnxruntime" in line]

    def notice(self) -> str:
        """What the pack says when it is loaded here."""
        code = (
            "import sys; from faceclip.install import onnx_runtime\n"
            "print(onnx_runtime.startup_notice() or ''); assert 'onnxruntime' not in sys.modules"
        )
        return self.run("-c", code, folder=PACK_ROOT).strip()


@pytest.fixture(scope="module")
def venv(tmp_path_factory) -> Venv:
    """A fresh environment after `pip install LINE` for each line, which is what the manager does."""
    venv = Venv(tmp_path_factory.mktemp("manager") / "venv")
    for line in read_requirements(PACK_REQUIREMENTS):
        venv.run("-m", "pip", "install", *(() if line.startswith(WHOLE) else ("--no-deps",)), line)
    return venv


@pytest.mark.slow
@needs_gpu_wheels
def test_line_by_line_leaves_cuda_in_charge(venv):
    assert CUDA in venv.providers() and CPU in venv.providers()
    in_charge = venv.run("-c", "from onnxruntime.capi.build_and_package_info import package_name as n; print(n)")
    assert in_charge.strip() == "onnxruntime-gpu"
    venv.run("-m", "pip", "show", "--quiet", "onnxruntime")  # insightface brought the CPU build as well
    venv.run("-c", "import cv2, insightface, onnxruntime; cv2.FaceDetectorYN")
    assert venv.notice() == ""
    assert all("[PROBLEM]" not in line for line in venv.doctor())


@pytest.mark.slow
@needs_gpu_wheels
def test_the_cpu_build_in_front_is_told_and_the_line_for_it_mends_it(venv):
    """What `pip install -r` leaves behind, and any pack that installs onnxruntime later."""
    venv.run("-m", "pip", "install", "--no-deps", "--force-reinstall", "onnxruntime")
    assert CUDA not in venv.providers()
    notice = venv.notice()
    assert "hides onnxruntime-gpu" in notice and "\n" not in notice
    sick, fix = venv.doctor()
    assert sick.startswith("[PROBLEM] onnxruntime: ") and fix.strip().startswith("fix: ")
    command = fix.partition("fix: ")[2]
    assert notice.endswith(command)
    readme = (PACK_ROOT / "README.md").read_text("utf-8")
    assert re.search(r"^python -m pip install --no-deps --force-reinstall onnxruntime-gpu\b", readme, re.MULTILINE)

    executable, _, arguments = command.partition(" -m ")
    assert executable == f'"{venv.python}"'
    venv.run("-m", *(argument.strip('"') for argument in arguments.split()))
    assert CUDA in venv.providers() and venv.notice() == ""


def judge(builds, providers, torch_cuda=None):
    return onnx_runtime.judge("1.32.0", "onnxruntime", builds, providers, None, torch_cuda)


def test_a_hidden_gpu_build_is_told_with_the_command_that_helps():
    state = judge({"onnxruntime": "1.32.0", "onnxruntime-gpu": "1.31.1"}, (CPU,))
    assert state.shadowed
    assert state.problem == "onnxruntime 1.32.0 hides onnxruntime-gpu 1.31.1, which leaves only CPUExecutionProvider"
    assert state.fix == "onnxruntime-gpu==1.31.1"
    assert state.fix_command().endswith('-m pip install --no-deps --force-reinstall "onnxruntime-gpu==1.31.1"')


@pytest.mark.parametrize(
    ("builds", "providers"),
    [
        ({"onnxruntime": "1.32.0"}, (CPU,)),
        ({"onnxruntime-gpu": "1.31.1"}, (CUDA, CPU)),
        ({"onnxruntime": "1.32.0", "onnxruntime-gpu": "1.31.1"}, (CUDA, CPU)),
        ({"onnxruntime": "1.32.0", "onnxruntime-rocm": "1.22.0"}, ("MIGraphXExecutionProvider", CPU)),
    ],
)
def test_what_is_right_is_left_alone(builds, providers):
    state = judge(builds, providers)
    assert (state.shadowed, state.problem, state.fix, state.fix_command()) == (False, None, None, None)


def test_a_build_for_another_card_that_the_user_chose_wins(monkeypatch):
    builds = {"onnxruntime": "1.32.0", "onnxruntime-directml": "1.24.0", "onnxruntime-gpu": "1.31.1"}
    monkeypatch.setattr(onnx_runtime, "_has_nvidia_driver", lambda: False)
    assert judge(builds, (CUDA, CPU)).fix == "onnxruntime-directml==1.24.0"
    monkeypatch.setattr(onnx_runtime, "_has_nvidia_driver", lambda: True)
    assert judge(builds, (CUDA, CPU)).fix is None


def test_onnxruntime_for_another_cuda_than_torch_is_exchanged(monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 12, 0))
    state = judge({"onnxruntime-gpu": "1.31.1"}, (CUDA, CPU), torch_cuda="12.8")
    assert state.fix == "onnxruntime-gpu<1.27" and "CUDA 12.8" in state.problem
    assert judge({"onnxruntime-gpu": "1.26.0"}, (CUDA, CPU), torch_cuda="12.8").fix is None
    assert judge({"onnxruntime-gpu": "1.26.0"}, (CUDA, CPU), torch_cuda="13.0").fix == "onnxruntime-gpu>=1.27"
    # No build for CUDA 13 exists for this Python, so there is nothing to exchange it for.
    monkeypatch.setattr(sys, "version_info", (3, 10, 0))
    assert judge({"onnxruntime-gpu": "1.23.2"}, (CUDA, CPU), torch_cuda="13.0").fix is None


def test_this_python_is_described():
    state = onnx_runtime.describe_onnxruntime()
    assert set(state.builds) == set(onnx_runtime.installed_builds())
    assert (state.version is None) == (not state.providers)
