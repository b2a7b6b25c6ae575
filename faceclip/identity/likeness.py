"""Is it that person? Faces in generated pictures against an identity, and the best pictures of a batch.

Two judges: FaceCLIP's own face encoder (which also conditioned the picture, so it flatters), and the recognition model
of an InsightFace pack (independent; it sees the identity through its thumbnails).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ..errors import CheckpointError, InputError, ModelNotFoundError
from ..faces.align import CROP_SIZE, align
from ..faces.detect import Detection, Detector
from ..faces.detect.insight import choose_providers, libraries, provider_notice, provider_of
from ..faces.face import DEFAULT_MIN_SCORE, check_pictures
from .file import check_encoder
from .person import Person

NO_FACE = -1.0  # the lowest cosine there is: a picture without a face counts as the worst
_RECOGNISERS = ("glintr100.onnx", "w600k_*.onnx", "arcface*.onnx")
_RECOGNISER_SIZE = 112

Embed = Callable[[torch.Tensor], torch.Tensor]  # aligned crops [N, 3, S, S] -> L2-normalised [N, D]


@dataclass(frozen=True)
class Likeness:
    """One face of a picture: cosine similarity to the identity (-1 to 1), and the aligned crop, float [3, 448, 448]."""

    picture: int
    face: Detection
    similarity: float
    crop: torch.Tensor


class OwnJudge:
    """FaceCLIP's face encoder. encode: aligned crops -> an Identity (FaceCLIP.encode_identity)."""

    name = "FaceCLIP's face encoder (the one that conditioned the picture)"
    notice: str | None = None

    def __init__(self, encode: Callable, encoder_hash: str = ""):
        self._encode, self._hash = encode, encoder_hash

    def embed(self, crops: torch.Tensor) -> torch.Tensor:
        return self._encode(crops).embedding.cpu()

    def reference(self, person: Person) -> torch.Tensor:
        """The identity's embedding [D]. Raises InputError where another encoder read it."""
        check_encoder(person, self._hash, person.name or "given")
        return person.embedding.cpu()


class InsightFaceJudge:
    """The recognition model of an InsightFace pack folder; provider as in faceclip.faces.detect.InsightFace."""

    def __init__(self, pack: str | Path, provider: str = "auto"):
        pack = Path(pack)
        self.path = _recognition_file(pack)
        self.name = f"InsightFace {pack.name} (independent of FaceCLIP)"
        model_zoo, runtime = libraries()
        try:
            wanted = choose_providers(provider, runtime.get_available_providers())
            self._network = model_zoo.get_model(str(self.path), providers=wanted)
            if getattr(self._network, "taskname", None) != "recognition":
                raise ValueError(f"it is a {getattr(self._network, 'taskname', 'different')} model")
            self._features(np.zeros((_RECOGNISER_SIZE, _RECOGNISER_SIZE, 3), dtype=np.uint8))
        except Exception as error:  # protobuf, onnx and onnxruntime each have their own, without a common base
            raise CheckpointError(
                f"{self.path} cannot be used to recognise faces ({error}). Delete it and unzip the pack again."
            ) from error
        self.provider = provider_of(self._network.session)
        self.notice = provider_notice(provider, self.provider, runtime)

    def embed(self, crops: torch.Tensor) -> torch.Tensor:
        size = (_RECOGNISER_SIZE, _RECOGNISER_SIZE)
        small = torch.nn.functional.interpolate(crops.float().cpu(), size=size, mode="area")
        pictures = (small.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1)  # BCHW -> BHWC
        features = np.stack([self._features(picture[:, :, ::-1]) for picture in pictures.numpy()])  # RGB -> BGR
        return torch.nn.functional.normalize(torch.from_numpy(features).float(), dim=-1)

    def reference(self, person: Person) -> torch.Tensor:
        """The weighted mean of the thumbnails' embeddings, [D], normalised."""
        return torch.nn.functional.normalize(
            torch.tensor(person.shares) @ self.embed(person.thumbnails.float() / 255), dim=-1
        )

    def _features(self, picture: np.ndarray) -> np.ndarray:
        return self._network.get_feat(np.ascontiguousarray(picture)).reshape(-1)


def find_likeness(
    images: torch.Tensor,
    person: Person,
    detector: Detector,
    judge: OwnJudge | InsightFaceJudge,
    min_score: float = DEFAULT_MIN_SCORE,
    progress: Callable[[int, int], None] | None = None,
) -> list[list[Likeness]]:
    """The faces of each picture with their similarity to the person, best first; an empty list where there is no face.

    images: float [B, H, W, 3], [0, 1]. progress(done, total) is called per picture and may raise to cancel.
    """
    pictures = check_pictures(images)
    reference = judge.reference(person)
    found = []
    for number, picture in enumerate(pictures.numpy()):
        seen = detector.detect((picture * 255).round().astype(np.uint8))
        faces = [face for face in seen if face.score >= min_score]
        crops = [torch.from_numpy(align(picture, face.landmarks, CROP_SIZE)).permute(2, 0, 1) for face in faces]
        cosines = (judge.embed(torch.stack(crops)) @ reference).tolist() if crops else []
        likely = [Likeness(number, *one) for one in zip(faces, cosines, crops, strict=True)]
        found.append(sorted(likely, key=lambda one: -one.similarity))
        if progress:
            progress(number + 1, len(pictures))
    return found


def best_per_picture(found: Sequence[Sequence[Likeness]]) -> list[float]:
    """The best similarity of each picture; NO_FACE where there is no face."""
    return [faces[0].similarity if faces else NO_FACE for faces in found]


def pick_best(found: Sequence[Sequence[Likeness]], count: int) -> list[int]:
    """Indices of the `count` pictures most like the person, best first; equals keep the batch's order."""
    if count < 1:
        raise InputError(f"The number of pictures to keep is {count}, wanted at least 1.")
    scores = best_per_picture(found)
    return sorted(range(len(scores)), key=lambda i: -scores[i])[:count]


def likeness_table(found: Sequence[Sequence[Likeness]], judge_name: str, kept: Sequence[int] | None = None) -> str:
    """What was found, in words. kept: pictures that were picked."""
    lines = [f"Similarity by {judge_name}; 1 is the same face."]
    for number, faces in enumerate(found):
        text = ", ".join(f"{one.similarity:.3f}" for one in faces) or "no face found, counts as the worst"
        mark = "" if kept is None else (" <- kept" if number in kept else "")
        lines.append(f"picture {number + 1}: {text}{mark}")
    return "\n".join(lines)


def _recognition_file(pack: Path) -> Path:
    for pattern in _RECOGNISERS:
        for path in sorted(pack.glob(pattern)):
            return path
    raise ModelNotFoundError(
        f"{pack} holds no recognition model ({' or '.join(_RECOGNISERS)}). Unzip the whole InsightFace pack there, or "
        "judge with FaceCLIP's own face encoder."
    )
