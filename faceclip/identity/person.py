"""One person made of several reference faces: how they are put together, checked against each other and blended.

An Identity (model.encoder) is what the face encoder sees of faces: features, one row a face, and nothing else. A
Person is whom a user means: the Identity of their references, how much each counts, small pictures of them, the encoder
that read them, and a name. It is what the node type FACECLIP_IDENTITY carries and what an identity file holds.

The rule for several references: each goes through the whole prompt pass, fuser included, and the fused conditionings
are averaged by the references' shares. Face features are never averaged themselves: the fuser reads patches by their
place in the face, and a mean of two faces' patches is no face.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from ..errors import InputError
from ..model.encoder import FACES_AT_ONCE, Identity, JointConditioning, JointEncoder

OUTLIERS = ("refuse", "drop", "keep")
MIN_SIMILARITY = 0.2
MAX_STRENGTH = 2.0
THUMBNAIL_SIZE = 112
Encode = Callable[..., JointConditioning]


@dataclass(frozen=True)
class Person:
    """identity: features of R reference faces. shares: R weights above 0 that sum to 1.

    thumbnails: uint8 [R, 3, 112, 112], RGB. encoder: hash of the face encoder that read them
    (`faceclip.model.checkpoint.face_encoder_hash`), "" where it is not known. name: for people to read.
    """

    identity: Identity
    shares: tuple[float, ...]
    thumbnails: torch.Tensor
    encoder: str = ""
    name: str = ""

    def __len__(self) -> int:
        return len(self.shares)

    @property
    def embedding(self) -> torch.Tensor:
        """The L2-normalised weighted mean of the references' identity embeddings, float32 [512]; for comparing."""
        shares = torch.tensor(self.shares, device=self.identity.embedding.device)
        return torch.nn.functional.normalize(shares @ self.identity.embedding, dim=-1)


def make_person(
    identity: Identity,
    crops: Sequence[torch.Tensor],
    weights: Sequence[float] | None = None,
    outliers: str = "refuse",
    min_similarity: float = MIN_SIMILARITY,
) -> tuple[Person, str]:
    """Put references together; returns the person and a table of their pairwise similarities.

    identity: features of R faces; crops: the R aligned faces, float [3, S, S], for the thumbnails. weights: R numbers
    from 0 (left out) up, None for equal ones. A reference is an outlier where the median of its cosine similarities
    to the others is below min_similarity: `refuse` raises InputError with the table, `drop` leaves it out and says
    so, `keep` only says so. Of two references that disagree neither can be told to be the wrong one, so `drop`
    refuses them as well.
    """
    shares = _shares(weights, len(crops))
    if outliers not in OUTLIERS:
        raise InputError(f"outliers is {outliers!r}, wanted one of {', '.join(OUTLIERS)}.")
    used = [i for i, share in enumerate(shares) if share > 0]
    similarity = identity.embedding @ identity.embedding.T
    odd = find_outliers(similarity[used][:, used], min_similarity)
    odd = [used[i] for i in odd]
    table = similarity_table(similarity, odd, shares)
    if odd and (outliers == "refuse" or (outliers == "drop" and len(used) == len(odd))):
        ways_out = _ways_out(similarity[used][:, used], odd)
        raise InputError(f"{_in_words(odd)} (similarity below {min_similarity:g}).\n{table}\n{ways_out}")
    if odd and outliers == "drop":
        used = [i for i in used if i not in odd]
        table += f"\nLeft out: reference {', '.join(str(i + 1) for i in odd)}."
    total = sum(shares[i] for i in used)
    thumbnails = torch.stack([_thumbnail(crops[i]) for i in used])
    return Person(select(identity, used), tuple(shares[i] / total for i in used), thumbnails), table


def _in_words(odd: Sequence[int]) -> str:
    numbers = ", ".join(str(i + 1) for i in odd)
    if len(odd) > 1:
        return f"References {numbers} do not look like the same person as the others"
    return f"Reference {numbers} does not look like the same person as the others"


def _ways_out(similarity: torch.Tensor, odd: Sequence[int]) -> str:
    """What helps against these outliers, and nothing that does not. similarity: of the references that count."""
    lowest = math.floor(min(_medians(similarity)) * 100) / 100
    settings = f"choose outliers = keep, or set min_similarity to {lowest:g} or less"
    if len(odd) < len(similarity):
        return f"Take the wrong picture out, choose outliers = drop, which leaves out {len(odd)}, {settings}."
    return (
        "None can be told to be the wrong one, so outliers = drop would leave nobody. Take all pictures but those of "
        f"one person out, {settings}."
    )


def _medians(similarity: torch.Tensor) -> list[float]:
    """Each row's median similarity to the others. similarity: float [R, R], cosines, R of at least 2."""
    count = len(similarity)
    others = similarity[~torch.eye(count, dtype=torch.bool, device=similarity.device)].reshape(count, count - 1)
    return [float(row.quantile(0.5)) for row in others]


def find_outliers(similarity: torch.Tensor, min_similarity: float) -> list[int]:
    """Indices whose median similarity to the others is below min_similarity. similarity: float [R, R], cosines."""
    if len(similarity) < 2:
        return []
    return [i for i, median in enumerate(_medians(similarity)) if median < min_similarity]


