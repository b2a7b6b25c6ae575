"""FaceCLIP's and FaceT5's tokens in the form that the host's CLIP nodes pass on, and back.

The host's tokens are rows of (id, weight) for each text encoder. Other nodes may weigh, join and pad rows; ids and
order come from our own tokenizers, and the identity's place is checked.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..faceclip.errors import InputError
from ..faceclip.model import tokenizer
from ..faceclip.model.config import CONTEXT_LENGTH, T5_LENGTH, FaceCLIPConfig, FaceT5Config
from ..faceclip.model.encoder import JointConditioning
from ..faceclip.model.prompt import TokenRow
from ..faceclip.model.t5_prompt import T5Row

Tokens = dict[str, list[list[tuple[Any, ...]]]]
EncodeRows = Callable[[Sequence[TokenRow]], JointConditioning]
_CLIP_PARTS = ("mlp.fc1", "mlp.fc2", "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj")
_T5_PARTS = (
    *(f"0.SelfAttention.{part}" for part in "qkvo"),
    *(f"1.DenseReluDense.{part}" for part in ("wi_0", "wi_1", "wo")),
)


@dataclass(frozen=True)
class TokenForm:
    """One family's tokens.

    to_host: its rows as the host's tokens, on demand with the number of each word (0 for what is no word). encode: the
    host's tokens, whether there is a face, the encoder's config, and what encodes rows, to a conditioning; raises
    InputError for tokens that are not this family's. lora_weights: the host's names of the weights of the text encoders
    that users of this diffusion model have LoRAs for. padded: text encoders that read several rows one after another.
    """

    to_host: Callable[[Sequence[Any], bool], Tokens]
    encode: Callable[[Tokens, bool, FaceCLIPConfig | FaceT5Config, EncodeRows], JointConditioning]
    lora_weights: tuple[str, ...]
    padded: tuple[str, ...]


def _pairs(row: TokenRow, with_words: bool) -> list[tuple[Any, ...]]:
    pairs = list(zip(row.ids, row.weights, strict=True))
    if not with_words:
        return pairs
    numbered, word = [], 1
    for token, weight in pairs:
        special = token in (tokenizer.START, tokenizer.END, tokenizer.PAD)
        numbered.append((token, weight, 0 if special else word))
        word += not special and tokenizer.ends_word(token)
    return numbered


def _rows(tokens: Tokens, name: str, length: int) -> list[TokenRow]:
    """Rows of one text encoder. Raises InputError where they are none of ours."""
    rows = tokens.get(name) if isinstance(tokens, dict) else None
    if not rows or any(len(row) != length for row in rows):
        seen = sorted(tokens) if isinstance(tokens, dict) else type(tokens).__name__
        raise InputError(
            f"The tokens are {seen}, wanted rows of {length} for {name!r}. Encode text with the same CLIP that made "
            "its tokens: the tokens of another model mean something else here."
        )
    if any(not isinstance(token[0], int) for row in rows for token in row):
        raise InputError(
            "Among the tokens are vectors, as of a textual inversion. They were made for other text towers than "
            "FaceCLIP's. Take them out of the prompt."
        )
    return [TokenRow(tuple(t[0] for t in row), tuple(float(t[1]) for t in row)) for row in rows]


def _faceclip_to_host(rows: Sequence[TokenRow], with_words: bool) -> Tokens:
    return {name: [_pairs(row, with_words) for row in rows] for name in ("g", "l")}


def _encode_faceclip(tokens: Tokens, has_face: bool, config: Any, encode: EncodeRows) -> JointConditioning:
    """Different text for l and g is read by one branch each, as SDXL's own encoders do."""
    parts = {name: _rows(tokens, name, CONTEXT_LENGTH) for name in ("g", "l")}
    prefix = tokenizer.prefix_ids()
    if has_face and any(row.ids[1 : 1 + len(prefix)] != prefix for rows in parts.values() for row in rows):
        raise InputError(
            "A chunk of the tokens does not begin with 'Photo of a id person.', where the identity stands: another "
            "node cut or moved the tokens. Use a node that leaves chunks whole, or no identity."
        )
    if len(parts["g"]) != len(parts["l"]):
        raise InputError(
            f"There are {len(parts['g'])} chunks of tokens for g and {len(parts['l'])} for l, wanted as many. Make "
            "the shorter text longer, or use one text for both."
        )
    joint = encode(parts["g"])
    if parts["g"] == parts["l"]:
        return joint
    width = config.l.width
    first = encode(parts["l"]).embeddings[..., :width]
    return JointConditioning(torch.cat([first, joint.embeddings[..., width:]], dim=-1), joint.pooled)


def _facet5_to_host(rows: Sequence[T5Row], with_words: bool) -> Tokens:
    clip = [TokenRow(row.clip_ids, (1.0,) * len(row.clip_ids)) for row in rows]
    numbers = [[(*pair, i) for i, pair in enumerate(_pairs(row, False))] for row in rows]
    t5 = numbers if with_words else [_pairs(row, False) for row in rows]
    return {"l": [_pairs(row, with_words) for row in clip], "t5xxl": t5}


def _encode_facet5(tokens: Tokens, has_face: bool, config: Any, encode: EncodeRows) -> JointConditioning:
    t5, clip = _rows(tokens, "t5xxl", T5_LENGTH), _rows(tokens, "l", CONTEXT_LENGTH)
    if len(t5) != 1 or len(clip) != 1:
        raise InputError(
            f"There are {len(t5)} rows of tokens for T5 and {len(clip)} for CLIP-L; FaceT5 reads one of each. Join "
            "the texts before they are encoded."
        )
    return encode([T5Row(t5[0].ids, t5[0].weights, clip[0].ids)])


def _clip_weights(name: str, layers: int) -> list[str]:
    below = f"{name}.transformer.text_model.encoder.layers"
    return [f"{below}.{i}.{part}.weight" for i in range(layers) for part in _CLIP_PARTS] + [
        f"{name}.transformer.text_projection.weight"
    ]


_L, _G = _clip_weights("clip_l", 12), _clip_weights("clip_g", 32)
_T5 = [f"t5xxl.transformer.encoder.block.{i}.layer.{part}.weight" for i in range(24) for part in _T5_PARTS]
FORMS = {
    FaceCLIPConfig: TokenForm(_faceclip_to_host, _encode_faceclip, (*_L, *_G), ("g", "l")),
    FaceT5Config: TokenForm(_facet5_to_host, _encode_facet5, (*_L, *_T5), ()),
}
