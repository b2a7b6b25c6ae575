"""InsightFace: the real library and runtime on a small detector the tests build."""

import importlib
import logging
import sys

import numpy as np
import pytest
import scrfd
from bounds import bounded

from faceclip.errors import CheckpointError, DependencyError, InputError
from faceclip.faces.detect import insight as insight_module
from faceclip.faces.detect.insight import InsightFace
from faceclip.install import onnx_runtime
from faceclip.install.quiet import keep_albumentations_offline


@pytest.fixture(scope="module")
def runtime():
    pytest.importorskip("onnx")
    pytest.importorskip("insightface")
    return pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def pack(runtime, tmp_path_factory):
    folder = tmp_path_factory.mktemp("insightface") / "models" / "antelopev2"
    scrfd.write_detector(folder / "scrfd_10g_bnkps.onnx")
    scrfd.write_recognizer(folder / "glintr100.onnx")
    return folder


@pytest.mark.parametrize("size", [None, 640])
def test_insightface_reports_box_score_and_landmarks_in_picture_pixels(runtime, tmp_path, size):
    scrfd.write_detector(tmp_path / "det_10g.onnx", size)
    detector = InsightFace(tmp_path, "CPU")
    picture = np.zeros((480, 640, 3), np.uint8)
    picture[256:288, 320:352] = (255, 0, 0)
    (face,) = detector.detect(picture)
    assert face.box == pytest.approx((320 - 64, 256 - 64, 320 + 64, 256 + 64), abs=0.01)
    assert face.landmarks[0] == pytest.approx((320 - 0.8 * 32, 256 - 0.6 * 32), abs=0.01)
    assert face.landmarks[4] == pytest.approx((320 + 0.6 * 32, 256 + 0.8 * 32), abs=0.01)
    assert 0.9 < face.score < 1
    assert (detector.provider, detector.notice) == ("CPU", None)


def test_insightface_sees_red_as_red_and_blue_as_blue(pack):
    picture = np.zeros((640, 640, 3), np.uint8)
    picture[256:288, 320:352] = (0, 0, 255)
    assert InsightFace(pack, "CPU").detect(picture) == []


@pytest.mark.parametrize(("side", "cell"), [(320, 16), (1280, 64), (1280, 32), (2560, 64)])
def test_insightface_looks_at_small_and_large_pictures_in_several_sizes(pack, side, cell):
    """A red square is one 32 px cell in one of the views only."""
    picture = np.zeros((side, side, 3), np.uint8)
    picture[2 * cell : 3 * cell, 4 * cell : 5 * cell] = (255, 0, 0)
    faces = InsightFace(pack, "CPU").detect(picture)
    assert len(faces) == 1
    assert faces[0].centre == pytest.approx((4 * cell, 2 * cell), abs=1.0)


def test_auto_runs_on_the_cpu_without_a_word_where_there_is_no_gpu(pack, monkeypatch, caplog):
    monkeypatch.setattr(insight_module, "_cuda_visible", lambda: False)
    with caplog.at_level(logging.WARNING):
        detector = InsightFace(pack)
    assert (detector.provider, detector.notice) == ("CPU", None)
    assert not caplog.records


def test_cuda_asked_for_without_a_gpu_says_so_loudly_and_works(runtime, pack, caplog):
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA GPU")
    if "CUDAExecutionProvider" not in runtime.get_available_providers():
        pytest.skip("the installed onnxruntime is a CPU build; the GPU build's fallback cannot be seen")
    with caplog.at_level(logging.WARNING, logger="faceclip"):
        detector = InsightFace(pack, "CUDA")
    assert detector.provider == "CPU"
    assert "CUDA was asked for, but face detection runs on the CPU" in detector.notice
    assert "no NVIDIA GPU" in detector.notice and "nvidia-smi" in detector.notice
    assert detector.notice in [record.getMessage() for record in caplog.records]
    assert detector.detect(np.zeros((64, 64, 3), np.uint8)) == []


def simulate_runtime(monkeypatch, runtime, providers, installed):
    monkeypatch.setattr(runtime, "get_available_providers", lambda: list(providers))
    monkeypatch.setattr(onnx_runtime, "installed_builds", lambda: installed)
    monkeypatch.setattr(onnx_runtime, "_torch_cuda", lambda: None)


def test_simulated_cpu_build_that_hides_the_gpu_build_is_named_with_the_fix(runtime, pack, monkeypatch):
    simulate_runtime(
        monkeypatch, runtime, ["CPUExecutionProvider"], {"onnxruntime": "1.20.1", "onnxruntime-gpu": "1.20.0"}
    )
    notice = InsightFace(pack, "CUDA").notice
    assert "onnxruntime is installed beside onnxruntime-gpu and hides it" in notice
    state = onnx_runtime.judge("1.20.1", "onnxruntime", onnx_runtime.installed_builds(), (), None, None)
    assert notice.endswith(f"Run: {state.fix_command()}"), "the doctor says the same"
    assert notice.endswith('-m pip install --no-deps --force-reinstall "onnxruntime-gpu==1.20.0"')


