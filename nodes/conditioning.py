"""From joint conditionings to the host's CONDITIONING: what is told, and the part of the sampling each acts in."""

from typing import Any

import torch

from ..faceclip.errors import InputError
from ..faceclip.identity.file import check_encoder
from ..faceclip.identity.person import Person, person_conditioning
from ..faceclip.model.encoder import JointConditioning
from .targets import Target

ACTS = "faceclip_acts"  # plain data, so that conditionings can be saved; the host passes it over
UNREAD = "faceclip_unread"  # the node that left out encoding
Part = tuple[JointConditioning, float, float]  # conditioning, start and end as parts of the sampling


def encode_parts(
    faceclip: Any, text: str, person: Person | None, strength: float, start: float, end: float, options: dict[str, Any]
) -> list[Part]:
    """The conditionings of one prompt, each with the part of the sampling it acts in; together they fill it.

    Outside start to end the text acts without the identity (strength 0). Raises InputError for an empty range, and
    for an identity that another face encoder read.
    """
    if person is not None and person.encoder:
        check_encoder(person, faceclip.encoder_hash, person.name or "given")
    if person is not None and strength > 0.0 and not 0.0 <= start < end <= 1.0:
        raise InputError(
            f"The identity acts from start_percent {start} to end_percent {end}, wanted 0 <= start < end <= 1. "
            "For no identity at all set strength to 0."
        )
    parts = [(person_conditioning(faceclip, text, person, strength, **options), start, end)]
    if person is None or strength == 0.0:
        return [(parts[0][0], 0.0, 1.0)]
    if (start, end) != (0.0, 1.0):
        free = person_conditioning(faceclip, text, person, 0.0, **options)
        parts += [(free, a, b) for a, b in ((0.0, start), (end, 1.0)) if a < b]
    return parts


def unread(faceclip: Any, target: Target, width: int, height: int, node: Any) -> list[Any]:
    """CONDITIONING for where no sampler reads it: of the right shape, and no numbers in it.

    Our MODEL refuses to read it (host_sampling.watch_sampling); another's picture of it is black, not wrong unseen.
    """
    length, (wide, pooled) = faceclip.model.tokens.length, faceclip.model.widths
    nothing = JointConditioning(
        torch.full((1, length, wide), torch.nan), None if pooled is None else torch.full((1, pooled), torch.nan)
    )
    mark: dict[str, Any] = {UNREAD: str(node)}
    return entries(target, [(nothing, 0.0, 1.0)], width, height, **mark)


def acting(hidden: Any, start: float = 0.0, end: float = 1.0) -> dict[str, Any]:
    """The key by which an identity's entry is known when it is sampled: the node that made it, and its own range."""
    return {ACTS: {"node": str(getattr(hidden, "unique_id", None)), "range": (start, end)}}


def entries(
    target: Target, parts: list[Part], width: int, height: int, acts: dict[str, Any] | None = None, **extra: Any
) -> list[Any]:
    """CONDITIONING entries that tell the diffusion model what it is told. extra: further keys for each entry.

    acts: keys for the first part alone, the one with the identity.
    """
    made = []
    for number, (joint, start, end) in enumerate(parts):
        with_identity = acts if acts and number == 0 else {}
        span = {} if (start, end) == (0.0, 1.0) else {"start_percent": start, "end_percent": end}
        told = target.tell(joint, width, height)
        made.append([joint.embeddings, {**told, **span, **with_identity, **extra}])
    return made
