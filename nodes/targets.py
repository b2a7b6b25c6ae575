"""What the diffusion model behind each family of encoders is told beside the embeddings, and what it cannot be told."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from ..faceclip.errors import InputError
from ..faceclip.model.config import T5_LENGTH, FaceCLIPConfig, FaceT5Config
from ..faceclip.model.encoder import JointConditioning
from ..faceclip.model.prompt import LONG_PROMPT
from ..faceclip.sampling import flux_schedule, schedule

CUT = LONG_PROMPT[1]


@dataclass(frozen=True)
class Target:
    """One diffusion model.

    latent_size: (height, width) in cells of a picture in px; raises InputError for a size it cannot make.
    tell: what a CONDITIONING entry says of a picture of a size; of 0 x 0, nothing of the size, and the host takes the
    latent's. long_prompt: what a user's choice becomes.
    notes: lines on what of a prompt's settings means nothing here, by that choice. parts_of_sampling: where noise
    levels lie in the sampling, 0 to 1. noise: the host's class of its noise schedule, in comfy.model_sampling.
    """

    latent_size: Callable[[int, int], tuple[int, int]]
    tell: Callable[[JointConditioning, int, int], dict[str, Any]]
    long_prompt: Callable[[str], str]
    notes: Callable[[str], list[str]]
    parts_of_sampling: Callable[[torch.Tensor], list[float]]
    noise: str


def target_of(faceclip: Any) -> Target:
    """The diffusion model that an encoder was made for. faceclip: what the FACECLIP type carries."""
    return TARGETS[type(faceclip.config)]


def _tell_sdxl(joint: JointConditioning, width: int, height: int) -> dict[str, Any]:
    if width == height == 0:
        return {"pooled_output": joint.pooled}
    schedule.latent_size(width, height)  # refuses sizes that SDXL cannot make
    size = {"width": width, "height": height, "crop_w": 0, "crop_h": 0}
    return {"pooled_output": joint.pooled, **size, "target_width": width, "target_height": height}


def _tell_flux(joint: JointConditioning, width: int, height: int) -> dict[str, Any]:
    if joint.pooled is None:
        raise InputError(
            "This FaceT5 file has no CLIP-L, so it gives no pooled vector, and FLUX needs one. Load a file with CLIP-L "
            "in it: the published face_t5_encoder.pt, or one converted from it."
        )
    # Said in every entry: where nothing is said, the host takes 3.5.
    return {"pooled_output": joint.pooled, "guidance": flux_schedule.DISTILLED_GUIDANCE}


def _flux_notes(long_prompt: str) -> list[str]:
    notes = ["FLUX is not told the picture's size: width and height mean nothing here, the latent decides."]
    if long_prompt == CUT:
        notes.append(f"long_prompt means nothing here: FaceT5 reads one row of {T5_LENGTH} tokens.")
    return notes


SDXL = Target(
    schedule.latent_size,
    _tell_sdxl,
    long_prompt=lambda choice: choice,
    notes=lambda choice: [],
    parts_of_sampling=schedule.parts_of_sampling,
    noise="ModelSamplingDiscrete",
)
FLUX = Target(
    flux_schedule.latent_size,
    _tell_flux,
    long_prompt=lambda choice: CUT,
    notes=_flux_notes,
    parts_of_sampling=flux_schedule.parts_of_sampling,
    noise="ModelSamplingFlux",
)
TARGETS = {FaceCLIPConfig: SDXL, FaceT5Config: FLUX}
