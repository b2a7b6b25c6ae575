"""From a prompt to rows of 77 tokens: the identity prefix, `(word:1.2)` weights, and prompts that are too long.

The rule for long prompts, where they are continued: each row is start + prefix (with a face) + words + end + zeros.
Rows are filled in order and broken between words (a single word too long for a row is cut across rows). Each row
carries the prefix, so each carries the identity. A prompt that fits one row gives exactly the published ids.
"""

from dataclasses import dataclass

from . import tokenizer
from .config import CONTEXT_LENGTH
from .errors import InputError

LONG_PROMPT = ("continue", "cut")
MAX_WEIGHT = 10.0


@dataclass(frozen=True)
class TokenRow:
    """One row for the text tower: 77 ids and, as many, weights."""

    ids: tuple[int, ...]
    weights: tuple[float, ...]


def tokenize(prompt: str, has_face: bool, *, weighted: bool = False, long_prompt: str = "cut") -> list[TokenRow]:
    """Token rows of one prompt.

    has_face: put the identity prefix in front. weighted: read `(word:1.2)`; else brackets are ordinary text.
    long_prompt: "cut" keeps the first 77 tokens, the last set to the end token (published); "continue" adds rows.
    Raises InputError for a prompt that is not text, a weight out of range or an unknown `long_prompt`.
    """
    if not isinstance(prompt, str):
        raise InputError(f"A prompt is {type(prompt).__name__} {prompt!r}, wanted text.")
    if long_prompt not in LONG_PROMPT:
        raise InputError(f"long_prompt is {long_prompt!r}, wanted one of {', '.join(LONG_PROMPT)}.")
    segments = parse_weights(prompt) if weighted else [(prompt, 1.0)]
    tokens = _encode_segments(segments, has_face)
    prefix = [(token, 1.0) for token in tokenizer.prefix_ids()] if has_face else []
    capacity = CONTEXT_LENGTH - 2 - len(prefix)
    if long_prompt == "cut" or len(tokens) <= capacity:
        return [_row(prefix + tokens[:capacity])]
    return [_row(prefix + part) for part in _split(tokens, capacity)]


def _encode_segments(segments: list[tuple[str, float]], has_face: bool) -> list[tuple[int, float]]:
    """(id, weight) of all segments, without the prefix.

    The first segment is encoded together with the prefix, as published: cleaning looks at the text as a whole.
    """
    tokens: list[tuple[int, float]] = []
    skip = len(tokenizer.prefix_ids()) if has_face else 0
    for i, (text, weight) in enumerate(segments or [("", 1.0)]):
        first = has_face and i == 0
        ids = tokenizer.encode((tokenizer.PREFIX if first else "") + text)[skip if first else 0 :]
        tokens += [(token, weight) for token in ids]
    return tokens


def _split(tokens: list[tuple[int, float]], capacity: int) -> list[list[tuple[int, float]]]:
    rows, row, word = [], [], []
    for token in tokens:
        word.append(token)
        if not tokenizer.ends_word(token[0]) and len(word) < capacity:
            continue
        if len(row) + len(word) > capacity:
            rows.append(row)
            row = []
        row, word = row + word, []
    row += word
    return [r for r in [*rows, row] if r]


def _row(tokens: list[tuple[int, float]]) -> TokenRow:
    pad = CONTEXT_LENGTH - 2 - len(tokens)
    ids = [tokenizer.START, *(token for token, _ in tokens), tokenizer.END] + [tokenizer.PAD] * pad
    weights = [1.0, *(weight for _, weight in tokens), 1.0] + [1.0] * pad
    return TokenRow(tuple(ids), tuple(weights))


def parse_weights(text: str) -> list[tuple[str, float]]:
    """Split `a (red:1.2) coat` into [("a ", 1.0), ("red", 1.2), (" coat", 1.0)], with ComfyUI's rules.

    `(x)` multiplies the weight around it by 1.1, `(x:1.2)` sets it to 1.2 whatever is around it, `\\(` and `\\)` are
    literal. An unpaired bracket is ordinary text (there ComfyUI's own parser does something else).
    Neighbours of equal weight are joined, so `(word:1.0)` is the same text as `word`. Raises InputError for a weight
    outside 0 to 10.
    """
    segments: list[tuple[str, float]] = []
    for piece, weight in _parse(text, 1.0):
        piece = piece.replace("\\(", "(").replace("\\)", ")")
        if segments and segments[-1][1] == weight:
            segments[-1] = (segments[-1][0] + piece, weight)
        else:
            segments.append((piece, weight))
    return segments


def _parse(text: str, weight: float) -> list[tuple[str, float]]:
    pieces, plain, i = [], 0, 0
    while i < len(text):
        if _escaped(text, i):
            i += 2
            continue
        end = _closing(text, i) if text[i] == "(" else None
        if end is None:
            i += 1
            continue
        pieces.append((text[plain:i], weight))
        pieces += _parse(*_inner(text[i + 1 : end], weight))
        plain = i = end + 1
    pieces.append((text[plain:], weight))
    return [piece for piece in pieces if piece[0]]


def _escaped(text: str, i: int) -> bool:
    return text[i : i + 2] in ("\\(", "\\)")


def _closing(text: str, start: int) -> int | None:
    """Position of the bracket that closes the one at `start`, or None."""
    depth, i = 0, start
    while i < len(text):
        if _escaped(text, i):
            i += 1
        elif text[i] == "(":
            depth += 1
        elif text[i] == ")":
            depth -= 1
            if depth == 0:
                return i
        i += 1
    return None


def _inner(inner: str, around: float) -> tuple[str, float]:
    """The text between two brackets, without its weight, and its weight."""
    head, _, tail = inner.rpartition(":")
    try:
        text, weight = (head, float(tail)) if head else (inner, around * 1.1)
    except ValueError:
        text, weight = inner, around * 1.1
    if not 0.0 <= weight <= MAX_WEIGHT:  # also refuses NaN
        raise InputError(f"The prompt weight of ({inner}) is {weight:g}, wanted a number from 0 to {MAX_WEIGHT:g}.")
    return text, weight
