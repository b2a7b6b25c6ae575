"""Recipes for the UNet with a few-step LoRA on it: times, sampler and guidance as the LoRAs' authors give them.

A LoRA that was distilled to a number of steps makes pictures in these only, at the noise levels it was trained on.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from . import schedule

if TYPE_CHECKING:
    import torch

PUBLISHED = "published"
_LCM_TIMES = 50  # LCM's schedule takes its steps out of so many


@dataclass(frozen=True)
class Recipe:
    """times: SDXL's times of the steps, largest first, 0 to 999. sampler: the host's name. guidance: of the sampler.

    source: where the authors say so.
    """

    times: tuple[int, ...]
    sampler: str
    guidance: float
    source: str

    def sigmas(self) -> "torch.Tensor":
        """Noise levels, largest first, ending in 0: float32 [steps + 1]."""
        return schedule.sigmas_at(self.times)


def trailing(steps: int) -> tuple[int, ...]:
    """The last time of each of `steps` equal parts, as diffusers' timestep_spacing="trailing"."""
    return tuple(round((steps - i) * schedule.TRAIN_STEPS / steps) - 1 for i in range(steps))


def lcm(steps: int) -> tuple[int, ...]:
    """The times of diffusers' LCMScheduler: every so many of 50, the largest first."""
    each = schedule.TRAIN_STEPS // _LCM_TIMES
    return tuple(schedule.TRAIN_STEPS - 1 - each * (_LCM_TIMES * i // steps) for i in range(steps))


def _recipes(name: str, source: str, sampler: str, guidance: float, times: Callable, *steps: int) -> dict[str, Recipe]:
    return {f"{name}, {count} steps": Recipe(times(count), sampler, guidance, source) for count in steps}


# Guidance 1.0 of the host is what diffusers calls 0 or 1: none. DDIM without noise is Euler.
FEW_STEPS: Mapping[str, Recipe] = {
    **_recipes("Lightning", "model card of ByteDance/SDXL-Lightning", "euler", 1.0, trailing, 8, 4),
    **_recipes("Hyper-SD CFG", "model card of ByteDance/Hyper-SD", "euler", 5.0, trailing, 8),
    **_recipes("Hyper-SD", "model card of ByteDance/Hyper-SD", "euler", 1.0, trailing, 8, 4),
    **_recipes("DMD2", "model card of tianweiy/DMD2", "lcm", 1.0, trailing, 4),
    **_recipes("LCM", "model card of latent-consistency/lcm-lora-sdxl", "lcm", 1.0, lcm, 8, 4),
}
RECIPES = (PUBLISHED, *FEW_STEPS)


def sigmas_of(recipe: str, steps: int) -> "torch.Tensor":
    """Noise levels of a recipe; `steps` counts for the published one alone. Raises InputError."""
    return schedule.published_sigmas(steps) if recipe == PUBLISHED else FEW_STEPS[recipe].sigmas()
