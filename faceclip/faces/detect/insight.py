"""InsightFace's SCRFD detectors (packs antelopev2, buffalo_l) on ONNX Runtime, with a choice of provider."""

import logging
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import CheckpointError, DependencyError, InputError, ModelNotFoundError, shown
from ...install import onnx_runtime
from ...install.places import INSIGHTFACE_SOURCE, detection_file
from ...install.quiet import keep_albumentations_offline
from .base import SCORE_FLOOR, Detection, Level, find_in_views
from .onnx_file import check_network, import_onnx

log = logging.getLogger(__name__)

PROVIDERS = ("auto", "CUDA", "CPU", "CoreML", "DirectML", "ROCm")
_ORT_NAMES = {
    "CUDA": ("CUDAExecutionProvider",),
    "CPU": ("CPUExecutionProvider",),
    "CoreML": ("CoreMLExecutionProvider",),
    "DirectML": ("DmlExecutionProvider",),
    "ROCm": ("ROCMExecutionProvider", "MIGraphXExecutionProvider"),
}
# CoreML is for those who ask: it compiles the model anew for each input size, which takes longer than the CPU needs.
_AUTO = ("CUDA", "ROCm", "DirectML")
_PACKAGES = {
    "CUDA": "onnxruntime-gpu",
    "CPU": "onnxruntime",
    "CoreML": "onnxruntime",
    "DirectML": "onnxruntime-directml",
    "ROCm": "onnxruntime-rocm",
}

# SCRFD was trained on faces up to the whole of its 640 px input, so the border and the plain 640 px view miss little.
# Canvases are square and few, because GPU providers prepare a model again for each new input size.
_LEVELS = (Level(320, border=True), Level(640), Level(1280, 320))
_CANVASES = (640, 1280)
_NMS_THRESHOLD = 0.4


