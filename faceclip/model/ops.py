"""Default layer classes for `operations`: weights are cast to the input's device and dtype when used.

A host passes its own set (ComfyUI: `comfy.ops.manual_cast`) to keep control of where weights live.
"""

import torch
import torch.nn.functional as F
from torch import nn


def cast_like(parameter: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """A bare parameter on the device and in the dtype of `like`; hosts move layers, not bare parameters."""
    return parameter.to(device=like.device, dtype=like.dtype)


def _cast(layer: nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
    return cast_like(layer.weight, x), None if layer.bias is None else cast_like(layer.bias, x)


_CAST_AT_ONCE = 2**24  # weights cast at a time: the face encoder's largest layer would take 340 MB as a whole


class Linear(nn.Linear):
    """torch.nn.Linear, computed in the input's dtype; a very large weight is cast in parts, by output rows."""

    def forward(self, x):
        parts = -(-self.weight.numel() // _CAST_AT_ONCE)
        if parts == 1 or self.weight.dtype == x.dtype:
            return F.linear(x, *_cast(self, x))
        out = torch.cat([F.linear(x, cast_like(rows, x)) for rows in self.weight.chunk(parts)], dim=-1)
        return out if self.bias is None else out + cast_like(self.bias, x)


class LayerNorm(nn.LayerNorm):
    """torch.nn.LayerNorm, computed in the input's dtype."""

    def forward(self, x):
        return F.layer_norm(x, self.normalized_shape, *_cast(self, x), self.eps)


class RMSNorm(nn.RMSNorm):
    """torch.nn.RMSNorm, computed in the input's dtype."""

    def forward(self, x):
        return F.rms_norm(x, self.normalized_shape, cast_like(self.weight, x), self.eps)


class Conv2d(nn.Conv2d):
    """torch.nn.Conv2d, computed in the input's dtype."""

    def forward(self, x):
        return self._conv_forward(x, *_cast(self, x))


class Embedding(nn.Embedding):
    """torch.nn.Embedding; rows come out in the storage dtype, so the table is never cast as a whole."""


class FrozenBatchNorm1d(nn.Module):
    """BatchNorm1d over [B, C] in inference mode: hosts ship no class for it, and its statistics never change here.

    A leaf with its own casts: a host that loads only half a model moves it as one piece.
    """

    def __init__(self, channels: int, eps: float, device=None, dtype=None):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(channels, device=device, dtype=dtype), requires_grad=False)
        self.bias = nn.Parameter(torch.zeros(channels, device=device, dtype=dtype), requires_grad=False)
        self.register_buffer("running_mean", torch.zeros(channels, device=device, dtype=dtype))
        self.register_buffer("running_var", torch.ones(channels, device=device, dtype=dtype))
        self.register_buffer("num_batches_tracked", torch.zeros((), device=device, dtype=torch.long))

    def forward(self, x):
        mean, var, weight, bias = (
            cast_like(p, x) for p in (self.running_mean, self.running_var, self.weight, self.bias)
        )
        return F.batch_norm(x, mean, var, weight, bias, training=False, eps=self.eps)
