"""Face detectors behind one small interface: a picture in, boxes, scores and five landmarks out."""

from ...install.places import INSIGHTFACE_PACKS, detection_file, find_insightface, find_yunet
from .base import SCORE_FLOOR, Detection, Detector
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
