"""What the small model can do, on people it never saw: retrieval, and likeness and attributes of generated pictures."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from ...faces.align import align
from ...model.encoder import Identity, JointConditioning
from ...model.face_encoder import FaceFeatures
from ...model.faceclip import FaceCLIP
from ...progress import shown
from ..alignment import Alignment
from ..retrieval import top_k
from .cartoons.dataset import CartoonData
from .cartoons.scene import ATTRIBUTES
from .generate import generate
from .shipped import SmallModel

PEOPLE = 200
MEASURES_FILE = "measures.json"
_ROWS = 50  # samples per pass


@dataclass(frozen=True)
class Sample:
    """Rows of a CartoonData, one per person: the picture that is asked for, and the picture its face is taken from."""

    data: CartoonData
    wanted: np.ndarray
    reference: np.ndarray

    @classmethod
    def of(cls, data: CartoonData, count: int = PEOPLE) -> "Sample":
        """The first `count` people: their first picture is asked for, the face comes from their second."""
        first = np.flatnonzero(np.r_[True, np.diff(data.label) != 0])[:count]
        return cls(data, first, first + 1)

    def rows(self, name: str, which: np.ndarray) -> torch.Tensor:
        values = torch.from_numpy(np.array(getattr(self.data, name)[which]))
        if name in ("pictures", "crops"):
            return values.float() / 255
        return values.long() if name in ("ids", "joint_ids", "attributes") else values

    @property
    def captions(self) -> list[str]:
        return [self.data.captions[i] for i in self.wanted]


def top1(queries: torch.Tensor, gallery: torch.Tensor) -> float:
    """Share of queries whose own row of the gallery is the nearest, in percent."""
    return 100 * top_k(queries, gallery)


@torch.no_grad()
def retrieval(alignment: Alignment, sample: Sample) -> dict[str, float]:
    """Top-1 in percent per branch: joint -> face of the same picture and of another one, -> text, -> image."""
    model = alignment.model
    reference = model.encode_identity(sample.rows("crops", sample.reference))
    wanted = model.encode_identity(sample.rows("crops", sample.wanted))
    pictures, ids = sample.rows("pictures", sample.wanted), sample.rows("ids", sample.wanted)
    joint_ids = sample.rows("joint_ids", sample.wanted)
    found = {}
    for letter in alignment.branches:
        text, identity = _joint(alignment, letter, joint_ids, getattr(reference, letter))
        found[f"{letter}: joint -> face"] = top1(identity, reference.embedding)
        found[f"{letter}: joint -> face of another picture"] = top1(identity, wanted.embedding)
        found[f"{letter}: joint -> text"] = top1(text, alignment.text_feature(letter, ids))
        found[f"{letter}: joint -> image"] = top1(text, alignment.image_feature(letter, pictures))
    return found


def _joint(alignment: Alignment, letter: str, joint_ids: torch.Tensor, face: FaceFeatures):
    parts = []
    for start in range(0, len(joint_ids), _ROWS):
        rows = slice(start, start + _ROWS)
        part = FaceFeatures(face.class_token[rows], face.patch_tokens[rows])
        parts.append(alignment.joint(letter, joint_ids[rows], part))
    return (torch.cat(side) for side in zip(*parts, strict=True))


def encode(
    model: FaceCLIP, captions: list[str], identity: Identity | None, has_face: list[bool] | None = None
) -> JointConditioning:
    """encode_prompt for many rows, a few at a time, of a model whose branches share their face encoder."""
    parts = []
    for start in range(0, len(captions), _ROWS):
        rows = slice(start, start + _ROWS)
        some = None
        if identity is not None:
            taken = FaceFeatures(identity.l.class_token[rows], identity.l.patch_tokens[rows])
            some = Identity(taken, taken)
        parts.append(model.encode_prompt(captions[rows], some, has_face and has_face[rows]))
    return JointConditioning(torch.cat([p.embeddings for p in parts]), torch.cat([p.pooled for p in parts]))


@dataclass(frozen=True)
class Generated:
    """pictures: float [N, 3, 128, 128] with the identity, and text_only without, from the same noise."""

    pictures: torch.Tensor
    text_only: torch.Tensor


def draw_people(
    model: FaceCLIP,
    unet: nn.Module,
    decode: Callable,
    sample: Sample,
    steps: int = 25,
    guidance: float = 3.0,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Generated:
    """Each person of the sample in the scene of the caption, and the caption alone."""
    negative = model.encode_prompt([""])
    identity = model.encode_identity(sample.rows("crops", sample.reference))
    both = []
    for i, who in enumerate((identity, None)):
        joint = encode(model, sample.captions, who)

        def tell(done: int, total: int, before: int = i) -> None:
            if progress:
                progress(before * total + done, 2 * total)

        both.append(generate(unet, decode, joint, negative, steps, guidance, seed, progress=tell))
    return Generated(*both)


@torch.no_grad()
def likeness(model: FaceCLIP, classifier: nn.Module, generated: Generated, sample: Sample) -> dict[str, float]:
    """Identity and attributes of generated pictures.

    Faces are cut out by the classifier's landmarks, and recognised among all people's reference faces.
    """
    reference = model.encode_identity(sample.rows("crops", sample.reference)).embedding
    found = {}
    similarities = {}
    for name, pictures in (("with identity", generated.pictures), ("text only", generated.text_only)):
        reading = classifier(pictures)
        crops = cut_faces(pictures, reading.landmarks)
        seen = model.encode_identity(crops).embedding
        similarities[name] = (seen * reference).sum(dim=-1).mean().item()
        if name == "with identity":
            found["identity recognised"] = top1(seen, reference)
            right = attributes_right(reading.attributes, sample)
            found["attributes right"] = 100 * float(np.mean(list(right.values())))
            found.update({f"attribute {key}": 100 * value for key, value in right.items()})
    real = model.encode_identity(sample.rows("crops", sample.wanted)).embedding
    read = classifier(sample.rows("pictures", sample.wanted)).attributes
    found["attributes right, real pictures"] = 100 * float(np.mean(list(attributes_right(read, sample).values())))
    found["likeness with identity"] = similarities["with identity"]
    found["likeness text only"] = similarities["text only"]
    found["likeness gain"] = similarities["with identity"] - similarities["text only"]
    found["likeness of real pictures"] = (real * reference).sum(dim=-1).mean().item()
    found["identity recognised, real pictures"] = top1(real, reference)
    return found


def attributes_right(read: torch.Tensor, sample: Sample) -> dict[str, float]:
    """Share of pictures that show what the caption tells, per attribute; attributes left unsaid do not count.

    read: int64 [N, 8], what the classifier sees.
    """
    wanted, said = sample.rows("attributes", sample.wanted), sample.rows("said", sample.wanted).bool()
    return {name: (read[:, i] == wanted[:, i])[said[:, i]].float().mean().item() for i, name in enumerate(ATTRIBUTES)}


def cut_faces(pictures: torch.Tensor, landmarks: torch.Tensor) -> torch.Tensor:
    """Aligned crops float [N, 3, 448, 448] of pictures [N, 3, H, W] by landmarks [N, 5, 2] px."""
    crops = []
    for picture, points in zip(pictures, landmarks, strict=True):
        pixels = np.ascontiguousarray(picture.permute(1, 2, 0).numpy(), dtype=np.float32)  # CHW -> HWC
        crops.append(torch.from_numpy(align(pixels, points.numpy())).permute(2, 0, 1))
    return torch.stack(crops)


def everything(models: SmallModel, sample: Sample) -> tuple[dict[str, float], Generated]:
    """All measures of a small model on a sample of held-out people, and the pictures it drew."""
    with shown("Drawing", "pictures") as tell:
        generated = draw_people(models.faceclip, models.unet, models.vae.decode, sample, progress=tell)
    found = retrieval(models.alignment, sample) | likeness(models.faceclip, models.classifier, generated, sample)
    return found, generated
