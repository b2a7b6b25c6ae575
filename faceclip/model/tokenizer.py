"""Prompt text to token ids: one tokenizer for the library, the nodes and training, with no network.

open_clip's SimpleTokenizer is the published one, and its package carries the vocabulary. It is imported at the first
prompt, not with the library.
"""

import copy
import unicodedata
from functools import cache

from ..errors import DependencyError

START, END, PAD = 49406, 49407, 0
PREFIX = "Photo of a id person. "


@cache
def _tokenizer():
    try:
        from open_clip.tokenizer import SimpleTokenizer
    except ImportError as error:
        raise DependencyError(
            f"The tokenizer cannot be loaded ({error}). Install it with `python -m pip install open_clip_torch`."
        ) from error
    return SimpleTokenizer()


def encode(text: str) -> list[int]:
    """Cleaned text (ftfy, HTML unescape twice, white space, lower case) as byte-pair ids, without start and end."""
    return _tokenizer().encode(text)


@cache
def _plain_tokenizer():
    plain = copy.copy(_tokenizer())  # shares the vocabulary
    plain.clean_fn = lambda text: " ".join(unicodedata.normalize("NFC", text).split()).lower()
    return plain


def encode_plain(text: str) -> list[int]:
    """The ids that FLUX's own CLIP-L reads: cleaned by NFC, white space and lower case only, without start and end."""
    return _plain_tokenizer().encode(text)


def ends_word(token: int) -> bool:
    """True where a token is the last of its word."""
    return _tokenizer().decoder[token].endswith("</w>") or token in (START, END)


@cache
def prefix_ids() -> tuple[int, ...]:
    """The ids of "Photo of a id person."."""
    return tuple(encode(PREFIX))


@cache
def identity_offset() -> int:
    """Where in the prefix the token `id` stands (0-based)."""
    return prefix_ids().index(encode("id")[0])
