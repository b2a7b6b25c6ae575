"""Prompt text to token ids: one tokenizer for the library, the nodes and training, with no network.

The ids are those of open_clip's SimpleTokenizer, the published one. The words are found by its expression and the
pairs are merged by Hugging Face's tokenizers, from CLIP's own list: open_clip itself takes seconds to import.
"""

import gzip
import html
import unicodedata
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import DependencyError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

MERGES_FILE = Path(__file__).with_name("clip_merges.txt.gz")
START, END, PAD = 49406, 49407, 0
PREFIX = "Photo of a id person. "
_SPECIAL = ("<start_of_text>", "<end_of_text>")
_WORD = "|".join([*_SPECIAL, r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"])


@cache
def _tokenizer() -> "Tokenizer":
    """Byte pairs within words, which come one by one."""
    try:
        from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
    except ImportError as error:
        raise _missing("tokenizers", error) from error
    merges = [line.split() for line in gzip.decompress(MERGES_FILE.read_bytes()).decode("utf-8").splitlines()]
    letters = _byte_letters()
    names = [*letters, *(letter + "</w>" for letter in letters), *("".join(pair) for pair in merges), *_SPECIAL]
    vocabulary = {name: number for number, name in enumerate(names)}
    pairs = [(first, second) for first, second in merges]
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=pairs, end_of_word_suffix="</w>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.add_special_tokens([AddedToken(name, normalized=False) for name in _SPECIAL])
    return tokenizer


def _byte_letters() -> list[str]:
    """The character that stands for each byte, in the vocabulary's order: printable bytes stand for themselves."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    return [chr(byte) for byte in plain] + [chr(256 + number) for number in range(256 - len(plain))]


@cache
def _word_pattern():
    try:
        import regex
    except ImportError as error:
        raise _missing("regex", error) from error
    return regex.compile(_WORD, regex.IGNORECASE)


def _fix_text(text: str) -> str:
    try:
        import ftfy
    except ImportError as error:
        raise _missing("ftfy", error) from error
    return ftfy.fix_text(text)


def _missing(package: str, error: ImportError) -> DependencyError:
    return DependencyError(
        f"The tokenizer cannot be loaded ({error}). Install it with `python -m pip install {package}`."
    )


def _ids(text: str) -> list[int]:
    words = _word_pattern().findall(" ".join(text.split()).lower())
    return _tokenizer().encode(words, is_pretokenized=True, add_special_tokens=False).ids


def encode(text: str) -> list[int]:
    """Cleaned text (ftfy, HTML unescape twice, white space, lower case) as byte-pair ids, without start and end."""
    return _ids(html.unescape(html.unescape(_fix_text(text))))


def encode_plain(text: str) -> list[int]:
    """The ids that FLUX's own CLIP-L reads: cleaned by NFC, white space and lower case only, without start and end."""
    return _ids(unicodedata.normalize("NFC", text))


@cache
def ends_word(token: int) -> bool:
    """True where a token is the last of its word."""
    name = _tokenizer().id_to_token(token)
    return (name is not None and name.endswith("</w>")) or token in (START, END)


@cache
def prefix_ids() -> tuple[int, ...]:
    """The ids of "Photo of a id person."."""
    return tuple(encode(PREFIX))


@cache
def identity_offset() -> int:
    """Where in the prefix the token `id` stands (0-based)."""
    return prefix_ids().index(encode("id")[0])