def similarity_table(similarity: torch.Tensor, odd: Sequence[int] = (), shares: Sequence[float] = ()) -> str:
    """The pairwise cosines as text, outliers marked."""
    if len(similarity) == 1:
        return "One reference."
    lines = ["similarity " + " ".join(f"{i + 1:>5}" for i in range(len(similarity)))]
    for i, row in enumerate(similarity.tolist()):
        marks = (" <- not like the others" if i in odd else "") + (" (weight 0)" if shares and not shares[i] else "")
        lines.append(f"{i + 1:>10} " + " ".join(f"{value:5.2f}" for value in row) + marks)
    return "\n".join(lines)


def blend(first: Person, second: Person, ratio: float) -> Person:
    """A person between two: ratio 0 is exactly the first, 1 exactly the second.

    All references of both are kept, with their shares scaled; blends can be blended again. Raises InputError for a
    ratio outside 0 to 1 and for persons read by different encoders.
    """
    if not 0.0 <= ratio <= 1.0:
        raise InputError(f"The ratio is {ratio}, wanted a number from 0 (first person) to 1 (second person).")
    if first.encoder and second.encoder and first.encoder != second.encoder:
        raise InputError(
            "The two identities were read by different face encoders and cannot be blended. Encode both with the same "
            "FaceCLIP file."
        )
    if ratio in (0.0, 1.0):
        return second if ratio else first
    shares = [share * (1 - ratio) for share in first.shares] + [share * ratio for share in second.shares]
    return Person(
        Identity.cat([first.identity, second.identity]),
        tuple(shares),
        torch.cat([first.thumbnails, second.thumbnails]),
        first.encoder or second.encoder,
        " + ".join(name for name in (first.name, second.name) if name),
    )


def select(identity: Identity, rows: Sequence[int]) -> Identity:
    """The features of some of the faces, in the order of `rows`."""
    rows = list(rows)
    first = replace(identity.l, class_token=identity.l.class_token[rows], patch_tokens=identity.l.patch_tokens[rows])
    if identity.l is identity.g:
        return Identity(first, first)
    second = replace(identity.g, class_token=identity.g.class_token[rows], patch_tokens=identity.g.patch_tokens[rows])
    return Identity(first, second)


def person_conditioning(
    model: JointEncoder, text: str, person: Person | None, strength: float = 1.0, **options: Any
) -> JointConditioning:
    """The conditioning of one prompt for one person, batch 1.

    strength: see `conditioning_at`. options: `weighted` and `long_prompt` of `JointEncoder.encode_prompt`. model: an
    encoder, or what offers its encode_prompt.
    """

    def encode(count: int, identity: Identity | None, **how: bool) -> JointConditioning:
        return model.encode_prompt([text] * count, identity, **how, **options)

    return conditioning_at(encode, person, strength)


def conditioning_at(encode: Encode, person: Person | None, strength: float = 1.0) -> JointConditioning:
    """What `encode` makes of one prompt for one person, batch 1.

    encode(count, identity, **how): the prompt `count` times, with as many faces or None; how: `identity_free` and
    `alone` of `JointEncoder.encode_prompt`.
    strength: a point on the line between the same token sequence without the identity (0.0, exactly) and with it
    (1.0, exactly the published output). Beyond 1, up to 2, the line is followed further: the likeness is pushed, and
    the conditioning leaves what the UNet was trained on. person None: text alone; strength then means nothing.
    """
    if not 0.0 <= strength <= MAX_STRENGTH:
        raise InputError(f"The strength is {strength}, wanted a number from 0 to {MAX_STRENGTH:g} (1 is as published).")
    if person is None:
        return encode(1, None)
    if strength == 0.0:
        return encode(1, None, identity_free=True)
    joint = _mean(encode, person)
    if strength == 1.0:
        return joint
    base = encode(1, None, identity_free=True)
    return JointConditioning(
        torch.lerp(base.embeddings, joint.embeddings, strength),
        None if base.pooled is None or joint.pooled is None else torch.lerp(base.pooled, joint.pooled, strength),
    )


def _mean(encode: Encode, person: Person) -> JointConditioning:
    """The mean over the references by their shares, a few of them at a time: memory does not grow with their number."""
    total: JointConditioning | None = None
    for start in range(0, len(person), FACES_AT_ONCE):
        shares = person.shares[start : start + FACES_AT_ONCE]
        joint = encode(len(shares), person.identity.part(start, start + len(shares)), alone=True)
        if len(person) == 1:
            return joint
        weights = torch.tensor(shares, device=joint.embeddings.device)
        embeddings = torch.einsum("r,rtc->tc", weights, joint.embeddings)[None]
        pooled = None if joint.pooled is None else torch.einsum("r,rc->c", weights, joint.pooled)[None]
        if total is not None:
            embeddings = total.embeddings + embeddings
            pooled = None if pooled is None or total.pooled is None else total.pooled + pooled
        total = JointConditioning(embeddings, pooled)
    assert total is not None  # a person has a reference
    return total


def _shares(weights: Sequence[float] | None, count: int) -> list[float]:
    if weights is None or len(weights) == 0:
        return [1.0 / count] * count
    if len(weights) != count:
        raise InputError(f"There are {len(weights)} weights for {count} references, wanted one each, or none at all.")
    if any(not 0.0 <= weight < float("inf") for weight in weights) or sum(weights) <= 0:
        raise InputError(f"The weights are {list(weights)}, wanted numbers from 0 up, and at least one above 0.")
    return [weight / sum(weights) for weight in weights]


def _thumbnail(crop: torch.Tensor) -> torch.Tensor:
    size = (THUMBNAIL_SIZE, THUMBNAIL_SIZE)
    small = torch.nn.functional.interpolate(crop[None].float().cpu(), size=size, mode="area")[0]
    return (small.clamp(0, 1) * 255).round().to(torch.uint8)
