"""Sizes of the towers, read from a file's metadata or its shapes, never guessed.

Source: the published checkpoints (arXiv 2504.14202). Constants of preprocessing live here too, beside the models they
belong to.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from typing import Any

from ..errors import CheckpointError, shown

ENCODER_SIZE = 112  # the encoder's own picture size in px; the published crops are four times that
FACE_PATCH = 9
FACE_GRID = ENCODER_SIZE // FACE_PATCH  # 12 x 12 patches, the last 4 px are cut
CONTEXT_LENGTH = 77
VOCABULARY = 49408
T5_LENGTH = 512
T5_VOCABULARY = 32128  # ids of the tokenizer, rounded up as published


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
class FuserSizes:
    """A fuser; fusion and text layers use half its heads and half its feedforward width."""

    heads: int
    layers: int
    feedforward: int


@dataclass(frozen=True)
class FuserConfig(FuserSizes):
    """FaceCLIP's fuser. points: samples that a patch reads in the face layers' deformable attention."""

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
            _check_fuser(config.fuser, {"l.width": config.l.width, "g.width": config.g.width})
        except (ValueError, RecursionError) as error:
            raise _unusable(error) from error
        return config


@dataclass(frozen=True)
class T5Config:
    """A T5 v1.1 encoder, under the names that T5's own configs use. d_kv: width of a head; d_ff: of the gated layer."""

    d_model: int
    d_kv: int
    num_heads: int
    num_layers: int
    d_ff: int


@dataclass(frozen=True)
class FaceT5Config:
    """FaceT5's text tower, face encoder and fuser; the fuser's other sizes are the same in every file."""

    t5: T5Config
    face: FaceConfig
    fuser_layers: int

    @property
    def fuser(self) -> FuserSizes:
        return FuserSizes(heads=8, layers=self.fuser_layers, feedforward=2048)

    def to_json(self) -> str:
        """The text kept under `faceclip_config` in a safetensors header."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "FaceT5Config":
        """Parse `faceclip_config`; raises CheckpointError naming the entry that is missing, unknown or out of range."""
        try:
            raw = json.loads(text)
            _check_entries("it", raw, [field.name for field in fields(cls)])
            _check_size("fuser_layers", raw["fuser_layers"])
            config = cls(_part(T5Config, "t5", raw["t5"]), _part(FaceConfig, "face", raw["face"]), raw["fuser_layers"])
            _check_fuser(config.fuser, {"t5.d_model": config.t5.d_model})
        except (ValueError, RecursionError) as error:
            raise _unusable(error) from error
        return config


def _unusable(error: Exception) -> CheckpointError:
    return CheckpointError(
        f"The file's faceclip_config cannot be used: {error}. Make the file again with `python -m faceclip convert`."
    )


def _check_entries(name: str, values: object, wanted: Iterable[str]) -> None:
    if not isinstance(values, dict):
        raise ValueError(f"{name} is {shown(repr(values))}, wanted the entries {', '.join(wanted)}")
    missing, unknown = [key for key in wanted if key not in values], [key for key in values if key not in wanted]
    if missing or unknown:
        found = [f"{words} {shown(', '.join(keys))}" for words, keys in (("no", missing), ("unknown", unknown)) if keys]
        raise ValueError(f"{name} has {' and '.join(found)}, wanted the entries {', '.join(wanted)}")


def _check_size(name: str, value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 65536:
        raise ValueError(f"{name} is {shown(repr(value))}, wanted a whole number from 1 to 65536")


def _part(kind: Any, name: str, values: Any) -> Any:
    _check_entries(name, values, [field.name for field in fields(kind)])
    for key, value in values.items():
        if key == "activation":
            if value not in ("quick_gelu", "gelu"):
                raise ValueError(f"{name}.activation is {shown(repr(value))}, wanted quick_gelu or gelu")
        else:
            _check_size(f"{name}.{key}", value)
    part = kind(**values)
    if isinstance(part, TextConfig | FaceConfig) and part.width % part.heads:
        raise ValueError(f"{name}.width {part.width} cannot be split over {part.heads} heads")
    return part


def _check_fuser(fuser: FuserSizes, text_widths: dict[str, int]) -> None:
    if fuser.heads % 2:
        raise ValueError(f"fuser.heads is {fuser.heads}, wanted an even number (some layers use half of them)")
    if fuser.feedforward % fuser.heads:
        raise ValueError(f"fuser.feedforward {fuser.feedforward} cannot be split over {fuser.heads} heads")
    for name, width in text_widths.items():
        if width % fuser.heads:
            raise ValueError(f"{name} {width} cannot be split over the fuser's {fuser.heads} heads")


PUBLISHED = FaceCLIPConfig(
    l=TextConfig(width=768, heads=12, layers=12, activation="quick_gelu"),
    g=TextConfig(width=1280, heads=20, layers=32, activation="gelu"),
    face=FaceConfig(width=768, heads=8, layers=24, embed_dim=512),
    fuser=FuserConfig(heads=8, layers=6, feedforward=2048, points=4),
)

PUBLISHED_T5 = FaceT5Config(
    t5=T5Config(d_model=4096, d_kv=64, num_heads=64, num_layers=24, d_ff=10240),
    face=FaceConfig(width=768, heads=8, layers=24, embed_dim=512),
    fuser_layers=6,
)
