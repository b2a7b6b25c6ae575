"""Any diffusion model's file, of either family: the weights say which it is."""

import os
from pathlib import Path

from ..errors import shown
from ..files.state_dict import Progress, State, read_state_dict, strip_prefix
from . import flux_config, flux_file, unet_config, unet_file
from .flux_config import FluxConfig
from .unet_config import UNetConfig

Config = UNetConfig | FluxConfig
# A kind's sizes -> what to call it, and the key of its header that names the sizes.
_KINDS = {
    UNetConfig: ("SDXL UNet", unet_config.METADATA_KEY),
    FluxConfig: ("FLUX transformer", flux_config.METADATA_KEY),
}


def read(path: str | os.PathLike, progress: Progress | None = None) -> tuple[State, Config]:
    """Weights in diffusers' layout and sizes, checked in full; the weights stay in the file until they are used.

    progress(done, total) is called per tensor and may raise to cancel. Raises CheckpointError for a file that is
    damaged, incomplete, unsafe, of another model, or of unnamed sizes.
    """
    state, metadata = read_state_dict(path)
    kind = flux_file if flux_file.owns(state) else unet_file
    return kind.checked(state, metadata, shown(Path(path).name), progress)


def owns(state: State) -> bool:
    """True for a diffusion model in diffusers' layout, whole or not, whatever prefix its keys carry."""
    return flux_file.owns(state) or "conv_in.weight" in strip_prefix(state, unet_file.PREFIXES)


def name_of(config: Config) -> str:
    """What to call a model of these sizes."""
    return _KINDS[type(config)][0]


def header(config: Config) -> dict[str, str]:
    """What the header of a file of ours says, so that it can be read again."""
    return {_KINDS[type(config)][1]: config.to_json()}
