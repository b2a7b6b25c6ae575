"""Face detectors behind one small interface: a picture in, boxes, scores and five landmarks out."""

from .base import SCORE_FLOOR, Detection, Detector
from .folders import INSIGHTFACE_PACKS, detection_file, find_insightface, find_yunet
from .insight import PROVIDERS, InsightFace
from .yunet import YuNet

__all__ = [
    "INSIGHTFACE_PACKS",
    "PROVIDERS",
    "SCORE_FLOOR",
    "Detection",
    "Detector",
    "InsightFace",
    "YuNet",
    "detection_file",
    "find_insightface",
    "find_yunet",
]
