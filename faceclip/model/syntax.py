"""Words that do something in other programs' prompts, and nothing here: what to tell who writes them.

A prompt is read as plain words with `(word:1.2)` weights (see `faceclip.model.prompt`). Nothing is changed here.
"""

import re

from .prompt import LITERAL, parse_weights

_EMBEDDING = re.compile(r"\bembedding:\s*[\w./\\-]+", re.IGNORECASE)
# What it looks like, and what is said about it. Order is that of the notices.
_ELSEWHERE = (
    (
        _EMBEDDING,
        "is read as plain words. Textual inversion cannot work here: its vectors were made for SDXL's own text towers, "
        "and FaceCLIP's were trained anew. Take it out, or say in words what it stands for.",
    ),
    (
        re.compile(r"<\s*[a-z]\w*\s*:[^<>]*>", re.IGNORECASE),
        "is read as plain words. A LoRA is loaded by a node: LoraLoaderModelOnly, behind Load FaceCLIP Diffusion "
        "Model.",
    ),
    (
        re.compile(r"\{[^{}]*\|[^{}]*\}"),
        "is read as plain words. ComfyUI's page chooses one of such words before it sends a prompt; a program that "
        "sends one must choose by itself.",
    ),
    (re.compile(r"__[\w./*-]+__"), "is read as plain words: no wildcard file is looked up."),
    (
        re.compile(r"\bBREAK\b"),
        "is an ordinary word here. A long prompt is broken between words; Conditioning (Concat) joins two prompts.",
    ),
    (re.compile(r"\bAND\b"), "is an ordinary word here. Conditioning (Combine) joins two prompts."),
    (
        re.compile(r"\bADD(?:BASE|COMM|COL|ROW|P)\b|\b(?:COUPLE|FILL|I?MASK|AREA|FEATHER|STYLE|SHUFFLE|AVG|CAT)\s*\("),
        "is read as plain words. Regions are set by nodes: Add Person, or Conditioning (Set Mask).",
    ),
    (
        re.compile(r"(?<!\\)\[[^\[\]]+\]"),
        "is read as plain words: it neither weakens nor changes in the course of the sampling. (word:0.9) weakens.",
    ),
    (
        re.compile(r"\)(?:\d+(?:\.\d+)?|[+-]{1,8})(?![\w)])"),
        "is read as plain words. A weight stands inside of the brackets, behind a colon: (word:1.2).",
    ),
    (
        re.compile(r"(?<![\w-])--[a-z]{2,}\b[^-]{0,12}|\w::-?\d+(?:\.\d+)?"),
        "is read as plain words: settings of a picture stand in the nodes.",
    ),
)
_LONGEST_SHOWN = 40
_MOST_SHOWN = 3


def embeddings(text: str) -> list[str]:
    """The textual inversions that a prompt asks for, as they are written in it."""
    return _EMBEDDING.findall(text)


def notices(text: str) -> list[str]:
    """One sentence for each kind of foreign syntax in a prompt; empty for a plain one."""
    found = []
    shouted = text == text.upper()  # all is in capitals, and so is an ordinary "and"
    for pattern, told in _ELSEWHERE:
        seen = list(dict.fromkeys(match.group().strip() for match in pattern.finditer(text)))
        if seen and not (shouted and seen[0].isalpha()):
            shown = ", ".join(_short(one) for one in seen[:_MOST_SHOWN])
            found.append(f"{shown}{' and more' if len(seen) > _MOST_SHOWN else ''} {told}")
    return found


def weights(text: str) -> list[str]:
    """What brackets do in a prompt: the words that got a weight, and advice where brackets may be meant as such."""
    weighed = [(piece.strip(), weight) for piece, weight in parse_weights(text) if weight != 1.0 and piece.strip()]
    plain = re.sub(r"\\[()]", "", text)
    lines = []
    if weighed:
        shown = ", ".join(f"{_short(piece)} {weight:g}" for piece, weight in weighed[:_MOST_SHOWN])
        more = f" and {len(weighed) - _MOST_SHOWN} more" if len(weighed) > _MOST_SHOWN else ""
        without_number = re.search(r"\([^():]*\)", plain)
        number_on_both_sides = re.search(r"\d:\d+(?:\.\d+)?\)", plain)
        advice = f" {LITERAL}" if without_number or number_on_both_sides else ""
        lines.append(f"Weighed: {shown}{more}.{advice}")
    if plain.count("(") != plain.count(")"):
        lines.append(f"A bracket without a partner is an ordinary sign. {LITERAL}")
    return lines


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST_SHOWN else f"{text[: _LONGEST_SHOWN - 3]}..."
