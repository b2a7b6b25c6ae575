"""Reading and writing the transformer's file: a state dict in diffusers' layout, and nothing but that state dict.

The published `dit.pt` has FLUX.1-dev's sizes and no metadata; any other FLUX-shaped transformer is a safetensors file
whose header names its sizes under `METADATA_KEY`.
"""

import os
from collections.abc import Mapping

from ..errors import CheckpointError
from ..files.state_dict import (
    Progress,
    State,
    check_finite,
    report_mismatch,
    spell_out,
    strip_prefix,
    write_safetensors,
)
from .flux_config import FLUX, METADATA_KEY, FluxConfig, shapes

PREFIXES = ("model.diffusion_model.", "model.", "transformer.", "module.")
# Only FLUX has both in diffusers' layout; SD3 has no single blocks, and the original layout other names.
_MARKS = ("transformer_blocks.0.attn.to_q.weight", "single_transformer_blocks.0.attn.to_q.weight")


def owns(state: State) -> bool:
    """True for a diffusers FLUX transformer, whole or not, whatever prefix its keys carry."""
    return any(key.endswith(_MARKS[1]) for key in state) or (
        any(key.endswith(_MARKS[0]) for key in state) and any(key.endswith("x_embedder.weight") for key in state)
    )


def checked(
    state: State, metadata: Mapping[str, str], name: str, progress: Progress | None = None
) -> tuple[State, FluxConfig]:
    """Weights and sizes of a file read (see files.state_dict.read_state_dict), checked in full.

    Raises CheckpointError for one that is incomplete, of another model, or of unnamed sizes.
    """
    state = strip_prefix(state, PREFIXES)
    if METADATA_KEY in metadata:
        config = FluxConfig.from_json(metadata[METADATA_KEY])
    else:
        config = _published_or_refuse(state, name)
    check_state_dict(state, config, name)
    check_finite(state, name, progress)
    return state, config


def check_state_dict(state: State, config: FluxConfig, name: str = "The file") -> None:
    """Raise CheckpointError unless `state` has exactly the keys and shapes of a transformer of this config."""
    what = "the published FaceT5-FLUX transformer" if config == FLUX else f"the transformer its {METADATA_KEY} names"
    report_mismatch(state, spell_out(shapes(config), state, name, what), name, what)


def save(state: State, config: FluxConfig, path: str | os.PathLike, force: bool = False) -> None:
    """Write a transformer's state dict (diffusers' keys) as a safetensors file that names its own sizes.

    Raises CheckpointError where the state does not fit the config, or the file exists and `force` is not set.
    """
    check_state_dict(state, config, "The state dict")
    write_safetensors(state, path, {METADATA_KEY: config.to_json()}, force)


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