class InsightFace:
    """The detection model of an InsightFace pack.

    pack: the folder with the pack's .onnx files (see `find_insightface`). provider: one of PROVIDERS; "auto" takes a
    GPU where one can be used and the CPU otherwise. After loading, `.provider` names the one really in use, and
    `.notice` is a warning (also logged) if that is not what was asked for, with its cause and the command that helps.

    DependencyError if insightface or onnxruntime is missing; ModelNotFoundError if the folder has no detector;
    CheckpointError if the file is damaged or no face detector; InputError for an unknown provider.
    """

    def __init__(self, pack: str | Path, provider: str = "auto"):
        if provider not in PROVIDERS:
            raise InputError(f"The provider is {provider!r}; choose one of {', '.join(PROVIDERS)}.")
        self.pack = Path(pack)
        self.path = _require_detection_file(self.pack)
        self.name = f"InsightFace {self.pack.name}"
        model_zoo, runtime = libraries()
        wanted = choose_providers(provider, runtime.get_available_providers())
        self._network = self._load(model_zoo, wanted)
        self.provider = provider_of(self._network.session)
        self.notice = provider_notice(provider, self.provider, runtime)
        if self.notice:
            log.warning(self.notice)
        # Not the network's own `input_size`: newer releases fill in a default there.
        height = self._network.session.get_inputs()[0].shape[2]
        self._canvases, self._levels = _CANVASES, _LEVELS
        if isinstance(height, int):  # exported for one (square) input size: it sees the picture in that size only
            self._canvases = (height,)
            self._levels = (Level(height // 2, border=True), Level(height))
        self._check()

    def detect(self, picture: np.ndarray, smallest: float = 0.0) -> list[Detection]:
        """All faces in a uint8 [H, W, 3] RGB picture, best score first (see `Detector`)."""
        return find_in_views(picture, self._levels, self._run, smallest)

    def _load(self, model_zoo: Any, providers: list[str]):
        try:
            check_network(self.path)
            network = model_zoo.get_model(str(self.path), providers=providers)
        except Exception as error:  # protobuf, onnx and onnxruntime each have their own, without a common base
            raise self._unusable(error) from error
        if getattr(network, "taskname", None) != "detection" or not getattr(network, "use_kps", False):
            raise self._unusable("it does not give boxes, scores and five landmarks")
        network.det_thresh, network.nms_thresh = SCORE_FLOOR, _NMS_THRESHOLD
        return network

    def _check(self) -> None:
        side = self._canvases[0]
        try:
            self._run(np.zeros((side, side, 3), dtype=np.uint8))
        except Exception as error:  # as in _load; a model with other outputs fails here, in insightface's own code
            raise self._unusable(error) from error

    def _run(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        height, width = image.shape[:2]
        side = next(side for side in self._canvases if side >= max(height, width))
        canvas = np.zeros((side, side, 3), dtype=np.uint8)
        canvas[:height, :width] = image[:, :, ::-1]  # RGB -> BGR
        boxes, landmarks = self._network.detect(canvas, input_size=(side, side))
        return boxes[:, :4], boxes[:, 4], landmarks

    def _unusable(self, reason: Any) -> CheckpointError:
        first_line = shown((str(reason).strip().splitlines() or [type(reason).__name__])[0], 300)
        return CheckpointError(
            f"{self.path} cannot be used as a face detector: it is damaged, not fully downloaded or another model "
            f"({self.path.stat().st_size} bytes). Delete it and unzip the pack again. "
            f"{INSIGHTFACE_SOURCE.format(name=self.pack.name)} The reason given: {first_line}"
        )


def provider_of(session: Any) -> str:
    """The provider a session really runs on, by our name for it."""
    used = session.get_providers()[0]
    return next((name for name, ort in _ORT_NAMES.items() if used in ort), used)


def choose_providers(provider: str, available: list[str]) -> list[str]:
    """ONNX Runtime's names to ask for, the CPU always last. `auto` takes the first of CUDA, ROCm, DirectML there is."""
    names = [name for name in _AUTO if name != "CUDA" or _cuda_visible()] if provider == "auto" else [provider]
    for name in names:
        for ort in _ORT_NAMES[name]:
            if ort in available and name != "CPU":
                return [ort, "CPUExecutionProvider"]
    return ["CPUExecutionProvider"]


def provider_notice(asked: str, used: str, runtime: Any) -> str | None:
    """What to tell the user about the provider in use, or None if it is as asked."""
    if asked == used or (asked == "auto" and (used != "CPU" or not _cuda_visible())):
        return None
    wanted = "CUDA" if asked == "auto" else asked
    package, installed = _PACKAGES[wanted], list(onnx_runtime.installed_builds())
    fix = f"Run: {onnx_runtime.remedy(package)}"
    if not any(ort in runtime.get_available_providers() for ort in _ORT_NAMES[wanted]):
        if package != "onnxruntime" and package in installed and len(installed) > 1:
            others = " and ".join(name for name in installed if name != package)
            cause = f"{others} is installed beside {package} and hides it (both are the same Python module)"
        else:
            cause = f"the installed ONNX Runtime ({', '.join(installed) or runtime.__version__}) was built without it"
    elif wanted == "CUDA" and not _cuda_visible():
        cause = "this machine shows no NVIDIA GPU to PyTorch"
        fix = "Check the driver with: nvidia-smi. Without an NVIDIA GPU choose the provider auto or CPU."
    else:
        cause = (
            f"ONNX Runtime {runtime.__version__} could not start it; its libraries or driver do not fit this version"
        )
        if onnx_runtime.describe_onnxruntime().problem is None:
            fix = "Update the graphics driver; the log above has ONNX Runtime's reason."
    asked_for = "A CUDA GPU is there" if asked == "auto" else f"{asked} was asked for"
    return f"{asked_for}, but face detection runs on the {used}: {cause}. It works, only slower. {fix}"


def _require_detection_file(pack: Path) -> Path:
    path = detection_file(pack)
    if path is None:
        seen = ", ".join(sorted(p.name for p in pack.glob("*"))[:8]) if pack.is_dir() else "no such folder"
        raise ModelNotFoundError(
            f"{pack} holds no detection model (det_*.onnx or scrfd_*.onnx); it has: {seen or 'nothing'}. "
            f"{INSIGHTFACE_SOURCE.format(name=pack.name)}"
        )
    return path


def libraries():
    """insightface's model_zoo and onnxruntime; raises DependencyError with the command that installs them."""
    keep_albumentations_offline()
    try:
        import onnxruntime
        from insightface import model_zoo

        import_onnx()
    except Exception as error:  # a build for another numpy raises ValueError, a broken one almost anything
        raise DependencyError(
            "The InsightFace detector needs the packages insightface and onnxruntime, which cannot be imported "
            f"({type(error).__name__}: {error}). Run: python -m pip install insightface onnxruntime-gpu (onnxruntime "
            "where there is no NVIDIA GPU). The YuNet detector needs neither."
        ) from error
    return model_zoo, onnxruntime


def _cuda_visible() -> bool:
    import torch

    return torch.cuda.is_available()
