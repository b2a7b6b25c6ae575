"""Sizes of the towers, read from a file's metadata or its shapes, never guessed.

Source: the published FaceCLIP checkpoint (arXiv 2504.14202). Constants of preprocessing live here too, beside the
model they belong to.
"""

import json
from dataclasses import asdict, dataclass, fields

from ..errors import CheckpointError, shown

ENCODER_SIZE = 112  # the encoder's own picture size in px; the published crops are four times that
FACE_PATCH = 9
FACE_GRID = ENCODER_SIZE // FACE_PATCH  # 12 x 12 patches, the last 4 px are cut
CONTEXT_LENGTH = 77
VOCABULARY = 49408


@dataclass(frozen=True)
class TextConfig:
    """A CLIP text tower. activation: "quick_gelu" or "gelu" (exact)."""

    width: int
    heads: int
    layers: int
    activation: str


@dataclass(frozen=True)
class FaceConfig:
    """The face recognition ViT. embed_dim: size of the identity embedding."""

    width: int
    heads: int
    layers: int
    embed_dim: int


@dataclass(frozen=True)
class FuserConfig:
    """The fuser; fusion and text layers use half its heads and half its feedforward width."""

    heads: int
    layers: int
    feedforward: int
    points: int


@dataclass(frozen=True)
class FaceCLIPConfig:
    """Both branches, their face encoder and their fuser."""

    l: TextConfig  # noqa: E741 - the branches are called l and g everywhere in the field
    g: TextConfig
    face: FaceConfig
    fuser: FuserConfig

    def to_json(self) -> str:
        """The text kept under `faceclip_config` in a safetensors header."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "FaceCLIPConfig":
        """Parse `faceclip_config`; raises CheckpointError naming the entry that is missing, unknown or out of range."""
        parts = {"l": TextConfig, "g": TextConfig, "face": FaceConfig, "fuser": FuserConfig}
        try:
            raw = json.loads(text)
            _check_entries("it", raw, parts)
            config = cls(**{name: _part(kind, name, raw[name]) for name, kind in parts.items()})
            _check_fuser(config)
        except (ValueError, RecursionError) as error:
            raise CheckpointError(
                f"The file's faceclip_config cannot be used: {error}. "
                "Make the file again with `python -m faceclip convert`."
            ) from error
        return config


def _check_entries(name: str, values: object, wanted) -> None:
    if not isinstance(values, dict):
        raise ValueError(f"{name} is {shown(repr(values))}, wanted the entries {', '.join(wanted)}")
    missing, unknown = [key for key in wanted if key not in values], [key for key in values if key not in wanted]
    if missing or unknown:
        found = [f"{words} {shown(', '.join(keys))}" for words, keys in (("no", missing), ("unknown", unknown)) if keys]
        raise ValueError(f"{name} has {' and '.join(found)}, wanted the entries {', '.join(wanted)}")


def _part(kind, name: str, values: object):
    _check_entries(name, values, [field.name for field in fields(kind)])
    for key, value in values.items():
        if key == "activation":
            if value not in ("quick_gelu", "gelu"):
                raise ValueError(f"{name}.activation is {shown(repr(value))}, wanted quick_gelu or gelu")
        elif not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 65536:
            raise ValueError(f"{name}.{key} is {shown(repr(value))}, wanted a whole number from 1 to 65536")
    part = kind(**values)
    if kind is not FuserConfig and part.width % part.heads:
        raise ValueError(f"{name}.width {part.width} cannot be split over {part.heads} heads")
    return part


def _check_fuser(config: FaceCLIPConfig) -> None:
    heads, feedforward = config.fuser.heads, config.fuser.feedforward
    if heads % 2:
        raise ValueError(f"fuser.heads is {heads}, wanted an even number (some layers use half of them)")
    if feedforward % heads:
        raise ValueError(f"fuser.feedforward {feedforward} cannot be split over {heads} heads")
    for name, text in (("l", config.l), ("g", config.g)):
        if text.width % heads:
            raise ValueError(f"{name}.width {text.width} cannot be split over the fuser's {heads} heads")


PUBLISHED = FaceCLIPConfig(
    l=TextConfig(width=768, heads=12, layers=12, activation="quick_gelu"),
    g=TextConfig(width=1280, heads=20, layers=32, activation="gelu"),
    face=FaceConfig(width=768, heads=8, layers=24, embed_dim=512),
    fuser=FuserConfig(heads=8, layers=6, feedforward=2048, points=4),
)
