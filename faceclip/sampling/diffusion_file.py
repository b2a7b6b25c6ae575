"""Any diffusion model's file, of either family: the weights say which it is."""

import os
from pathlib import Path

from ..errors import shown
from ..files.state_dict import Progress, State, read_state_dict
from . import flux_file, unet_file
from .flux_config import FluxConfig
from .unet_config import UNetConfig

Config = UNetConfig | FluxConfig


def read(path: str | os.PathLike, progress: Progress | None = None) -> tuple[State, Config]:
    """Weights in diffusers' layout and sizes, checked in full; the weights stay in the file until they are used.

    progress(done, total) is called per tensor and may raise to cancel. Raises CheckpointError for a file that is
    damaged, incomplete, unsafe, of another model, or of unnamed sizes.
    """
    state, metadata = read_state_dict(path)
    kind = flux_file if flux_file.owns(state) else unet_file
    return kind.checked(state, metadata, shown(Path(path).name), progress)
