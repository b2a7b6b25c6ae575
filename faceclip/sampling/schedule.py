"""The published sampling recipe: picture size, steps, guidance and noise levels.

Source: the published FaceCLIP-SDXL example, with SDXL-base-1.0's scheduler: Euler steps, scaled-linear betas, noise
prediction, "leading" spacing, offset 1.
"""

from typing import TYPE_CHECKING

from ..errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

WIDTH = 864  # px
HEIGHT = 1152
STEPS = 50
GUIDANCE = 5.0
LATENT_SCALE = 8  # px of the picture for each cell of the latent

TRAIN_STEPS = 1000
MAX_STEPS = TRAIN_STEPS - 1
BETA_START, BETA_END = 0.00085, 0.012
_OFFSET = 1


def published_sigmas(steps: int = STEPS) -> "torch.Tensor":
    """Noise levels of `steps` Euler steps, largest first, ending in 0: float32 [steps + 1].

    "Leading" spacing begins below the largest level there is (time 981 of 1000 for 50 steps). As in the published
    pipeline the first latent is still noise x sqrt(sigma^2 + 1), as if it began there.
    Raises InputError for a number of steps outside 1 to 999.
    """
    import torch

    if not 1 <= steps <= MAX_STEPS:
        raise InputError(f"The number of steps is {steps}, wanted 1 to {MAX_STEPS}; the published recipe uses {STEPS}.")
    times = torch.arange(steps - 1, -1, -1) * (TRAIN_STEPS // steps) + _OFFSET
    return sigmas_at(times.tolist())


def sigmas_at(times: "Sequence[int]") -> "torch.Tensor":
    """Noise levels of SDXL's times, 0 to 999, and a 0 behind them: float32 [len(times) + 1]."""
    import torch

    levels = _levels()
    return torch.cat([levels[list(times)], levels.new_zeros(1)]).float()


def _levels() -> "torch.Tensor":
    """SDXL's noise level at each of its 1000 times, smallest first, float64."""
    import torch

    betas = torch.linspace(BETA_START**0.5, BETA_END**0.5, TRAIN_STEPS, dtype=torch.float64) ** 2
    kept = torch.cumprod(1 - betas, dim=0)  # share of the picture left at each time
    return ((1 - kept) / kept).sqrt()


def parts_of_sampling(sigmas: "torch.Tensor") -> list[float]:
    """Where these noise levels lie in the sampling, from 0 (nothing but noise) to 1, as the host counts percents.

    A percent p is SDXL's time 999 x (1 - p); between two times the logarithm of the noise runs straight.
    """
    import numpy as np

    known = _levels().log().numpy()
    levels = sigmas.double().clamp(min=1e-9).log().numpy()
    return (1 - np.interp(levels, known, np.arange(TRAIN_STEPS)) / (TRAIN_STEPS - 1)).tolist()


def latent_size(width: int, height: int) -> tuple[int, int]:
    """(height, width) of the latent of a picture; raises InputError where a side is no multiple of 8 px."""
    for name, value in (("width", width), ("height", height)):
        if value < LATENT_SCALE or value % LATENT_SCALE:
            below = max(value // LATENT_SCALE, 1) * LATENT_SCALE
            raise InputError(
                f"The {name} is {value} px, wanted a multiple of {LATENT_SCALE}: SDXL works on cells of "
                f"{LATENT_SCALE} x {LATENT_SCALE} px. Use {below} or {below + LATENT_SCALE}."
            )
    return height // LATENT_SCALE, width // LATENT_SCALE
