"""YuNet, the small face detector that OpenCV runs by itself (Wu et al., doi 10.1007/s11633-023-1423-y)."""

import hashlib
from pathlib import Path

import numpy as np

from ...errors import CheckpointError, DependencyError, ModelNotFoundError, shown
from ...install.places import YUNET_SOURCE
from ...install.published import YUNET, is_allowed
from .base import SCORE_FLOOR, Detection, Level, find_in_views
from .upright import look_again

# YuNet was trained on faces of about 10 to 300 px. Above that its scores fall and flat texture begins to look like a
# large face (measured: a 570 px "face" in an enlarged photo scores 0.5), so each level trusts a bounded size.
_LEVELS = (Level(160, border=True), Level(320), Level(640, 256), Level(1280, 160), Level(2560, 160))
_NMS_THRESHOLD = 0.3
_MOST_FACES = 5000
_LARGEST = 64 * 2**20  # bytes


class YuNet:
    """YuNet through `cv2.FaceDetectorYN`, on the CPU. `path` names its .onnx file.

    OpenCV's reader of ONNX dies with its whole process on some damaged files, so a file is opened only where its
    SHA-256 is published, or `python -m faceclip allow-detector` allowed it.

    CheckpointError if the file is damaged or another model; ModelNotFoundError if it is not there;
    DependencyError if OpenCV is missing or lacks the detector.
    """

    name = "YuNet"
    provider = "CPU"
    notice: str | None = None

    def __init__(self, path: str | Path):
        self.path = Path(path)
        if not self.path.is_file():
            raise ModelNotFoundError(f"There is no file {self.path}. {YUNET_SOURCE}")
        try:
            if (size := self.path.stat().st_size) > _LARGEST:
                raise CheckpointError(
                    f"{self.path} has {size} bytes and is no YuNet: {YUNET.name} has {YUNET.size}. Delete it and get "
                    f"it again. {YUNET_SOURCE}"
                )
            data = self.path.read_bytes()
        except OSError as error:
            raise CheckpointError(
                f"{self.path} cannot be read: {error.strerror or error}. Check its rights."
            ) from error
        digest = hashlib.sha256(data).hexdigest()
        if digest != YUNET.sha256 and not is_allowed(self.path, digest):
            raise CheckpointError(
                f"{self.path} is not the published YuNet face detector: it is damaged, not fully downloaded or another "
                f"model ({len(data)} bytes, SHA-256 {digest[:12]}...; {YUNET.name} has {YUNET.size}). It was not "
                f"opened, since a damaged one can end all of ComfyUI. Delete it and get it again. {YUNET_SOURCE} If "
                f'another detector is meant to be used, allow this one: python -m faceclip allow-detector "{self.path}"'
            )
        self._open(data)

    def _open(self, data: bytes) -> None:
        # Bytes, not the path: OpenCV cannot open paths outside the code page on Windows.
        cv2 = _cv2()
        try:
            model, none = np.frombuffer(data, dtype=np.uint8), np.empty(0, dtype=np.uint8)
            self._network = cv2.FaceDetectorYN.create(
                "onnx", model, none, (320, 320), SCORE_FLOOR, _NMS_THRESHOLD, _MOST_FACES
            )
            self._run(np.zeros((64, 64, 3), dtype=np.uint8))
        except (cv2.error, IndexError, SystemError) as error:
            raise CheckpointError(
                f"{self.path} cannot be used as the YuNet face detector: it is damaged or another model. OpenCV says: "
                f"{_first_line(error)}. Delete it and get it again. {YUNET_SOURCE}"
            ) from error

    def detect(self, picture: np.ndarray) -> list[Detection]:
        """All faces in a uint8 [H, W, 3] RGB picture, best score first (see `Detector`)."""
        return look_again(picture, find_in_views(picture, _LEVELS, self._run), self._run)

    def _run(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        height, width = image.shape[:2]
        self._network.setInputSize((width, height))
        _, rows = self._network.detect(np.ascontiguousarray(image[:, :, ::-1]))  # RGB -> BGR
        if rows is None:
            rows = np.zeros((0, 15), dtype=np.float32)
        # x, y, w, h, then the subject's right eye first, which in the picture is the left one: the template's order.
        boxes = np.concatenate([rows[:, :2], rows[:, :2] + rows[:, 2:4]], axis=1)
        return boxes, rows[:, 14], rows[:, 4:14].reshape(-1, 5, 2)


def _cv2():
    try:
        import cv2
    except Exception as error:  # a broken binary raises more than ImportError
        raise DependencyError(
            f"Face detection needs OpenCV, which cannot be imported ({error}). Run: python -m pip install opencv-python"
        ) from error
    if not hasattr(cv2, "FaceDetectorYN"):
        raise DependencyError(
            f"OpenCV {cv2.__version__} has no FaceDetectorYN; 4.8 or newer is wanted. "
            "Run: python -m pip install --upgrade opencv-python"
        )
    return cv2


def _first_line(error: BaseException) -> str:
    return shown((str(error).strip().splitlines() or [type(error).__name__])[0])
