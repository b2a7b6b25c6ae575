"""Sizes of a FLUX-shaped transformer, under diffusers' names, and the exact key set that follows from them.

Source: the layout of diffusers' `FluxTransformer2DModel`.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields

from ..errors import CheckpointError, shown

METADATA_KEY = "transformer_config"
IN_CHANNELS = 64  # 16 channels of the latent in tokens of 2 x 2 cells; the host knows no other
TIME_EMBED_WIDTH = 256
MLP_RATIO = 4

# What makes a transformer FLUX.1-dev-shaped. Entries diffusers would fill with something else must be present.
_REQUIRED = {"guidance_embeds": True, "in_channels": IN_CHANNELS}
_IF_PRESENT = {"patch_size": (1,), "out_channels": (None, IN_CHANNELS)}


@dataclass(frozen=True)
class FluxConfig:
    """Sizes of a FLUX-shaped transformer. axes_dims_rope: how the positions share a head's width."""

    num_layers: int
    num_single_layers: int
    attention_head_dim: int
    num_attention_heads: int
    joint_attention_dim: int
    pooled_projection_dim: int
    axes_dims_rope: tuple[int, int, int]

    @property
    def width(self) -> int:
        return self.num_attention_heads * self.attention_head_dim

    def to_json(self) -> str:
        """The text kept under `transformer_config`; `FluxTransformer2DModel.from_config` takes it as it is."""
        return json.dumps({**asdict(self), **_REQUIRED})

    @classmethod
    def from_json(cls, text: str) -> "FluxConfig":
        """Parse a diffusers FLUX config.

        Raises CheckpointError naming the entry that is missing, or that makes it something else than FLUX-shaped.
        """
        try:
            raw = json.loads(text)
            if not isinstance(raw, dict):
                raise ValueError("it is no JSON object")
            return _parse(raw)
        except (ValueError, TypeError, RecursionError) as error:
            raise CheckpointError(
                f"The transformer file's {METADATA_KEY} cannot be used: {error}. Save the file again with the config "
                "of a FLUX-shaped FluxTransformer2DModel."
            ) from error


def _parse(raw: dict[str, object]) -> FluxConfig:
    for key, wanted in _REQUIRED.items():
        if raw.get(key) != wanted:
            raise ValueError(f"{key} is {shown(repr(raw.get(key)))}, wanted {wanted!r}")
    for key, allowed in _IF_PRESENT.items():
        if key in raw and raw[key] not in allowed:
            raise ValueError(f"{key} is {shown(repr(raw[key]))}, wanted {allowed[0]!r}")
    axes = raw.get("axes_dims_rope")
    if not isinstance(axes, list) or len(axes) != 3 or any(not _is_size(axis) or axis % 2 for axis in axes):
        raise ValueError(f"axes_dims_rope is {shown(repr(axes))}, wanted three even numbers above 0")
    sizes = {field.name: raw.get(field.name) for field in fields(FluxConfig) if field.name != "axes_dims_rope"}
    for name, value in sizes.items():
        if not _is_size(value):
            raise ValueError(f"{name} is {shown(repr(value))}, wanted a whole number from 1 to 65536")
    config = FluxConfig(**sizes, axes_dims_rope=(axes[0], axes[1], axes[2]))  # type: ignore[arg-type]
    if sum(axes) != config.attention_head_dim:
        raise ValueError(
            f"axes_dims_rope adds up to {sum(axes)}, wanted attention_head_dim {config.attention_head_dim}"
        )
    return config


def _is_size(value: object) -> bool:
    return type(value) is int and 1 <= value <= 65536


FLUX = FluxConfig(
    num_layers=19,
    num_single_layers=38,
    attention_head_dim=128,
    num_attention_heads=24,
    joint_attention_dim=4096,
    pooled_projection_dim=768,
    axes_dims_rope=(16, 56, 56),
)
"""FLUX.1-dev, which is also the published FaceT5-FLUX."""


# ---- the key set ----


def expected_shapes(config: FluxConfig) -> dict[str, tuple[int, ...]]:
    """Every key of the state dict and its shape, in diffusers' layout."""
    return dict(shapes(config))


def shapes(c: FluxConfig) -> Iterator[tuple[str, tuple[int, ...]]]:
    """The same one by one: a header can name more layers than anybody wants to have spelt out."""
    width = c.width
    embedders = {"timestep": TIME_EMBED_WIDTH, "guidance": TIME_EMBED_WIDTH, "text": c.pooled_projection_dim}
    for name, inputs in embedders.items():
        yield from _linear(f"time_text_embed.{name}_embedder.linear_1", inputs, width)
        yield from _linear(f"time_text_embed.{name}_embedder.linear_2", width, width)
    yield from _linear("context_embedder", c.joint_attention_dim, width)
    yield from _linear("x_embedder", IN_CHANNELS, width)
    yield from _linear("norm_out.linear", width, 2 * width)
    yield from _linear("proj_out", width, IN_CHANNELS)
    for i in range(c.num_layers):
        yield from _double_block(f"transformer_blocks.{i}", width, c.attention_head_dim)
    for i in range(c.num_single_layers):
        yield from _single_block(f"single_transformer_blocks.{i}", width, c.attention_head_dim)


def _linear(name: str, inputs: int, outputs: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", (outputs, inputs)
    yield f"{name}.bias", (outputs,)


def _double_block(name: str, width: int, head: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    for norm in ("norm1", "norm1_context"):
        yield from _linear(f"{name}.{norm}.linear", width, 6 * width)
    for norm in ("norm_q", "norm_k", "norm_added_q", "norm_added_k"):
        yield f"{name}.attn.{norm}.weight", (head,)
    for part in ("to_q", "to_k", "to_v", "add_q_proj", "add_k_proj", "add_v_proj", "to_out.0", "to_add_out"):
        yield from _linear(f"{name}.attn.{part}", width, width)
    for part in ("ff", "ff_context"):
        yield from _linear(f"{name}.{part}.net.0.proj", width, MLP_RATIO * width)
        yield from _linear(f"{name}.{part}.net.2", MLP_RATIO * width, width)


def _single_block(name: str, width: int, head: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield from _linear(f"{name}.norm.linear", width, 3 * width)
    for norm in ("norm_q", "norm_k"):
        yield f"{name}.attn.{norm}.weight", (head,)
    for part in ("to_q", "to_k", "to_v"):
        yield from _linear(f"{name}.attn.{part}", width, width)
    yield from _linear(f"{name}.proj_mlp", width, MLP_RATIO * width)
    yield from _linear(f"{name}.proj_out", (1 + MLP_RATIO) * width, width)
