"""The families of encoders as files: how their weights are named, how large the published ones are, and what they may
be stored in. One object each; the checkpoint pipeline knows nothing else of them.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from ..files.state_dict import State
from .config import PUBLISHED, PUBLISHED_T5, T5_VOCABULARY, FaceCLIPConfig, FaceT5Config, TextConfig
from .encoder import JointEncoder
from .faceclip import BRANCHES, FaceCLIP
from .facet5 import FaceT5

Config = FaceCLIPConfig | FaceT5Config


@dataclass(frozen=True)
class Family:
    """name, published_file: for messages. model, config: its classes; published: the config of the published file.

    owns: whether a key is one of this family's and of no other. rename: the name by which a published key, whatever
    its prefixes, stands in our own files; None for one that is passed over. variant: what the model takes beside its
    config, read off the renamed keys; describe: the same in words. thin: config and variant of a model with one layer
    in each tower; stacks: what stands before a layer's number, as a pattern, and how many there are. probes: keys by
    whose shapes, of a config, a file without one is known as the published.
    refused: what weights cannot be stored in, and why. narrow: whose matrices take an 8-bit dtype; all the rest then
    has bf16. dtype: what `convert` writes where nothing is said, None for what the file has.
    prompt_memory: bytes that a prompt takes on its way, about.
    """

    name: str
    published_file: str
    model: Callable[..., JointEncoder]
    config: type[FaceCLIPConfig] | type[FaceT5Config]
    published: Config
    owns: Callable[[str], bool]
    rename: Callable[[str], str | None]
    variant: Callable[[State], Any]
    describe: Callable[[Any], str]
    thin: Callable[[Any, Any], tuple[Config, Any]]
    stacks: Callable[[Any, Any], list[tuple[str, int]]]
    probes: Callable[[Any], dict[str, tuple[int, ...]]]
    refused: Mapping[torch.dtype, str]
    prompt_memory: int
    narrow: Callable[[str], bool] = lambda key: False
    dtype: torch.dtype | None = None


# The published file may carry `model.` in front of, or right after, the branch name; trainers add `module.`.
_BRANCH = re.compile(rf"^(?:module\.|model\.)*(?:({'|'.join(BRANCHES)})\.(?:module\.|model\.)*|(face_encoder)\.)")
_PART = re.compile(r"^(?:module\.|model\.)*(?:encoder_2\.(?:module\.|model\.)*|(encoder_1\.)(?:module\.|model\.)*)?")
_CLIP = "encoder_1.text_model."
_CLIP_HEAD = 64  # width of a head in every CLIP text model
PUBLISHED_CLIP = TextConfig(width=768, heads=12, layers=12, activation="quick_gelu")
_NARROW = re.compile(r"^(t5_encoder\.block|fuser\.encoder)\.(?!.*relative_attention_bias)")


def family_of(state: State) -> Family | None:
    """Whose keys these are, whole or not and whatever prefix they carry; None where they are nobody's."""
    return next((family for family in FAMILIES if any(family.owns(key) for key in state)), None)


def family_of_config(config: Config) -> Family:
    return next(family for family in FAMILIES if isinstance(config, family.config))


def has_shared_face_encoder(state: State) -> bool:
    return any(key.startswith("face_encoder.") for key in state)


def _owned_by_branch(key: str) -> bool:
    match = _BRANCH.match(key)
    return bool(match and match[1])


def _rename_t5(key: str) -> str | None:
    return None if key.endswith(".position_ids") else _PART.sub(lambda match: match[1] or "", key)


def _thin_faceclip(config: FaceCLIPConfig, shared: bool) -> tuple[FaceCLIPConfig, bool]:
    thin = FaceCLIPConfig(
        l=replace(config.l, layers=1),
        g=replace(config.g, layers=1),
        face=replace(config.face, layers=1),
        fuser=replace(config.fuser, layers=1),
    )
    return thin, shared


def _thin_facet5(config: FaceT5Config, clip: TextConfig | None) -> tuple[FaceT5Config, TextConfig | None]:
    thin = FaceT5Config(replace(config.t5, num_layers=1), replace(config.face, layers=1), fuser_layers=1)
    return thin, replace(clip, layers=1) if clip else None


def _clip_sizes(state: State) -> TextConfig | None:
    """CLIP-L's sizes, read off its weights; None where there is none."""
    table = state.get(f"{_CLIP}embeddings.token_embedding.weight")
    if table is None:
        return None
    layers = {key[len(_CLIP) :].split(".")[2] for key in state if key.startswith(f"{_CLIP}encoder.layers.")}
    width = (table.shape[-1] if table.ndim == 2 else 0) or _CLIP_HEAD  # what is no table is found by its shape
    return TextConfig(width, max(width // _CLIP_HEAD, 1), len(layers), "quick_gelu")


FACECLIP = Family(
    name="FaceCLIP encoder",
    published_file="face_clip_encoder.pt",
    model=FaceCLIP,
    config=FaceCLIPConfig,
    published=PUBLISHED,
    owns=_owned_by_branch,
    rename=lambda key: _BRANCH.sub(lambda match: f"{match[1] or match[2]}.", key),
    variant=has_shared_face_encoder,
    describe=lambda shared: (
        "the face encoders of both branches are equal and are kept once"
        if shared
        else "the branches have different face encoders, both are kept"
    ),
    thin=_thin_faceclip,
    stacks=lambda config, _: [
        (r"face_clip_l\.transformer\.resblocks\.", config.l.layers),
        (r"face_clip_g\.transformer\.resblocks\.", config.g.layers),
        (r"(face_clip_[lg]\.)?face_encoder\.blocks\.", config.face.layers),
        (r"face_clip_[lg]\.fuser\.encoder\.\w*layers\.", config.fuser.layers),
    ],
    probes=lambda config: {
        "face_clip_l.positional_embedding": (77, config.l.width),
        "face_clip_g.positional_embedding": (77, config.g.width),
    },
    refused={torch.float8_e4m3fn: "it was measured in bf16 and fp16 only, and takes 2.6 GB there"},
    prompt_memory=4 * 48 * 2**20,  # a prompt may be continued in further rows
)
FACET5 = Family(
    name="FaceT5 encoder",
    published_file="face_t5_encoder.pt",
    model=FaceT5,
    config=FaceT5Config,
    published=PUBLISHED_T5,
    owns=lambda key: (_rename_t5(key) or "").startswith("t5_encoder."),
    rename=_rename_t5,
    variant=_clip_sizes,
    describe=lambda clip: "CLIP-L is in it" if clip else "it has no CLIP-L, so it gives FLUX no pooled vector",
    thin=_thin_facet5,
    stacks=lambda config, clip: [
        (r"t5_encoder\.block\.(?!.*\.pe_encoding\.)", config.t5.num_layers),  # all use the first block's
        (r"face_encoder\.blocks\.", config.face.layers),
        (r"fuser\.encoder\.\w*layers\.", config.fuser_layers),
        (r"encoder_1\.text_model\.encoder\.layers\.", clip.layers if clip else 0),
    ],
    probes=lambda config: {
        "t5_encoder.embed_tokens.weight": (T5_VOCABULARY, config.t5.d_model),
        "face_encoder.pos_embed": (1, 144, config.face.width),
    },
    refused={torch.float16: "T5's numbers go beyond fp16's largest, 65504, and become infinite"},
    prompt_memory=256 * 2**20,
    narrow=lambda key: bool(_NARROW.match(key)),
    dtype=torch.bfloat16,
)
FAMILIES = (FACECLIP, FACET5)
