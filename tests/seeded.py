"""Random weights that are the same on every machine, for tests that need a large or an odd model."""

import math
import zlib
from collections.abc import Callable

import torch


def seeded(
    shapes: dict[str, tuple[int, ...]],
    gain: Callable[[str], float] = lambda key: 1.0,
    dtype: torch.dtype = torch.float32,
) -> dict[str, torch.Tensor]:
    """Weights of unit gain per layer: normal, scaled by the number of inputs and `gain`; scales 1, biases 0.

    Each value depends on its key alone, so the order of keys does not matter.
    """
    state = {}
    for key, shape in shapes.items():
        if len(shape) > 1:
            generator = torch.Generator().manual_seed(zlib.crc32(key.encode()))
            spread = gain(key) / math.sqrt(math.prod(shape[1:]))
            state[key] = (torch.randn(shape, generator=generator) * spread).to(dtype)
        else:
            state[key] = torch.full(shape, float(key.endswith("weight")), dtype=dtype)
    return state
