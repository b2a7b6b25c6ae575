"""From a prompt to rows of 77 tokens: the identity prefix, `(word:1.2)` weights, and prompts that are too long.

The rule for long prompts, where they are continued: each row is start + prefix (with a face) + words + end + zeros.
Rows are filled in order and broken between words (a single word too long for a row is cut across rows). Each row
carries the prefix, so each carries the identity. A prompt that fits one row gives exactly the published ids.
"""

import re
from dataclasses import dataclass

from ..errors import InputError
from . import tokenizer
from .config import CONTEXT_LENGTH

LONG_PROMPT = ("continue", "cut")
MAX_WEIGHT = 10.0
# Where a prompt is refused. 64 rows are about 4700 tokens, or 22,000 characters of English. On the small model they
# take 66 MB; the 600 rows of a text of 200 KB took 503 MB and 10 s (2 CPU cores).
MAX_ROWS = 64
MAX_CHARACTERS = 50_000
MAX_WORD = 2_000  # the tokenizer takes time by the square of a word's length: 36 s for 20,000 letters
LITERAL = "For brackets that are no weight write \\( and \\)."
_LONG_WORD = re.compile(rf"[^\W\d_]{{{MAX_WORD + 1},}}")


@dataclass(frozen=True)
class TokenRow:
    """One row for the text tower: its ids (77 for CLIP, 512 for T5) and, as many, weights."""

    ids: tuple[int, ...]
    weights: tuple[float, ...]


def tokenize(prompt: str, has_face: bool, *, weighted: bool = False, long_prompt: str = "cut") -> list[TokenRow]:
    """Token rows of one prompt.

    has_face: put the identity prefix in front. weighted: read `(word:1.2)`; else brackets are ordinary text.
    long_prompt: "cut" keeps the first 77 tokens, the last set to the end token (published); "continue" adds rows.
    Raises InputError for a prompt that is not text or absurdly long, a weight out of range or an unknown `long_prompt`.
    """
    check_prompt(prompt, long_prompt)
    segments = parse_weights(prompt) if weighted else [(prompt, 1.0)]
    tokens = _encode_segments(segments, has_face)
    prefix = [(token, 1.0) for token in tokenizer.prefix_ids()] if has_face else []
    capacity = CONTEXT_LENGTH - 2 - len(prefix)
    if long_prompt == "cut" or len(tokens) <= capacity:
        return [_row(prefix + tokens[:capacity])]
    rows = _split(tokens, capacity)
    if len(rows) > MAX_ROWS:
        raise InputError(
            f"The prompt fills {len(rows)} chunks of 77 tokens; at most {MAX_ROWS} are read. Shorten it to about "
            f"{len(prompt) * MAX_ROWS // len(rows):,} characters."
        )
    return [_row(prefix + part) for part in rows]


def check_prompt(prompt: object, long_prompt: str) -> None:
    """Raise InputError for a prompt that is not text or too long to be one, or an unknown `long_prompt`.

    Too long are more than MAX_CHARACTERS, or a word of more than MAX_WORD letters.
    """
    if not isinstance(prompt, str):
        raise InputError(f"A prompt is {type(prompt).__name__} {prompt!r}, wanted text.")
    if len(prompt) > MAX_CHARACTERS:
        raise InputError(f"The prompt has {len(prompt):,} characters; at most {MAX_CHARACTERS:,} are read. Shorten it.")
    if word := _LONG_WORD.search(prompt):
        raise InputError(
            f"A word of the prompt has {len(word.group()):,} letters ({word.group()[:30]}...); at most {MAX_WORD:,} "
            "are read, and no word has so many. Take it out."
        )
    if long_prompt not in LONG_PROMPT:
        raise InputError(f"long_prompt is {long_prompt!r}, wanted one of {', '.join(LONG_PROMPT)}.")


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
    for piece, weight in _parse(text):
        piece = piece.replace("\\(", "(").replace("\\)", ")")
        if segments and segments[-1][1] == weight:
            segments[-1] = (segments[-1][0] + piece, weight)
        else:
            segments.append((piece, weight))
    return segments


def _parse(text: str) -> list[tuple[str, float]]:
    pairs, pieces = _pairs(text), []
    around = []  # for each open bracket: where its text ends, where it closes, the weight outside of it
    weight, start, i = 1.0, 0, 0
    while i < len(text):
        if around and i == around[-1][0]:
            pieces.append((text[start:i], weight))
            _, close, weight = around.pop()
            start = i = close + 1
        elif i in pairs:
            pieces.append((text[start:i], weight))
            end, inside = _inside(text, i, pairs[i], weight)
            around.append((end, pairs[i], weight))
            weight = inside
            start = i = i + 1
        else:
            i += 2 if _escaped(text, i) else 1
    pieces.append((text[start:], weight))
    return [piece for piece in pieces if piece[0]]


def _escaped(text: str, i: int) -> bool:
    return text[i : i + 2] in ("\\(", "\\)")


def _pairs(text: str) -> dict[int, int]:
    """Where each bracket that is closed opens and closes."""
    pairs, opened, i = {}, [], 0
    while i < len(text):
        if _escaped(text, i):
            i += 1
        elif text[i] == "(":
            opened.append(i)
        elif text[i] == ")" and opened:
            pairs[opened.pop()] = i
        i += 1
    return pairs


def _inside(text: str, start: int, close: int, around: float) -> tuple[int, float]:
    """Where the text between two brackets ends (its weight is not part of it), and its weight."""
    colon = text.rfind(":", start + 1, close)
    try:
        end, weight = (colon, float(text[colon + 1 : close])) if colon > start + 1 else (close, around * 1.1)
    except ValueError:
        end, weight = close, around * 1.1
    if not 0.0 <= weight <= MAX_WEIGHT:  # also refuses NaN
        shown = text[start : close + 1]
        shown = shown if len(shown) <= 60 else f"{shown[:30]} ... {shown[-25:]}"
        raise InputError(
            f"The prompt weight of {shown} is {weight:g}, wanted a number from 0 to {MAX_WEIGHT:g}. {LITERAL}"
        )
    return end, weight
