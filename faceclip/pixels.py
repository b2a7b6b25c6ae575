"""Values of pictures and masks: one memory layout, one scale."""

import math
from typing import TYPE_CHECKING

from .errors import InputError

if TYPE_CHECKING:
    import torch

# How far outside 0 to 1 a resampler may leave a value. Measured on ComfyUI's ImageScaleBy, whose only method that
# overshoots is bicubic (tests/host/test_pictures.py): photos and cartoons reach -0.11 to 1.26, after up to four in a
# row -0.16 to 1.31; black and white dots -0.43 to 1.44, and the filter's own bound is 0.445.
OVERSHOOT = 0.5


def to_unit_range(values: "torch.Tensor", what: str) -> "torch.Tensor":
    """The values as contiguous float32 on the CPU, clipped to 0 to 1 as the host clips a picture that it saves.

    values: floats, never changed. what: for the message, such as "The picture's". Raises InputError for NaN and
    infinite values, and for another scale (0 to 255, -1 to 1): one that reaches further than a resampler overshoots.
    """
    import torch

    # Nodes hand on permuted and sliced tensors; OpenCV writes into plain memory only.
    values = values.detach().to(device="cpu", dtype=torch.float32).contiguous()
    low, high = (float(v) for v in torch.aminmax(values))
    if not (math.isfinite(low) and math.isfinite(high)):
        raise InputError(
            f"{what} values hold NaN or infinite ones, as a failed VAE decode or a division by zero leaves them. Make "
            "it again."
        )
    if low < -OVERSHOOT or high > 1 + OVERSHOOT:
        if low >= -OVERSHOOT and high > 2:
            advice = "This looks like 0 to 255: divide by 255."
        elif low >= -1 - OVERSHOOT and high <= 1 + OVERSHOOT:
            advice = "This looks like -1 to 1: add 1 and halve it."
        else:
            advice = "Bring it to 0 to 1 first."
        raise InputError(f"{what} values run from {low:.3f} to {high:.3f}; 0 to 1 is wanted. {advice}")
    return values.clamp(0.0, 1.0)
