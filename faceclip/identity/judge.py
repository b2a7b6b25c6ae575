"""Who compares faces: a contract, and three who keep it.

FaceCLIP's own face encoder also conditioned the picture, so it flatters; the recognition model of an InsightFace pack
and SFace are independent, and see an identity through its thumbnails.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from ..errors import CheckpointError, ModelNotFoundError, shown
from ..faces.detect.insight import choose_providers, libraries, provider_notice, provider_of
from ..faces.detect.onnx_file import check_network
from ..faces.detect.opencv import first_line, import_cv2, open_network, read_trusted
from ..install.published import SFACE
from .file import check_encoder
from .person import Person

_RECOGNISERS = ("glintr100.onnx", "w600k_*.onnx", "arcface*.onnx")
_RECOGNISER_SIZE = 112


class Judge(Protocol):
    """name: for the reader of a table. notice: what a user must know about how it runs, None if nothing."""

    name: str
    notice: str | None

    def embed(self, crops: torch.Tensor) -> torch.Tensor:
        """Aligned crops float [N, 3, S, S], RGB, [0, 1] -> L2-normalised embeddings float32 [N, D], on the CPU."""
        ...

    def reference(self, person: Person) -> torch.Tensor:
        """What faces are compared with: [D], L2-normalised. Raises InputError for a person it cannot judge."""
        ...


class OwnJudge:
    """FaceCLIP's face encoder. encode: aligned crops -> an Identity (FaceCLIP.encode_identity)."""

    name = "FaceCLIP's face encoder (the one that conditioned the picture)"
    notice: str | None = None

    def __init__(self, encode: Callable[..., Any], encoder_hash: str = ""):
        self._encode, self._hash = encode, encoder_hash

    def embed(self, crops: torch.Tensor) -> torch.Tensor:
        return self._encode(crops).embedding.cpu()

    def reference(self, person: Person) -> torch.Tensor:
        """The identity's embedding [D]. Raises InputError where another encoder read it."""
        check_encoder(person, self._hash, person.name or "given")
        return person.embedding.cpu()


class InsightFaceJudge:
    """The recognition model of an InsightFace pack folder; provider as in faceclip.faces.detect.insight.InsightFace."""

    def __init__(self, pack: str | Path, provider: str = "auto"):
        pack = Path(pack)
        self.path = _recognition_file(pack)
        self.name = f"InsightFace {pack.name} (independent of FaceCLIP)"
        model_zoo, runtime = libraries()
        try:
            wanted = choose_providers(provider, runtime.get_available_providers())
            check_network(self.path)
            self._network = model_zoo.get_model(str(self.path), providers=wanted)
            if getattr(self._network, "taskname", None) != "recognition":
                raise ValueError(f"it is a {getattr(self._network, 'taskname', 'different')} model")
            self._features(np.zeros((_RECOGNISER_SIZE, _RECOGNISER_SIZE, 3), dtype=np.uint8))
        except Exception as error:  # protobuf, onnx and onnxruntime each have their own, without a common base
            raise CheckpointError(
                f"{self.path} cannot be used to recognise faces ({shown(error)}). Delete it and unzip the pack again."
            ) from error
        self.provider = provider_of(self._network.session)
        self.notice = provider_notice(provider, self.provider, runtime)

    def embed(self, crops: torch.Tensor) -> torch.Tensor:
        return _embed(crops, self._features)

    def reference(self, person: Person) -> torch.Tensor:
        """The weighted mean of the thumbnails' embeddings, [D], normalised."""
        return _reference(person, self)

    def _features(self, picture: np.ndarray) -> np.ndarray:
        return self._network.get_feat(np.ascontiguousarray(picture)).reshape(-1)


class SFaceJudge:
    """SFace (Zhong et al., arXiv 2205.12010) through `cv2.FaceRecognizerSF`, on the CPU; its licence is Apache-2.0.

    path: its .onnx file. sha256: the one file that is opened (see faceclip.faces.detect.opencv). Raises CheckpointError
    for another file, ModelNotFoundError, DependencyError.
    """

    name = "SFace (independent of FaceCLIP)"
    notice: str | None = None

    def __init__(self, path: str | Path, sha256: str | None = SFACE.sha256):
        self.path = Path(path)
        data = read_trusted(self.path, SFACE, "SFace face recogniser", lambda digest: digest == sha256)
        cv2 = import_cv2("FaceRecognizerSF")
        try:
            self._network = open_network(cv2.FaceRecognizerSF.create, data)
            self._features(np.zeros((_RECOGNISER_SIZE, _RECOGNISER_SIZE, 3), dtype=np.uint8))
        except (cv2.error, IndexError, SystemError) as error:
            raise CheckpointError(
                f"{self.path} cannot be used as SFace. OpenCV says: {first_line(error)}. Delete it and get it again. "
                f"{SFACE.source}"
            ) from error

    def embed(self, crops: torch.Tensor) -> torch.Tensor:
        return _embed(crops, self._features)

    def reference(self, person: Person) -> torch.Tensor:
        """The weighted mean of the thumbnails' embeddings, [D], normalised."""
        return _reference(person, self)

    def _features(self, picture: np.ndarray) -> np.ndarray:
        return self._network.feature(np.ascontiguousarray(picture)).reshape(-1)


def _embed(crops: torch.Tensor, features: Callable[[np.ndarray], np.ndarray]) -> torch.Tensor:
    """Both independent ones look at 112 px, in the template's place. features: uint8 [112, 112, 3] BGR -> [D]."""
    size = (_RECOGNISER_SIZE, _RECOGNISER_SIZE)
    small = torch.nn.functional.interpolate(crops.float().cpu(), size=size, mode="area")
    pictures = (small.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1)  # BCHW -> BHWC
    embedded = np.stack([features(picture[:, :, ::-1]) for picture in pictures.numpy()])  # RGB -> BGR
    return torch.nn.functional.normalize(torch.from_numpy(embedded).float(), dim=-1)


def _reference(person: Person, judge: Judge) -> torch.Tensor:
    mean = torch.tensor(person.shares) @ judge.embed(person.thumbnails.float() / 255)
    return torch.nn.functional.normalize(mean, dim=-1)


def _recognition_file(pack: Path) -> Path:
    for pattern in _RECOGNISERS:
        for path in sorted(pack.glob(pattern)):
            return path
    raise ModelNotFoundError(
        f"{pack} holds no recognition model ({' or '.join(_RECOGNISERS)}). Unzip the whole InsightFace pack there, or "
        "judge with FaceCLIP's own face encoder."
    )
