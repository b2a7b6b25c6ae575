"""Is it that person? Faces in generated pictures against an identity, and the best pictures of a batch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from ..errors import InputError
from ..faces.align import CROP_SIZE, align
from ..faces.detect.base import Detection, Detector
from ..faces.face import DEFAULT_MIN_SCORE
from ..faces.pictures import Pictures, to_bytes
from .judge import Judge

# What a picture without a face counts as. Where pictures are ranked (Pick Best, Face Similarity) it comes after every
# face there is: the lowest cosine. Where they are averaged (eval) that would weigh more than the wrong person does, so
# it counts as a stranger.
NO_FACE_RANKED = -1.0
NO_FACE_AVERAGED = 0.0


@dataclass(frozen=True)
class Likeness:
    """One face of a picture: cosine similarity to the identity (-1 to 1), and the aligned crop, float [3, 448, 448]."""

    picture: int
    face: Detection
    similarity: float
    crop: torch.Tensor


def find_likeness(
    images: torch.Tensor | Sequence[torch.Tensor] | Pictures,
    reference: torch.Tensor,
    detector: Detector,
    judge: Judge,
    min_score: float = DEFAULT_MIN_SCORE,
    progress: Callable[[int, int], None] | None = None,
) -> list[list[Likeness]]:
    """The faces of each picture with their similarity to a person, best first; an empty list where there is no face.

    images: what `Pictures` takes. reference: the person as the judge sees them (`Judge.reference`), [D].
    progress(done, total) is called per picture and may raise to cancel.
    """
    pictures = Pictures(images)
    found = []
    for number, one in enumerate(pictures):
        picture = one.numpy()
        seen = detector.detect(to_bytes(one))
        faces = [face for face in seen if face.score >= min_score]
        crops = [torch.from_numpy(align(picture, face.landmarks, CROP_SIZE)).permute(2, 0, 1) for face in faces]
        cosines = (judge.embed(torch.stack(crops)) @ reference).tolist() if crops else []
        likely = [Likeness(number, *one) for one in zip(faces, cosines, crops, strict=True)]
        found.append(sorted(likely, key=lambda one: -one.similarity))
        if progress:
            progress(number + 1, len(pictures))
    return found


def best_per_picture(found: Sequence[Sequence[Likeness]]) -> list[float]:
    """The best similarity of each picture; NO_FACE_RANKED where there is no face."""
    return [faces[0].similarity if faces else NO_FACE_RANKED for faces in found]


def pick_best(found: Sequence[Sequence[Likeness]], count: int) -> list[int]:
    """Indices of the `count` pictures most like the person, best first; equals keep the batch's order."""
    if count < 1:
        raise InputError(f"The number of pictures to keep is {count}, wanted at least 1.")
    scores = best_per_picture(found)
    return sorted(range(len(scores)), key=lambda i: -scores[i])[:count]


def likeness_table(
    found: Sequence[Sequence[Likeness]],
    judge_name: str,
    kept: Sequence[int] | None = None,
    people: Sequence[str] = (),
) -> str:
    """What was found, in words. kept: pictures that were picked. people: with whom each picture was compared."""
    lines = [f"Similarity by {judge_name}; 1 is the same face."]
    for number, faces in enumerate(found):
        text = ", ".join(f"{one.similarity:.3f}" for one in faces) or "no face found, counts as the worst"
        mark = "" if kept is None else (" <- kept" if number in kept else "")
        person = f", {people[number]}" if people else ""
        lines.append(f"picture {number + 1}{person}: {text}{mark}")
    return "\n".join(lines)
