"""What a node that reads a prompt says about it: what acts, what is only words here, and what does nothing."""

import logging
from typing import Any

from ..faceclip.errors import InputError
from ..faceclip.identity.person import Person
from ..faceclip.model import syntax

log = logging.getLogger(__name__)

NOBODY = "No identity: no person is in this prompt, only words."


def about_text(faceclip: Any, text: str, has_face: bool, long_prompt: str) -> list[str]:
    """How long a prompt is, what brackets do in it, and which of its words would do something in other programs.

    faceclip: a host.ManagedFaceCLIP. long_prompt: of `FaceCLIP.encode_prompt`. The last are logged too.
    """
    rule = faceclip.model.tokens
    rows = rule.tokenize(text, has_face, weighted=True, long_prompt=long_prompt)
    used = sum(map(rule.used, rows))
    lines = [f"{used} tokens, in {len(rows)} chunk{'s' if len(rows) > 1 else ''} of {rule.length}."]
    if long_prompt == "cut" and _is_longer(rule, text, has_face):
        lines.append(f"! The text is longer than {rule.length} tokens: the rest is left out.")
    lines += syntax.weights(text)
    for notice in syntax.notices(text):
        lines.append(f"! {notice}")
        log.warning("Prompt: %s", notice)
    return lines


def about_person(person: Person | None, strength: float, start: float, end: float) -> list[str]:
    """Who is in a prompt, how much, and in which part of the sampling."""
    if person is None:
        return [f"! {NOBODY}"]
    who = person.name or ("1 reference" if len(person) == 1 else f"{len(person)} references")
    if strength == 0.0:
        log.warning("Prompt: strength is 0, so nobody's face acts.")
        return [f"! Identity: {who}, strength 0: nobody's face acts."]
    part = "" if (start, end) == (0.0, 1.0) else f", from {start:.1%} to {end:.1%} of the sampling"
    return [f"Identity: {who}, strength {strength:g}{part}."]


def _is_longer(rule: Any, text: str, has_face: bool) -> bool:
    try:
        return len(rule.tokenize(text, has_face, weighted=True, long_prompt="continue")) > 1
    except InputError:  # longer than what can be continued at all
        return True
