"""YuNet, the small face detector that OpenCV runs by itself (Wu et al., doi 10.1007/s11633-023-1423-y)."""

from pathlib import Path

import numpy as np

from ...errors import CheckpointError
from ...install.published import YUNET, is_allowed
from .base import SCORE_FLOOR, Detection, Level, find_in_views
from .opencv import first_line, import_cv2, open_network, read_trusted
from .upright import look_again

# YuNet was trained on faces of about 10 to 300 px. Above that its scores fall and flat texture begins to look like a
# large face (measured: a 570 px "face" in an enlarged photo scores 0.5), so each level trusts a bounded size.
_LEVELS = (Level(160, border=True), Level(320), Level(640, 256), Level(1280, 160), Level(2560, 160))
_NMS_THRESHOLD = 0.3
_MOST_FACES = 5000


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
        allow = f'python -m faceclip allow-detector "{path}"'
        data = read_trusted(
            self.path,
            YUNET,
            "YuNet face detector",
            lambda digest: digest == YUNET.sha256 or is_allowed(self.path, digest),
            f" If another detector is meant to be used, allow this one: {allow}",
        )
        self.open(data)

    def open(self, data: bytes) -> None:
        """Opens the network in these bytes of `self.path`, which somebody trusts. CheckpointError if it is none."""
        cv2 = import_cv2("FaceDetectorYN")
        try:
            settings = ((320, 320), SCORE_FLOOR, _NMS_THRESHOLD, _MOST_FACES)
            self._network = open_network(cv2.FaceDetectorYN.create, data, *settings)
            self._run(np.zeros((64, 64, 3), dtype=np.uint8))
        except (cv2.error, IndexError, SystemError) as error:
            raise CheckpointError(
                f"{self.path} cannot be used as the YuNet face detector: it is damaged or another model. OpenCV says: "
                f"{first_line(error)}. Delete it and get it again. {YUNET.source}"
            ) from error

    def detect(self, picture: np.ndarray, smallest: float = 0.0) -> list[Detection]:
        """All faces in a uint8 [H, W, 3] RGB picture, best score first (see `Detector`)."""
        return look_again(picture, find_in_views(picture, _LEVELS, self._run, smallest), self._run, smallest)

    def _run(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        height, width = image.shape[:2]
        self._network.setInputSize((width, height))
        _, rows = self._network.detect(np.ascontiguousarray(image[:, :, ::-1]))  # RGB -> BGR
        if rows is None:
            rows = np.zeros((0, 15), dtype=np.float32)
        # x, y, w, h, then the subject's right eye first, which in the picture is the left one: the template's order.
        boxes = np.concatenate([rows[:, :2], rows[:, :2] + rows[:, 2:4]], axis=1)
        return boxes, rows[:, 14], rows[:, 4:14].reshape(-1, 5, 2)