@pytest.mark.parametrize(("provider", "package"), [("DirectML", "onnxruntime-directml"), ("ROCm", "onnxruntime-rocm")])
def test_simulated_build_without_the_provider_is_named_with_the_fix(runtime, pack, monkeypatch, provider, package):
    simulate_runtime(monkeypatch, runtime, ["CPUExecutionProvider"], {"onnxruntime": "1.20.1"})
    notice = InsightFace(pack, provider).notice
    assert f"{provider} was asked for" in notice and "built without it" in notice
    assert notice.endswith(f'-m pip install --no-deps --force-reinstall "{package}"')


def test_simulated_gpu_left_unused_under_auto_is_told(runtime, pack, monkeypatch):
    simulate_runtime(monkeypatch, runtime, ["CPUExecutionProvider"], {"onnxruntime": "1.20.1"})
    monkeypatch.setattr(insight_module, "_cuda_visible", lambda: True)
    notice = InsightFace(pack, "auto").notice
    assert notice.startswith("A CUDA GPU is there, but face detection runs on the CPU")


def test_providers_are_chosen_with_the_cpu_as_the_last_one(monkeypatch):
    choose = insight_module.choose_providers
    monkeypatch.setattr(insight_module, "_cuda_visible", lambda: True)
    everything = ["CUDAExecutionProvider", "DmlExecutionProvider", "MIGraphXExecutionProvider", "CPUExecutionProvider"]
    assert choose("auto", everything) == ["CUDAExecutionProvider", "CPUExecutionProvider"]
    assert choose("ROCm", everything) == ["MIGraphXExecutionProvider", "CPUExecutionProvider"]
    assert choose("CPU", everything) == ["CPUExecutionProvider"]
    assert choose("CoreML", everything) == ["CPUExecutionProvider"]


def test_an_unknown_provider_is_refused(tmp_path):
    with pytest.raises(InputError, match="auto, CUDA, CPU, CoreML, DirectML, ROCm"):
        InsightFace(tmp_path, "GPU")


@pytest.mark.parametrize("module", ["insightface", "onnxruntime"])
def test_a_missing_package_is_named_with_its_install_command(tmp_path, monkeypatch, module):
    (tmp_path / "det_10g.onnx").touch()
    for name in [name for name in sys.modules if name.split(".")[0] == "insightface"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(DependencyError, match="pip install insightface onnxruntime-gpu"):
        InsightFace(tmp_path)


def test_damaged_and_wrong_insightface_files_say_so(pack, tmp_path):
    whole = (pack / "scrfd_10g_bnkps.onnx").read_bytes()
    other = (pack / "glintr100.onnx").read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"<html>404</html>", other):
        (tmp_path / "det_10g.onnx").write_bytes(content)
        with pytest.raises(CheckpointError, match=f"another model .{len(content)} bytes"):
            InsightFace(tmp_path, "CPU")


def test_a_stand_in_for_albumentations_does_not_ask_the_network(tmp_path, monkeypatch):
    """As the real package does: it asks while it is imported, which insightface before 2 does."""
    package = tmp_path / "albumentations"
    package.mkdir()
    (package / "check_version.py").write_text("def check_for_updates():\n    raise AssertionError('asked')\n")
    (package / "__init__.py").write_text("from .check_version import check_for_updates\ncheck_for_updates()\n")
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.split(".")[0] == "albumentations"]:
        monkeypatch.delitem(sys.modules, name)
    keep_albumentations_offline()
    module = importlib.import_module("albumentations")
    assert module.__file__ == str(package / "__init__.py")
    for name in ("albumentations", "albumentations.check_version"):
        monkeypatch.delitem(sys.modules, name)


def _network(path, *nodes, **constants):
    from onnx import TensorProto, helper, numpy_helper

    picture = helper.make_tensor_value_info("input.1", TensorProto.FLOAT, [1, 3, "?", "?"])
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, ["a", "b", "c", "d"])
    held = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    return scrfd._save(path, list(nodes), [picture], [out], held)


@pytest.mark.parametrize("kind", ["ConstantOfShape", "Resize", "Tile", "Pad"])
def test_a_network_that_makes_gigabytes_of_a_few_bytes_is_not_run(tmp_path, kind):
    from onnx import helper

    inputs, constants = {
        "ConstantOfShape": (["n"], {"n": np.array([2**34])}),
        "Resize": (["input.1", "", "n"], {"n": np.array([1, 1, 10_000, 10_000], np.float32)}),
        "Tile": (["input.1", "n"], {"n": np.array([1, 1, 10_000, 10_000])}),
        "Pad": (["input.1", "n"], {"n": np.array([0, 0, 0, 0, 0, 0, 0, 2**31])}),
    }[kind]
    _network(tmp_path / "det_x.onnx", helper.make_node(kind, inputs, ["out"]), **constants)
    with bounded(), pytest.raises(CheckpointError, match=f"has the operator {kind}"):
        InsightFace(tmp_path, "CPU")


def test_an_onnx_that_cannot_be_imported_is_no_damaged_pack(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(DependencyError, match="cannot be imported.*onnx"):
        insight_module.libraries()
