"""Sizes of an SDXL-shaped UNet, under diffusers' names, and the exact key set that follows from them.

Source: the layout of diffusers' `UNet2DConditionModel`, checked against the published key list.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from ..errors import CheckpointError, shown

METADATA_KEY = "unet_config"
HEAD_WIDTH = 64  # SDXL's; the host knows no other
TIME_EMBED_WIDTH = 256  # width of each of the six size numbers; the host knows no other
SIZE_NUMBERS = 6  # original, crop and target size, two numbers each
GROUPS = 32  # of every group norm

EPSILON, VELOCITY = PREDICTIONS = ("epsilon", "v_prediction")  # diffusers' words, which its schedulers take too

CROSS_DOWN, PLAIN_DOWN = "CrossAttnDownBlock2D", "DownBlock2D"
_UP = {CROSS_DOWN: "CrossAttnUpBlock2D", PLAIN_DOWN: "UpBlock2D"}
# What makes a UNet SDXL-shaped. Entries diffusers would fill with something else must be present.
_REQUIRED = {"use_linear_projection": True, "addition_embed_type": "text_time"}
_IF_PRESENT = {
    "mid_block_type": ("UNetMidBlock2DCrossAttn",),
    "act_fn": ("silu", "swish"),
    "norm_num_groups": (GROUPS,),
    "norm_eps": (1e-5,),
    "flip_sin_to_cos": (True,),
    "freq_shift": (0,),
    "downsample_padding": (1,),
    "mid_block_scale_factor": (1,),
    "conv_in_kernel": (3,),
    "conv_out_kernel": (3,),
    "resnet_out_scale_factor": (1.0,),
    "resnet_time_scale_shift": ("default",),
    "time_embedding_type": ("positional",),
    "attention_type": ("default",),
    **dict.fromkeys(("only_cross_attention", "dual_cross_attention", "center_input_sample"), (False, None)),
    **dict.fromkeys(("resnet_skip_time_act", "class_embeddings_concat"), (False, None)),
    **dict.fromkeys(("class_embed_type", "num_class_embeds", "encoder_hid_dim", "encoder_hid_dim_type"), (None,)),
    # Of a scheduler's config; no file of ours tells the host of such a schedule.
    **dict.fromkeys(("rescale_betas_zero_snr",), (False, None)),
    **dict.fromkeys(("time_cond_proj_dim", "time_embedding_dim", "time_embedding_act_fn"), (None,)),
    **dict.fromkeys(("timestep_post_act", "cross_attention_norm", "reverse_transformer_layers_per_block"), (None,)),
}


@dataclass(frozen=True)
class UNetConfig:
    """Sizes of an SDXL-shaped UNet under diffusers' names; one entry per level where there are several.

    attention_head_dim: number of heads (diffusers' historical name for it); ignored on levels without attention.
    projection_class_embeddings_input_dim: pooled width + 6 x addition_time_embed_dim. prediction_type: what the UNet
    answers, the noise or v (Salimans and Ho, arXiv 2202.00512); diffusers keeps it in its schedulers' configs.
    """

    in_channels: int
    out_channels: int
    down_block_types: tuple[str, ...]
    block_out_channels: tuple[int, ...]
    layers_per_block: int
    transformer_layers_per_block: tuple[int, ...]
    attention_head_dim: tuple[int, ...]
    cross_attention_dim: int
    addition_time_embed_dim: int
    projection_class_embeddings_input_dim: int
    prediction_type: str = EPSILON

    @property
    def attention_depths(self) -> tuple[int, ...]:
        """Transformer blocks behind each residual block, per level; 0 where the level has no attention."""
        pairs = zip(self.down_block_types, self.transformer_layers_per_block, strict=True)
        return tuple(depth if kind == CROSS_DOWN else 0 for kind, depth in pairs)

    @property
    def pooled_width(self) -> int:
        return self.projection_class_embeddings_input_dim - SIZE_NUMBERS * self.addition_time_embed_dim

    def to_json(self) -> str:
        """The text kept under `unet_config`; `UNet2DConditionModel.from_config` takes it as it is."""
        up = [_UP[kind] for kind in reversed(self.down_block_types)]
        return json.dumps({**asdict(self), "up_block_types": up, **_REQUIRED})

    @classmethod
    def from_json(cls, text: str) -> "UNetConfig":
        """Parse a diffusers UNet config.

        Raises CheckpointError naming the entry that is missing, or that makes the UNet something else than SDXL-shaped.
        """
        try:
            raw = json.loads(text)
            if not isinstance(raw, dict):
                raise ValueError("it is no JSON object")
            config = _parse(raw)
        except (ValueError, TypeError, RecursionError) as error:
            raise CheckpointError(
                f"The UNet file's {METADATA_KEY} cannot be used: {error}. Save the file again with the config of an "
                "SDXL-shaped UNet2DConditionModel."
            ) from error
        return config


def _parse(raw: dict) -> UNetConfig:
    for key, wanted in _REQUIRED.items():
        if raw.get(key) != wanted:
            raise ValueError(f"{key} is {shown(repr(raw.get(key)))}, wanted {wanted!r}")
    for key, allowed in _IF_PRESENT.items():
        if key in raw and raw[key] not in allowed:
            raise ValueError(f"{key} is {shown(repr(raw[key]))}, wanted {allowed[0]!r}")
    kinds = raw.get("down_block_types")
    if not isinstance(kinds, list) or not kinds or any(kind not in _UP for kind in kinds):
        raise ValueError(f"down_block_types is {shown(repr(kinds))}, wanted a list of {PLAIN_DOWN} and {CROSS_DOWN}")
    up = raw.get("up_block_types")
    if up != [_UP[kind] for kind in reversed(kinds)]:
        raise ValueError(f"up_block_types is {shown(repr(up))}, wanted the mirror image of down_block_types")
    heads = raw.get("num_attention_heads") or raw.get("attention_head_dim")
    layers = set(_whole_numbers(raw.get("layers_per_block"), "layers_per_block", len(kinds)))
    if len(layers) != 1:
        raise ValueError(
            f"layers_per_block is {shown(repr(raw['layers_per_block']))}, wanted the same number on every level"
        )
    prediction = raw.get("prediction_type", EPSILON)
    if prediction not in PREDICTIONS:
        raise ValueError(f"prediction_type is {shown(repr(prediction))}, wanted {' or '.join(map(repr, PREDICTIONS))}")
    names = ("in_channels", "out_channels", "cross_attention_dim")
    names += ("addition_time_embed_dim", "projection_class_embeddings_input_dim")
    config = UNetConfig(
        down_block_types=tuple(kinds),
        block_out_channels=_whole_numbers(raw.get("block_out_channels"), "block_out_channels", len(kinds)),
        layers_per_block=layers.pop(),
        transformer_layers_per_block=_whole_numbers(
            raw.get("transformer_layers_per_block"), "transformer_layers_per_block", len(kinds)
        ),
        attention_head_dim=_whole_numbers(heads, "attention_head_dim", len(kinds)),
        prediction_type=prediction,
        **{name: _whole_numbers(raw.get(name), name, 1)[0] for name in names},
    )
    _check_sizes(config)
    return config


def _whole_numbers(value, name: str, count: int) -> tuple[int, ...]:
    values = value if isinstance(value, list) else [value] * count
    if len(values) != count or any(type(v) is not int or not 1 <= v <= 65536 for v in values):
        raise ValueError(f"{name} is {shown(repr(value))}, wanted {count} whole number{'s' * (count > 1)} above 0")
    return tuple(values)


def _check_sizes(config: UNetConfig) -> None:
    """Refuse what the host's SDXL cannot represent; raises ValueError."""
    widths = config.block_out_channels
    for level, (width, depth) in enumerate(zip(widths, config.attention_depths, strict=True)):
        if width % GROUPS or width % widths[0]:
            raise ValueError(
                f"block_out_channels[{level}] is {width}, wanted a multiple of {GROUPS} and of {widths[0]}"
            )
        with_attention = depth > 0 or level == len(widths) - 1  # the middle block always attends
        if with_attention and config.attention_head_dim[level] * HEAD_WIDTH != width:
            raise ValueError(
                f"attention_head_dim[{level}] (the number of heads) is {config.attention_head_dim[level]} for a width "
                f"of {width}, wanted heads {HEAD_WIDTH} wide"
            )
    if config.addition_time_embed_dim != TIME_EMBED_WIDTH:
        raise ValueError(f"addition_time_embed_dim is {config.addition_time_embed_dim}, wanted {TIME_EMBED_WIDTH}")
    if config.pooled_width < 1:
        raise ValueError(
            f"projection_class_embeddings_input_dim is {config.projection_class_embeddings_input_dim}, wanted more "
            f"than {SIZE_NUMBERS} x {TIME_EMBED_WIDTH}, which the picture's size takes"
        )


SDXL = UNetConfig(
    in_channels=4,
    out_channels=4,
    down_block_types=(PLAIN_DOWN, CROSS_DOWN, CROSS_DOWN),
    block_out_channels=(320, 640, 1280),
    layers_per_block=2,
    transformer_layers_per_block=(1, 2, 10),
    attention_head_dim=(5, 10, 20),
    cross_attention_dim=2048,
    addition_time_embed_dim=256,
    projection_class_embeddings_input_dim=2816,
)
"""Stable Diffusion XL base 1.0, which is also the published FaceCLIP-SDXL."""


# ---- the key set ----


def expected_shapes(config: UNetConfig) -> dict[str, tuple[int, ...]]:
    """Every key of the state dict and its shape, in diffusers' layout (1680 keys for `SDXL`)."""
    return dict(shapes(config))


def shapes(c: UNetConfig) -> Iterator[tuple[str, tuple[int, ...]]]:
    """The same one by one: a header can name more layers than anybody wants to have spelt out."""
    widths, depths, last = c.block_out_channels, c.attention_depths, len(c.block_out_channels) - 1
    time = 4 * widths[0]
    yield from _conv("conv_in", c.in_channels, widths[0], 3)
    yield from _linear("time_embedding.linear_1", widths[0], time)
    yield from _linear("time_embedding.linear_2", time, time)
    yield from _linear("add_embedding.linear_1", c.projection_class_embeddings_input_dim, time)
    yield from _linear("add_embedding.linear_2", time, time)

    skips = [widths[0]]  # widths of what the way down leaves for the way up
    width = widths[0]
    for level, out in enumerate(widths):
        name = f"down_blocks.{level}"
        for i in range(c.layers_per_block):
            yield from _resnet(f"{name}.resnets.{i}", width, out, time)
            yield from _attention(f"{name}.attentions.{i}", out, depths[level], c.cross_attention_dim)
            width = out
            skips.append(width)
        if level != last:
            yield from _conv(f"{name}.downsamplers.0.conv", width, width, 3)
            skips.append(width)

    yield from _resnet("mid_block.resnets.0", width, width, time)
    yield from _attention("mid_block.attentions.0", width, c.transformer_layers_per_block[last], c.cross_attention_dim)
    yield from _resnet("mid_block.resnets.1", width, width, time)

    for level, out in enumerate(reversed(widths)):
        name = f"up_blocks.{level}"
        for i in range(c.layers_per_block + 1):
            yield from _resnet(f"{name}.resnets.{i}", width + skips.pop(), out, time)
            yield from _attention(f"{name}.attentions.{i}", out, depths[last - level], c.cross_attention_dim)
            width = out
        if level != last:
            yield from _conv(f"{name}.upsamplers.0.conv", width, width, 3)
    yield from _norm("conv_norm_out", width)
    yield from _conv("conv_out", width, c.out_channels, 3)


def _linear(name: str, inputs: int, outputs: int, bias: bool = True):
    yield f"{name}.weight", (outputs, inputs)
    if bias:
        yield f"{name}.bias", (outputs,)


def _conv(name: str, inputs: int, outputs: int, size: int):
    yield f"{name}.weight", (outputs, inputs, size, size)
    yield f"{name}.bias", (outputs,)


def _norm(name: str, width: int):
    yield f"{name}.weight", (width,)
    yield f"{name}.bias", (width,)


def _resnet(name: str, inputs: int, outputs: int, time: int):
    yield from _norm(f"{name}.norm1", inputs)
    yield from _conv(f"{name}.conv1", inputs, outputs, 3)
    yield from _linear(f"{name}.time_emb_proj", time, outputs)
    yield from _norm(f"{name}.norm2", outputs)
    yield from _conv(f"{name}.conv2", outputs, outputs, 3)
    if inputs != outputs:
        yield from _conv(f"{name}.conv_shortcut", inputs, outputs, 1)


def _attention(name: str, width: int, depth: int, context: int):
    if depth == 0:
        return
    yield from _norm(f"{name}.norm", width)
    yield from _linear(f"{name}.proj_in", width, width)
    for i in range(depth):
        block = f"{name}.transformer_blocks.{i}"
        for attention, source in (("attn1", width), ("attn2", context)):
            yield from _norm(f"{block}.norm{attention[-1]}", width)
            yield from _linear(f"{block}.{attention}.to_q", width, width, bias=False)
            yield from _linear(f"{block}.{attention}.to_k", source, width, bias=False)
            yield from _linear(f"{block}.{attention}.to_v", source, width, bias=False)
            yield from _linear(f"{block}.{attention}.to_out.0", width, width)
        yield from _norm(f"{block}.norm3", width)
        yield from _linear(f"{block}.ff.net.0.proj", width, 8 * width)  # GEGLU: value and gate, 4 x width each
        yield from _linear(f"{block}.ff.net.2", 4 * width, width)
    yield from _linear(f"{name}.proj_out", width, width)
