"""Reading and writing the transformer's file: a state dict in diffusers' layout, and nothing but that state dict.

The published `dit.pt` has FLUX.1-dev's sizes and no metadata; any other FLUX-shaped transformer is a safetensors file
whose header names its sizes under `METADATA_KEY`. What ComfyUI's ModelSave wrote, in the original layout, is read too.
"""

import os
from collections.abc import Mapping

from ..errors import CheckpointError, shown
from ..files.state_dict import (
    Progress,
    State,
    check_finite,
    report_mismatch,
    spell_out,
    strip_prefix,
    write_safetensors,
)
from . import flux_layout
from .flux_config import FLUX, METADATA_KEY, FluxConfig, shapes

PREFIXES = ("model.diffusion_model.", "model.", "transformer.", "module.")
# Only FLUX has both in diffusers' layout; SD3 has no single blocks, and the original layout other names.
_MARKS = ("transformer_blocks.0.attn.to_q.weight", "single_transformer_blocks.0.attn.to_q.weight")


def owns(state: State) -> bool:
    """True for a FLUX transformer in diffusers' or the original layout, whole or not, whatever prefix its keys have."""
    if flux_layout.is_original(state):
        return True
    return any(key.endswith(_MARKS[1]) for key in state) or (
        any(key.endswith(_MARKS[0]) for key in state) and any(key.endswith("x_embedder.weight") for key in state)
    )


def checked(
    state: State, metadata: Mapping[str, str], name: str, progress: Progress | None = None
) -> tuple[State, FluxConfig]:
    """Weights and sizes of a file read (see files.state_dict.read_state_dict), checked in full.

    Raises CheckpointError for one that is incomplete, of another model, or of unnamed sizes.
    """
    if flux_layout.is_original(state):
        state, config = _of_original(state, name)
    elif METADATA_KEY in metadata:
        state = strip_prefix(state, PREFIXES)
        config = FluxConfig.from_json(metadata[METADATA_KEY])
    else:
        state = strip_prefix(state, PREFIXES)
        config = _published_or_refuse(state, name)
    check_state_dict(state, config, name)
    check_finite(state, name, progress)
    return state, config


def check_state_dict(state: State, config: FluxConfig, name: str = "The file") -> None:
    """Raise CheckpointError unless `state` has exactly the keys and shapes of a transformer of this config."""
    what = "the published FaceT5-FLUX transformer" if config == FLUX else "a transformer of the sizes it names or shows"
    report_mismatch(state, spell_out(shapes(config), state, name, what), name, what)


def save(state: State, config: FluxConfig, path: str | os.PathLike, force: bool = False) -> None:
    """Write a transformer's state dict (diffusers' keys) as a safetensors file that names its own sizes.

    Raises CheckpointError where the state does not fit the config, or the file exists and `force` is not set.
    """
    check_state_dict(state, config, "The state dict")
    write_safetensors(state, path, {METADATA_KEY: config.to_json()}, force)


def _of_original(state: State, name: str) -> tuple[State, FluxConfig]:
    """What ComfyUI's ModelSave wrote: weights under diffusers' names, and the sizes.

    An ordinary FLUX is refused where it can be told: a whole checkpoint, and the form that FLUX.1-dev is published in.
    """
    if flux_layout.is_bare(state):
        raise CheckpointError(
            f"{name} has the form of an ordinary FLUX.1-dev, which does not understand FaceT5. Choose the published "
            "FaceT5-FLUX dit.pt, or what convert or ComfyUI's ModelSave made of it."
        )
    others = flux_layout.other_parts(state)
    if others:
        raise CheckpointError(
            f"{name} is a whole FLUX checkpoint: beside a transformer it holds {len(others)} other weights, such as "
            f"{shown(others[0])}. An ordinary one does not understand FaceT5. If this is a FaceT5-FLUX transformer "
            "that was saved with a LoRA or a merge in it, save it with ModelSave, not with CheckpointSave."
        )
    config = flux_layout.config_of(state, name)
    return flux_layout.to_diffusers(state, config), config


def _published_or_refuse(state: State, name: str) -> FluxConfig:
    """A file that names no sizes is the published model, whole or damaged, or it is refused."""
    seen = {
        "x_embedder.weight": (FLUX.width, 64),
        "context_embedder.weight": (FLUX.width, FLUX.joint_attention_dim),
    }
    for key, wanted in seen.items():
        if key in state and tuple(state[key].shape) != wanted:
            raise CheckpointError(
                f"{name} is a diffusers FLUX transformer, but not of FLUX.1-dev's sizes, and its header names none: "
                f"{key} is {list(state[key].shape)}, wanted {list(wanted)}. If it is a small one trained for FaceT5, "
                f"save it with faceclip.sampling.flux_file.save, which writes {METADATA_KEY} into the header."
            )
    return FLUX
