"""From a prompt to FaceT5's tokens: 512 for the T5 tower, and 77 for CLIP-L, which sees the same text.

The prompt is read as it is: no prefix, no `id` token. A prompt is one row; what is beyond it is cut, as published.
"""

import gzip
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import DependencyError, InputError
from . import tokenizer
from .config import CONTEXT_LENGTH, T5_LENGTH
from .prompt import TokenRow, check_prompt, parse_weights

if TYPE_CHECKING:
    from tokenizers import Tokenizer

VOCABULARY_FILE = Path(__file__).with_name("t5_tokenizer.json.gz")
END, PAD = 1, 0


@dataclass(frozen=True)
class T5Row(TokenRow):
    """clip_ids: the same prompt's 77 tokens for CLIP-L."""

    clip_ids: tuple[int, ...]


@cache
def _tokenizer() -> "Tokenizer":
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise DependencyError(
            f"FaceT5's tokenizer cannot be loaded ({error}). Install it with `python -m pip install tokenizers`."
        ) from error
    return Tokenizer.from_str(gzip.decompress(VOCABULARY_FILE.read_bytes()).decode("utf-8"))


def tokenize(prompt: str, has_face: bool = False, *, weighted: bool = False, long_prompt: str = "cut") -> list[T5Row]:
    """The one row of a prompt. has_face: the text is the same with and without one.

    weighted: read `(word:1.2)`; else brackets are ordinary text. A token has the weight of the first character in it
    that is no space, so the tokens are those of the text without its brackets. long_prompt: "cut" (published) leaves
    out what is beyond 512 tokens; "continue" refuses such a prompt, for there is nothing to continue in. Raises
    InputError.
    """
    check_prompt(prompt, long_prompt)
    segments = parse_weights(prompt) if weighted else [(prompt, 1.0)]
    text = "".join(part for part, _ in segments)
    tokens = _encode(text, [weight for part, weight in segments for _ in part])
    if long_prompt != "cut" and len(tokens) >= T5_LENGTH:
        raise InputError(
            f"The prompt has {len(tokens) + 1} tokens, and FaceT5 reads {T5_LENGTH}: it cannot be continued in further "
            'rows. Shorten it, or leave out what is beyond with long_prompt="cut".'
        )
    tokens = tokens[: T5_LENGTH - 1]
    pad = T5_LENGTH - 1 - len(tokens)
    ids = (*(token for token, _ in tokens), END, *[PAD] * pad)
    return [T5Row(ids, (*(weight for _, weight in tokens), 1.0, *[1.0] * pad), clip_ids(text))]


def _encode(text: str, weights: list[float]) -> list[tuple[int, float]]:
    """(id, weight) of a text, from the weights of its characters."""
    encoded = _tokenizer().encode(text, add_special_tokens=False)
    tokens = []
    for token, (start, end) in zip(encoded.ids, encoded.offsets, strict=True):
        part = text[start:end]
        begin = start + len(part) - len(part.lstrip()) if part.strip() else start
        tokens.append((token, weights[begin] if begin < len(weights) else 1.0))
    return tokens


def clip_ids(text: str) -> tuple[int, ...]:
    """CLIP-L's 77 tokens; a longer text is cut."""
    ids = tokenizer.encode_plain(text)[: CONTEXT_LENGTH - 2]
    row = [tokenizer.START, *ids, tokenizer.END]
    return (*row, *[tokenizer.END] * (CONTEXT_LENGTH - len(row)))
