"""Reading and writing the UNet's file: a state dict in diffusers' layout, and nothing but that state dict.

The published file has SDXL-base-1.0's sizes and no metadata; any other SDXL-shaped UNet is a safetensors file whose
header names its sizes under `METADATA_KEY`. The host leaves a missing weight uninitialised, so the key set is
checked here, before anything is built.
"""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from ..errors import CheckpointError, shown
from ..files.state_dict import (
    Progress,
    State,
    check_finite,
    name_other_model,
    read_state_dict,
    report_mismatch,
    spell_out,
    strip_prefix,
    write_safetensors,
)
from . import unet_layout
from .unet_config import METADATA_KEY, SDXL, VELOCITY, UNetConfig, expected_shapes, shapes

# Empty weights of these names are how ComfyUI notes that a UNet predicts v, and under which schedule.
VELOCITY_KEY, ZERO_SNR_KEY = "v_pred", "ztsnr"
PREFIXES = ("model.diffusion_model.", "model.", "unet.", "module.")
_SAME_MODEL = 0.9  # share of keys that must fit for a file to be a damaged SDXL UNet rather than something else


def read(path: str | os.PathLike, progress: Progress | None = None) -> tuple[State, UNetConfig]:
    """Read a UNet's weights and sizes, checked in full; the weights stay in the file until they are used.

    Takes the published `unet.pt`, its safetensors form, any file written by `save`, and what ComfyUI's ModelSave wrote.
    progress(done, total) is called per tensor and may raise to cancel.
    Raises CheckpointError for a file that is damaged, incomplete, unsafe, of another model, or of unnamed sizes.
    """
    state, metadata = read_state_dict(path)
    return checked(state, metadata, shown(Path(path).name), progress)


def checked(
    state: State, metadata: Mapping[str, str], name: str, progress: Progress | None = None
) -> tuple[State, UNetConfig]:
    """The same for a file whose bytes are read already."""
    if unet_layout.is_original(state):
        state, config = _of_original(state, name)
    elif METADATA_KEY in metadata:
        state = strip_prefix(state, PREFIXES)
        config = UNetConfig.from_json(metadata[METADATA_KEY])
    else:
        state = strip_prefix(state, PREFIXES)
        config = _published_or_refuse(state, name)
    check_state_dict(state, config, name)
    check_finite(state, name, progress)
    return state, config


def check_state_dict(state: State, config: UNetConfig, name: str = "The file") -> None:
    """Raise CheckpointError unless `state` has exactly the keys and shapes of a UNet of this config."""
    what = "the published FaceCLIP-SDXL UNet" if config == SDXL else "a UNet of the sizes that it names or shows"
    report_mismatch(state, spell_out(shapes(config), state, name, what), name, what)


def save(state: State, config: UNetConfig, path: str | os.PathLike, force: bool = False) -> None:
    """Write a UNet's state dict (diffusers' keys) as a safetensors file that names its own sizes.

    Raises CheckpointError where the state does not fit the config, or the file exists and `force` is not set.
    """
    check_state_dict(state, config, "The state dict")
    write_safetensors(state, path, {METADATA_KEY: config.to_json()}, force)


def _of_original(state: State, name: str) -> tuple[State, UNetConfig]:
    """What ComfyUI's ModelSave wrote: weights under diffusers' names, and the sizes. A whole checkpoint is refused."""
    predicts_v = VELOCITY_KEY in state
    if ZERO_SNR_KEY in state:
        raise CheckpointError(
            f"{name} is a UNet for noise levels that end in pure noise (it holds {ZERO_SNR_KEY}). FaceCLIP's sampling "
            "has SDXL base's levels, wanted a UNet that was trained with those."
        )
    state = {key: value for key, value in state.items() if key != VELOCITY_KEY}
    others = unet_layout.other_parts(state)
    if others:
        raise CheckpointError(
            f"{name} is a whole SDXL checkpoint: beside a UNet it holds {len(others)} other weights, such as "
            f"{shown(others[0])}. An ordinary one does not understand FaceCLIP. If this is a FaceCLIP UNet "
            "that was saved with a LoRA or a merge in it, save it with ModelSave, not with CheckpointSave."
        )
    config = unet_layout.config_of(state, name)
    spell_out(shapes(config), state, name, "a UNet of the sizes that its weights show")
    return unet_layout.to_diffusers(state, config), replace(config, prediction_type=VELOCITY) if predicts_v else config


def _published_or_refuse(state: State, name: str) -> UNetConfig:
    """A file that names no sizes is the published model, whole or damaged, or it is refused."""
    wanted = expected_shapes(SDXL)
    fitting = sum(tuple(state[key].shape) == shape for key, shape in wanted.items() if key in state)
    if fitting >= _SAME_MODEL * len(wanted):
        return SDXL
    if "conv_in.weight" not in state or "down_blocks.0.resnets.0.conv1.weight" not in state:
        raise CheckpointError(
            f"{name} is no SDXL UNet in diffusers' layout. {name_other_model(state)} Wanted: the published "
            "FaceCLIP-SDXL unet.pt, or a UNet trained for FaceCLIP. Choose the right file."
        )
    width, channels = (*state["conv_in.weight"].shape, None, None)[:2]
    context = next((t.shape[1] for key, t in state.items() if key.endswith("attn2.to_k.weight") and t.ndim == 2), None)
    raise CheckpointError(
        f"{name} is a diffusers UNet, but not of SDXL's sizes, and its header names none: first width {width} (SDXL "
        f"{SDXL.block_out_channels[0]}), {channels} input channels ({SDXL.in_channels}), context width {context} "
        f"({SDXL.cross_attention_dim}). If it is another model (Stable Diffusion 1 or 2), choose the FaceCLIP-SDXL "
        f"UNet. If it is a small UNet trained for FaceCLIP, save it with faceclip.sampling.unet_file.save, which "
        f"writes {METADATA_KEY} into the header."
    )
