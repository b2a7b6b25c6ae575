"""Two layouts of one SDXL UNet: diffusers' names, which we keep, and those of the original release.

Single-file checkpoints, and what ComfyUI saves, have the original names below `model.diffusion_model.`.
"""

import re

from ..errors import CheckpointError, shown
from ..files.state_dict import State
from .unet_config import CROSS_DOWN, HEAD_WIDTH, PLAIN_DOWN, TIME_EMBED_WIDTH, UNetConfig, expected_shapes

ORIGINAL_PREFIXES = ("model.diffusion_model.", "diffusion_model.")
_FIRST_KEY = "input_blocks.0.0.weight"  # every UNet of the original layout has it
_MOST_LEVELS = 16  # SDXL has 3

_OUTSIDE = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_IN_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_OUTER = re.compile("(" + "|".join(map(re.escape, _OUTSIDE)) + r")\.(.+)")
_LEVEL = re.compile(r"(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)")


def original_names(config: UNetConfig) -> dict[str, str]:
    """diffusers' key -> the original key, for every weight of a UNet of this config."""
    return {key: _original_name(key, config) for key in expected_shapes(config)}


def is_original(state: State) -> bool:
    """Whether these are a UNet's weights under the original names, whatever stands before them."""
    return any(prefix + _FIRST_KEY in state for prefix in ("", *ORIGINAL_PREFIXES))


def to_diffusers(state: State, config: UNetConfig) -> State:
    """A UNet's weights of the original layout under diffusers' names. A whole checkpoint's other parts are left out.

    Keys that a UNet of this config does not have keep their names, so that checking the key set names them.
    """
    prefix = _prefix(state)
    names = {original: key for key, original in original_names(config).items()}
    unet = {key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)}
    return {names.get(key, key): value for key, value in unet.items()}


def config_of(state: State, name: str) -> UNetConfig:
    """The sizes of an SDXL-shaped UNet in the original layout, read off its weights, since nothing else tells them.

    Only what tells the sizes is looked at; whether all weights are there and fit is for the check of the key set.
    Raises CheckpointError where they are no sizes of such a UNet.
    """
    prefix = _prefix(state)
    shapes = {key[len(prefix) :]: tuple(value.shape) for key, value in state.items() if key.startswith(prefix)}
    blocks = counted(shapes, r"input_blocks\.(\d+)\.")
    levels: list[list[int]] = [[]]  # the blocks with residual layers, between the halvings
    for block in sorted(blocks - {0}):
        if f"input_blocks.{block}.0.op.weight" in shapes:
            levels.append([])
        else:
            levels[-1].append(block)
    if len(levels) > _MOST_LEVELS:
        raise CheckpointError(
            f"{name} is a UNet in the original layout of {len(levels)} levels, at most {_MOST_LEVELS} wanted. It is "
            "damaged, or of another model. Choose a FaceCLIP-SDXL UNet."
        )
    try:
        widths = [shapes[f"input_blocks.{level[0]}.0.out_layers.3.weight"][0] for level in levels]
        depths = [_depth(shapes, f"input_blocks.{level[0]}.1") for level in levels]
        middle = _depth(shapes, "middle_block.1")
        attends = [depth > 0 for depth in depths]
        depths[-1] = depths[-1] or middle
        config = UNetConfig(
            in_channels=shapes["input_blocks.0.0.weight"][1],
            out_channels=shapes["out.2.weight"][0],
            down_block_types=tuple(CROSS_DOWN if attending else PLAIN_DOWN for attending in attends),
            block_out_channels=tuple(widths),
            layers_per_block=len(levels[0]),
            transformer_layers_per_block=tuple(depth or 1 for depth in depths),
            attention_head_dim=tuple(max(1, width // HEAD_WIDTH) for width in widths),
            cross_attention_dim=next(shape[1] for key, shape in shapes.items() if key.endswith("attn2.to_k.weight")),
            addition_time_embed_dim=TIME_EMBED_WIDTH,
            projection_class_embeddings_input_dim=shapes["label_emb.0.0.weight"][1],
        )
        return UNetConfig.from_json(config.to_json())  # which checks the sizes
    except (KeyError, IndexError, StopIteration, CheckpointError) as error:
        raise CheckpointError(
            f"{name} is a UNet in the original layout, but not an SDXL-shaped one: its sizes cannot be told from its "
            f"weights ({shown(error)}). Choose a FaceCLIP-SDXL UNet."
        ) from error


def other_parts(state: State) -> list[str]:
    """Keys of a file that belong to no UNet in the original layout: a checkpoint's text towers and VAE."""
    prefix = _prefix(state)
    return [key for key in state if not key.startswith(prefix)]


def _prefix(state: State) -> str:
    return next(prefix for prefix in (*ORIGINAL_PREFIXES, "") if prefix + _FIRST_KEY in state)


def _depth(shapes: dict[str, tuple[int, ...]], place: str) -> int:
    return len(counted(shapes, re.escape(place) + r"\.transformer_blocks\.(\d+)\."))


def counted(shapes: dict[str, tuple[int, ...]], pattern: str) -> set[int]:
    """The numbers that a pattern catches in keys."""
    return {int(match[1]) for key in shapes if (match := re.match(pattern, key))}


def _original_name(key: str, config: UNetConfig) -> str:
    outer = _OUTER.fullmatch(key)
    if outer:
        inside = outer[2] if "resnets" not in outer[1] else _resnet_name(outer[2])
        return f"{_OUTSIDE[outer[1]]}.{inside}"
    match = _LEVEL.fullmatch(key)
    assert match is not None, key
    way, level, kind, number, inside = match.groups()
    level, number, layers = int(level), int(number), config.layers_per_block
    if way == "down":
        block = 1 + level * (layers + 1)  # one more block a level than residual layers, for the halving
        if kind == "downsamplers":
            return f"input_blocks.{block + layers}.0.op.{inside.removeprefix('conv.')}"
        place = f"input_blocks.{block + number}"
    else:
        block = level * (layers + 1)
        if kind == "upsamplers":
            attends = list(reversed(config.attention_depths))[level] > 0
            return f"output_blocks.{block + layers}.{1 + attends}.{inside}"
        place = f"output_blocks.{block + number}"
    return f"{place}.0.{_resnet_name(inside)}" if kind == "resnets" else f"{place}.1.{inside}"


def _resnet_name(inside: str) -> str:
    name, _, rest = inside.partition(".")
    return f"{_IN_RESNET[name]}.{rest}"
