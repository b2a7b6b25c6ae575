"""Default layer classes for `operations`: weights are cast to the input's device and dtype when used.

A host passes its own set (ComfyUI: `comfy.ops.manual_cast`) to keep control of where weights live.
"""

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import nn

Device = torch.device | str | None  # None: torch's default
Dtype = torch.dtype | None


class Operations(Protocol):
    """What `operations` holds: this module, or a host's own set."""

    @property
    def Linear(self) -> type[nn.Linear]: ...
    @property
    def LayerNorm(self) -> type[nn.LayerNorm]: ...
    @property
    def RMSNorm(self) -> type[nn.RMSNorm]: ...
    @property
    def Conv2d(self) -> type[nn.Conv2d]: ...
    @property
    def Embedding(self) -> type[nn.Embedding]: ...


def cast_like(parameter: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """A bare parameter on the device and in the dtype of `like`; hosts move layers, not bare parameters."""
    return parameter.to(device=like.device, dtype=like.dtype)


def _bias(bias: torch.Tensor | None, like: torch.Tensor) -> torch.Tensor | None:
    return None if bias is None else cast_like(bias, like)


_CAST_AT_ONCE = 2**24  # weights cast at a time: the face encoder's largest layer would take 340 MB as a whole


class Linear(nn.Linear):
    """torch.nn.Linear, computed in the input's dtype; a very large weight is cast in parts, by output rows."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        parts = -(-self.weight.numel() // _CAST_AT_ONCE)
        if parts == 1 or self.weight.dtype == input.dtype:
            return F.linear(input, cast_like(self.weight, input), _bias(self.bias, input))
        out = torch.cat([F.linear(input, cast_like(rows, input)) for rows in self.weight.chunk(parts)], dim=-1)
        bias = _bias(self.bias, input)
        return out if bias is None else out + bias


class LayerNorm(nn.LayerNorm):
    """torch.nn.LayerNorm, computed in the input's dtype."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return F.layer_norm(
            input, self.normalized_shape, cast_like(self.weight, input), _bias(self.bias, input), self.eps
        )


class RMSNorm(nn.RMSNorm):
    """torch.nn.RMSNorm, computed in the input's dtype."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.rms_norm(x, list(self.normalized_shape), cast_like(self.weight, x), self.eps)


class Conv2d(nn.Conv2d):
    """torch.nn.Conv2d, computed in the input's dtype."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return self._conv_forward(input, cast_like(self.weight, input), _bias(self.bias, input))


class Embedding(nn.Embedding):
    """torch.nn.Embedding; rows come out in the storage dtype, so the table is never cast as a whole."""


class FrozenBatchNorm1d(nn.Module):
    """BatchNorm1d over [B, C] in inference mode: hosts ship no class for it, and its statistics never change here.

    A leaf with its own casts: a host that loads only half a model moves it as one piece.
    """

    running_mean: torch.Tensor
    running_var: torch.Tensor

    def __init__(self, channels: int, eps: float, device: Device = None, dtype: Dtype = None):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(channels, device=device, dtype=dtype), requires_grad=False)
        self.bias = nn.Parameter(torch.zeros(channels, device=device, dtype=dtype), requires_grad=False)
        self.register_buffer("running_mean", torch.zeros(channels, device=device, dtype=dtype))
        self.register_buffer("running_var", torch.ones(channels, device=device, dtype=dtype))
        self.register_buffer("num_batches_tracked", torch.zeros((), device=device, dtype=torch.long))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mean, var, weight, bias = (
            cast_like(p, x) for p in (self.running_mean, self.running_var, self.weight, self.bias)
        )
        return F.batch_norm(x, mean, var, weight, bias, training=False, eps=self.eps)
