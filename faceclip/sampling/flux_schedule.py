"""The published FaceT5-FLUX recipe: picture size, steps, guidance and noise levels.

Source: the published FaceT5 example, with FLUX.1-dev's scheduler: Euler steps of flow matching, the levels shifted the
more the larger the picture is.
"""

import math
from typing import TYPE_CHECKING

from ..errors import InputError

if TYPE_CHECKING:
    import torch

WIDTH = 864  # px
HEIGHT = 1152
STEPS = 50
MAX_STEPS = 1000
GUIDANCE = 3.5  # true classifier-free guidance, with a negative prompt
DISTILLED_GUIDANCE = 1.0  # what FLUX.1-dev is told in place of guidance
LATENT_SCALE = 8  # px of the picture for each cell of the latent
LATENT_CHANNELS = 16
SIZE_STEP = 16  # px: a token of the transformer is 2 x 2 cells

# The shift of a picture of as many tokens, and between the two on a line.
_SMALL_TOKENS, _SMALL_SHIFT = 256, 0.5
_LARGE_TOKENS, _LARGE_SHIFT = 4096, 1.15


def shift_of(width: int, height: int) -> float:
    """FLUX.1-dev's shift for a picture of this size in px."""
    tokens = (width // SIZE_STEP) * (height // SIZE_STEP)
    slope = (_LARGE_SHIFT - _SMALL_SHIFT) / (_LARGE_TOKENS - _SMALL_TOKENS)
    return _SMALL_SHIFT + slope * (tokens - _SMALL_TOKENS)


def published_sigmas(width: int = WIDTH, height: int = HEIGHT, steps: int = STEPS) -> "torch.Tensor":
    """Noise levels of `steps` Euler steps, largest first, ending in 0: float32 [steps + 1].

    Raises InputError for a number of steps outside 1 to 1000.
    """
    import torch

    if not 1 <= steps <= MAX_STEPS:
        raise InputError(f"The number of steps is {steps}, wanted 1 to {MAX_STEPS}; the published recipe uses {STEPS}.")
    levels = torch.linspace(1.0, 1.0 / steps, steps, dtype=torch.float64)
    factor = math.exp(shift_of(width, height))
    shifted = factor / (factor + (1.0 / levels - 1.0))
    return torch.cat([shifted, shifted.new_zeros(1)]).float()


def parts_of_sampling(sigmas: "torch.Tensor") -> list[float]:
    """Where these noise levels lie in the sampling, from 0 (nothing but noise) to 1, as the host counts percents.

    The host shifts percents as for a picture of 4096 tokens, whatever the picture's size.
    """
    levels = sigmas.double()
    return (1 - 1 / (1 + math.exp(_LARGE_SHIFT) * (1 / levels - 1))).tolist()


def latent_size(width: int, height: int) -> tuple[int, int]:
    """(height, width) of the latent of a picture; raises InputError where a side is no multiple of 16 px."""
    for name, value in (("width", width), ("height", height)):
        if value < SIZE_STEP or value % SIZE_STEP:
            below = max(value // SIZE_STEP, 1) * SIZE_STEP
            raise InputError(
                f"The {name} is {value} px, wanted a multiple of {SIZE_STEP}: FLUX works on tokens of {SIZE_STEP} x "
                f"{SIZE_STEP} px. Use {below} or {below + SIZE_STEP}."
            )
    return height // LATENT_SCALE, width // LATENT_SCALE
