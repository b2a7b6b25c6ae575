"""Pictures as they come in: checked once, for everything that is done with them."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from ..errors import InputError
from ..pixels import check_form, check_size, to_unit_range

_SMALLEST_SIDE = 16


class Pictures:
    """Pictures that were checked once: every function that takes pictures takes them.

    images: a batch as `check_pictures` takes it, or a list of batches: pictures of different sizes can only come as a
    list, and count as one batch. One picture is float32 [H, W, 3], [0, 1], on the CPU. InputError as in
    `check_pictures`.
    """

    def __init__(self, images: "torch.Tensor | Sequence[torch.Tensor] | Pictures"):
        if isinstance(images, Pictures):
            self._batches = images._batches
        else:
            batches = images if isinstance(images, Sequence) else [images]
            self._batches = [check_pictures(batch) for batch in batches]
        self._pictures = [picture for batch in self._batches for picture in batch]
        if not self._pictures:
            raise InputError("The list holds no picture; at least one is wanted.")

    def __len__(self) -> int:
        return len(self._pictures)

    def __getitem__(self, number: int) -> torch.Tensor:
        return self._pictures[number]

    def __iter__(self) -> Iterator[torch.Tensor]:
        return iter(self._pictures)

    @property
    def pixels(self) -> torch.Tensor:
        """All as one batch, float32 [B, H, W, 3]. InputError where they differ in size."""
        if len(self._batches) == 1:
            return self._batches[0]
        if len({picture.shape for picture in self._pictures}) > 1:
            raise InputError("The pictures of the list differ in size; one batch of one size is wanted here.")
        return torch.cat(self._batches)


def to_bytes(picture: torch.Tensor) -> np.ndarray:
    """One picture as uint8 [H, W, 3], rounded half to even; what numpy does in three passes over it, in one."""
    import cv2

    return np.asarray(cv2.convertScaleAbs(np.ascontiguousarray(picture.numpy()), alpha=255.0))


def size_of(picture: torch.Tensor) -> tuple[int, int]:
    """Width and height of one [H, W, 3] picture, in px."""
    return picture.shape[1], picture.shape[0]


def check_pictures(images: "torch.Tensor | Pictures") -> torch.Tensor:
    """Check a batch of pictures as the host hands it round; returns it as contiguous float32 [B, H, W, 3] on the CPU.

    images: float [B, H, W, 3], RGB, [0, 1], in any memory layout; never changed. Values that a resampler leaves outside
    [0, 1] are clipped (see `faceclip.pixels`). InputError, with what was seen and what to do, for anything else: other
    dimensions, whole numbers, alpha (only the user can say what lies behind it), a single channel (nearly always a mask
    in the wrong place; a grey photo has three equal channels), sides under 16 px, over 200 megapixels, sparse and
    nested tensors, NaN, another scale.
    """
    if isinstance(images, Pictures):
        return images.pixels
    if not isinstance(images, torch.Tensor):
        raise InputError(f"The pictures are a {type(images).__name__}; a float tensor [B, H, W, 3] is wanted.")
    check_form(images, "the picture")
    shape = tuple(images.shape)
    if images.ndim != 4:
        hint = " A mask is no picture; turn it into an image first." if images.ndim in (2, 3) else ""
        raise InputError(f"The pictures have shape {shape}; [B, H, W, 3] is wanted.{hint}")
    if shape[0] == 0:
        raise InputError("The batch holds no picture; at least one is wanted.")
    if not images.is_floating_point():
        raise InputError(f"The pictures are {images.dtype}; floats from 0 to 1 are wanted. Divide 8-bit values by 255.")
    _check_channels(shape)
    if min(shape[1:3]) < _SMALLEST_SIDE:
        raise InputError(
            f"The picture is {shape[2]} x {shape[1]} px; at least {_SMALLEST_SIDE} px a side are needed to show a "
            "face. Give the original photo."
        )
    check_size(shape[1], shape[2], "the picture")
    return to_unit_range(images, "the picture")


def _check_channels(shape: tuple[int, ...]) -> None:
    channels = shape[3]
    if channels == 3:
        return
    if channels == 4:
        what = "it has an alpha channel. Lay it on a background, or split the alpha off, before it comes here"
    elif channels == 1:
        what = "it has one grey channel. If it is a grey photo, turn it into RGB; if it is a mask, it is no picture"
    elif shape[1] == 3:
        what = "the channels seem to come first. Give [B, H, W, 3]"
    else:
        what = "give RGB pictures"
    raise InputError(f"The picture has {channels} channels (shape {shape}), 3 are wanted: {what}.")
