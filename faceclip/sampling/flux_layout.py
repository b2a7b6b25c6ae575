"""FLUX's transformer in the layout of its original release, which ComfyUI saves, turned into diffusers' layout.

The original joins what diffusers keeps apart (query, key and value; in single blocks the first layer of the MLP too)
and has scale and shift of the last norm the other way round.
"""

import re
from collections.abc import Iterator

import torch

from ..errors import CheckpointError, shown
from ..files.state_dict import State
from .flux_config import FLUX, MLP_RATIO, FluxConfig
from .unet_layout import ORIGINAL_PREFIXES, counted

_FIRST_KEY = "double_blocks.0.img_attn.qkv.weight"
_FIRST_NORM = "double_blocks.0.img_attn.norm.query_norm"
_OUTSIDE = {
    "img_in": "x_embedder",
    "txt_in": "context_embedder",
    "time_in.in_layer": "time_text_embed.timestep_embedder.linear_1",
    "time_in.out_layer": "time_text_embed.timestep_embedder.linear_2",
    "vector_in.in_layer": "time_text_embed.text_embedder.linear_1",
    "vector_in.out_layer": "time_text_embed.text_embedder.linear_2",
    "guidance_in.in_layer": "time_text_embed.guidance_embedder.linear_1",
    "guidance_in.out_layer": "time_text_embed.guidance_embedder.linear_2",
    "final_layer.linear": "proj_out",
}
_DOUBLE = {
    "img_attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "txt_attn.qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
    "img_attn.proj": ("attn.to_out.0",),
    "txt_attn.proj": ("attn.to_add_out",),
    "img_mod.lin": ("norm1.linear",),
    "txt_mod.lin": ("norm1_context.linear",),
    "img_mlp.0": ("ff.net.0.proj",),
    "img_mlp.2": ("ff.net.2",),
    "txt_mlp.0": ("ff_context.net.0.proj",),
    "txt_mlp.2": ("ff_context.net.2",),
}
_SINGLE = {
    "linear1": ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"),
    "linear2": ("proj_out",),
    "modulation.lin": ("norm.linear",),
}
_NORMS = {
    "img_attn.norm.query_norm": "attn.norm_q",
    "img_attn.norm.key_norm": "attn.norm_k",
    "txt_attn.norm.query_norm": "attn.norm_added_q",
    "txt_attn.norm.key_norm": "attn.norm_added_k",
    "norm.query_norm": "attn.norm_q",
    "norm.key_norm": "attn.norm_k",
}
_NORM_ENDS = ("scale", "weight")  # the latter in newer hosts
_LAST_NORM = "final_layer.adaLN_modulation.1"
_KEY = re.compile(r"(double|single)_blocks\.(\d+)\.(.+)\.(weight|bias|scale)")


def is_original(state: State) -> bool:
    """Whether these are a FLUX transformer's weights under the original names, whatever stands before them."""
    return any(prefix + _FIRST_KEY in state for prefix in ("", *ORIGINAL_PREFIXES))


def is_bare(state: State) -> bool:
    """Whether no prefix stands before the original names. What the host saves always has one."""
    return _FIRST_KEY in state


def config_of(state: State, name: str) -> FluxConfig:
    """The sizes of a transformer in the original layout, read off its weights; CheckpointError for those of none.

    How positions share a head's width cannot be seen in any weight, so only heads as wide as FLUX.1's are taken.
    """
    shapes = {key: tuple(value.shape) for key, value in _inside(state)}
    try:
        width = shapes["img_in.weight"][0]
        head = next(shapes[f"{_FIRST_NORM}.{end}"][0] for end in _NORM_ENDS if f"{_FIRST_NORM}.{end}" in shapes)
        config = FluxConfig(
            num_layers=len(counted(shapes, r"double_blocks\.(\d+)\.")),
            num_single_layers=len(counted(shapes, r"single_blocks\.(\d+)\.")),
            attention_head_dim=head,
            num_attention_heads=width // head,
            joint_attention_dim=shapes["txt_in.weight"][1],
            pooled_projection_dim=shapes["vector_in.in_layer.weight"][1],
            axes_dims_rope=FLUX.axes_dims_rope,
        )
        return FluxConfig.from_json(config.to_json())  # which checks the sizes
    except (KeyError, IndexError, StopIteration, ZeroDivisionError, CheckpointError) as error:
        raise CheckpointError(
            f"{name} is a FLUX transformer in the original layout, but not one of FLUX.1-dev's kind: its sizes cannot "
            f"be told from its weights ({shown(error)}). A small one must be saved with "
            "faceclip.sampling.flux_file.save, which names them."
        ) from error


def to_diffusers(state: State, config: FluxConfig) -> State:
    """The weights under diffusers' names, joined ones taken apart, still where they were read from.

    A key that such a transformer does not have keeps its name, so that checking the key set names it. Raises
    CheckpointError where a joined weight has not the rows of its parts.
    """
    found: State = {}
    for key, value in _inside(state):
        layer, _, end = key.rpartition(".")
        if layer in _OUTSIDE:
            found[f"{_OUTSIDE[layer]}.{end}"] = value
        elif layer == _LAST_NORM:
            shift, scale = _taken_apart(value, [config.width] * 2, key)
            found[f"norm_out.linear.{end}"] = torch.cat([scale, shift])
        elif match := _KEY.fullmatch(key):
            found.update(_of_block(match, value, config, key))
        else:
            found[key] = value
    return found


def other_parts(state: State) -> list[str]:
    """Keys of a file that belong to no transformer in the original layout: a checkpoint's text towers and VAE."""
    prefix = _prefix(state)
    return [key for key in state if not key.startswith(prefix)]


def _of_block(match: re.Match[str], value: torch.Tensor, config: FluxConfig, key: str) -> State:
    kind, number, layer, end = match.groups()
    place = f"{'single_' if kind == 'single' else ''}transformer_blocks.{number}"
    if end in _NORM_ENDS and layer in _NORMS:
        return {f"{place}.{_NORMS[layer]}.weight": value}
    parts = (_SINGLE if kind == "single" else _DOUBLE).get(layer)
    if parts is None:
        return {key: value}
    if len(parts) == 1:
        return {f"{place}.{parts[0]}.{end}": value}
    pieces = _taken_apart(value, [config.width] * 3 + [MLP_RATIO * config.width] * (len(parts) - 3), key)
    return {f"{place}.{part}.{end}": piece for part, piece in zip(parts, pieces, strict=True)}


def _taken_apart(value: torch.Tensor, rows: list[int], key: str) -> tuple[torch.Tensor, ...]:
    if value.ndim == 0 or len(value) != sum(rows):
        raise CheckpointError(f"{key} has shape {list(value.shape)}, wanted {sum(rows)} rows. The file is damaged.")
    return torch.split(value, rows)


def _prefix(state: State) -> str:
    return next(prefix for prefix in (*ORIGINAL_PREFIXES, "") if prefix + _FIRST_KEY in state)


def _inside(state: State) -> Iterator[tuple[str, torch.Tensor]]:
    prefix = _prefix(state)
    return ((key[len(prefix) :], value) for key, value in state.items() if key.startswith(prefix))
