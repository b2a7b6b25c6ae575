"""requirements.txt and install.py, as ComfyUI's manager runs them, in a fresh virtual environment."""

import importlib.util
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from faceclip.comfy.environment import PACK_REQUIREMENTS, PACK_ROOT, python_of
from faceclip.install import onnx_runtime

INSTALLER = PACK_ROOT / "install.py"
CONTRIB = "opencv-contrib-python==4.11.0"
CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


class Venv:
    """A virtual environment, and what its onnxruntime says in a process of its own."""

    def __init__(self, folder: Path):
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True, stdin=subprocess.DEVNULL)
        self.folder = folder
        self.python = python_of(folder)

    def run(self, *arguments: str | Path) -> str:
        # Without the user's own packages, and in a folder from which nothing can be imported by accident.
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        done = subprocess.run(
            [str(self.python), *map(str, arguments)],
            cwd=self.folder,
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

    def freeze(self) -> str:
        return self.run("-m", "pip", "freeze", "--all")


@pytest.mark.slow
@pytest.mark.skipif(
    (sys.platform, platform.machine()) != ("linux", "x86_64"), reason="onnxruntime-gpu has wheels for x86-64 only"
)
def test_a_fresh_install_leaves_cuda_in_charge(tmp_path):
    venv = Venv(tmp_path / "venv")
    # open_clip_torch is left out here, alone: it would bring torch, 2.5 GB that have no part in what is tested.
    lines = PACK_REQUIREMENTS.read_text("utf-8").splitlines()
    without_torch = tmp_path / "requirements.txt"
    without_torch.write_text("\n".join(line for line in lines if not line.startswith("open_clip_torch")))
    assert without_torch.read_text().count("\n") == len(lines) - 2

    venv.run("-m", "pip", "install", "-r", without_torch)
    # What a plain install does today; should it ever get this right by itself, install.py can go.
    assert CUDA not in venv.providers()
    sick = venv.doctor()
    assert any("install.py" in line or "pip" in line for line in sick), sick
    before = venv.freeze()

    said = venv.run(INSTALLER)
    assert "hides onnxruntime-gpu" in said
    assert CUDA in venv.providers() and CPU in venv.providers()
    in_charge = venv.run("-c", "from onnxruntime.capi.build_and_package_info import package_name as n; print(n)")
    assert in_charge.strip() == "onnxruntime-gpu"
    assert venv.doctor() != sick
    assert venv.freeze() == before, "install.py changed a package or a version"
    venv.run("-m", "pip", "check")
    venv.run("-c", "import cv2, insightface, onnxruntime; cv2.FaceDetectorYN")

    assert venv.run(INSTALLER).count("nothing to do") == 2, "a second run has nothing left to do"


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


@pytest.fixture
def installer(monkeypatch):
    """install.py as a module, with what it would install recorded instead."""
    spec = importlib.util.spec_from_file_location("faceclip_install", INSTALLER)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.installed = []
    monkeypatch.setattr(module, "_reinstall", module.installed.append)
    return module


@pytest.mark.parametrize(
    ("builds", "found", "wanted"),
    [
        ({"opencv-python": "5.0.0"}, {"contrib": False}, []),
        ({"opencv-python": "5.0.0", "opencv-contrib-python": "4.11.0"}, {"contrib": True}, []),
        (
            {"opencv-python": "5.0.0", "opencv-contrib-python": "4.11.0"},
            {"contrib": False},
            ["opencv-contrib-python==4.11.0"],
        ),
        ({"opencv-python": "5.0.0"}, None, ["opencv-python-headless==5.0.0"]),
        ({"opencv-python": "5.0.0", "opencv-python-headless": "4.9.0"}, None, ["opencv-python-headless==4.9.0"]),
        ({}, None, []),
    ],
)
def test_the_richest_opencv_that_can_be_imported_wins(installer, monkeypatch, builds, found, wanted):
    monkeypatch.setattr(installer, "_version", builds.get)
    monkeypatch.setattr(installer, "_try_opencv", lambda: found)
    installer.mend_opencv()
    assert installer.installed == wanted


def test_a_failing_repair_does_not_stop_the_manager(installer, monkeypatch, capsys):
    def refuse(requirement):
        raise RuntimeError("no network")

    monkeypatch.setattr(installer, "_reinstall", refuse)
    monkeypatch.setattr(installer, "_version", {"opencv-python": "5.0.0"}.get)
    monkeypatch.setattr(installer, "_try_opencv", lambda: None)
    monkeypatch.setattr(installer, "mend_onnxruntime", lambda: None)
    assert installer.main() == 0
    assert "mend_opencv failed and was skipped: no network" in capsys.readouterr().out
