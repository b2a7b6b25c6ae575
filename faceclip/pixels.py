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
MOST_PIXELS = 200_000_000  # of one picture: 2.4 GB, and a few times that while it is worked on


def check_form(values: "torch.Tensor", what: str) -> None:
    """Raise InputError for a tensor that holds no plain numbers of its own. what: for the message, "the picture"."""
    import torch

    if values.is_nested:
        form = "a nested tensor"
    elif values.layout != torch.strided:
        form = "a sparse tensor"
    elif values.is_meta:
        form = "a tensor without values (meta)"
    else:
        return
    name = what[0].upper() + what[1:]
    raise InputError(f"{name} comes as {form}; a plain, dense one is wanted. Another node has to make it.")


def check_size(height: int, width: int, what: str) -> None:
    """Raise InputError for a picture or mask larger than memory is worth; what: as above."""
    if height * width > MOST_PIXELS:
        name = what[0].upper() + what[1:]
        raise InputError(
            f"{name} is {width} x {height} px, {height * width / 1e6:.0f} million pixels; at most "
            f"{MOST_PIXELS / 1e6:.0f} million are taken. Scale it down first."
        )


def to_unit_range(values: "torch.Tensor", what: str) -> "torch.Tensor":
    """The values as contiguous float32 on the CPU, clipped to 0 to 1 as the host clips a picture that it saves.

    values: floats, never changed. what: for the message, such as "the picture". Raises InputError for NaN and
    infinite values, and for another scale (0 to 255, -1 to 1): one that reaches further than a resampler overshoots.
    """
    import torch

    # Nodes hand on permuted and sliced tensors; OpenCV writes into plain memory only.
    values = values.detach().to(device="cpu", dtype=torch.float32).contiguous()
    low, high = (float(v) for v in torch.aminmax(values))
    if not (math.isfinite(low) and math.isfinite(high)):
        raise InputError(
            f"There are NaN or infinite values in {what}, as a failed VAE decode or a division by zero leaves them. "
            "Make it again."
        )
    if low < -OVERSHOOT or high > 1 + OVERSHOOT:
        if low >= -OVERSHOOT and high > 2:
            advice = "This looks like 0 to 255: divide by 255."
        elif low >= -1 - OVERSHOOT and high <= 1 + OVERSHOOT:
            advice = "This looks like -1 to 1: add 1 and halve it."
        else:
            advice = "Bring it to 0 to 1 first."
        raise InputError(f"The values of {what} run from {low:.3f} to {high:.3f}; 0 to 1 is wanted. {advice}")
    return values.clamp(0.0, 1.0)


def stack_of_masks(mask: "torch.Tensor", whose: str) -> "torch.Tensor":
    """A mask as the host's and other packs' nodes hand it out, as [N, H, W], its values as they are.

    mask: [H, W], [N, H, W], or with one channel: [N, 1, H, W], [N, H, W, 1]. whose: for the message, such as "the
    person's mask". Raises InputError for other shapes, which are mostly a picture in the wrong place.
    """
    check_form(mask, whose)
    shape = list(mask.shape)
    if mask.ndim == 2:
        mask = mask[None]
    elif mask.ndim == 4 and 1 in (shape[1], shape[3]):
        mask = mask.squeeze(1 if shape[1] == 1 else 3)
    if mask.ndim == 3:
        check_size(mask.shape[1], mask.shape[2], whose)
    picture = shape[-1:] in ([3], [4]) and shape[0] != shape[-1] and len(shape) > 2
    if mask.ndim != 3 or 0 in shape or (picture and shape[0] > shape[-1]):
        hint = " This looks like a picture" if picture else ""
        hint += ": put Convert Image to Mask between." if picture and len(shape) == 4 else "." if picture else ""
        raise InputError(f"The shape of {whose} is {shape}; [H, W] or [N, H, W] is wanted.{hint}")
    return mask


def check_masks(mask: "torch.Tensor", whose: str) -> "torch.Tensor":
    """Masks of any shape `stack_of_masks` takes, as contiguous float32 [N, H, W] on the CPU, clipped to 0 to 1.

    Raises InputError for another shape, another scale, and masks that are all black.
    """
    import torch

    masks = stack_of_masks(mask, whose)
    if masks.dtype != torch.bool and not masks.is_floating_point():
        raise InputError(f"The values of {whose} are {masks.dtype}; floats from 0 to 1 are wanted. Divide by 255.")
    masks = to_unit_range(masks, whose)
    if float(masks.max()) <= 0:
        name = whose[0].upper() + whose[1:]
        raise InputError(
            f"{name} is empty: no place is marked. Paint the place white. (Load Image gives an empty mask for a "
            "picture without transparency.)"
        )
    return masks
