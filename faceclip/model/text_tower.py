"""The CLIP text tower of one branch: causal, pre-norm, with one token's embedding replaced by the identity.

Source: the published FaceCLIP checkpoint; the towers are CLIP ViT-L/14's and ViT-bigG/14's.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from .config import TextConfig
from .ops import Device, Dtype, Operations


def quick_gelu(x: torch.Tensor) -> torch.Tensor:
    return x * torch.sigmoid(1.702 * x)


ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {"quick_gelu": quick_gelu, "gelu": F.gelu}


class AttentionLayers(nn.Module):
    """Multi-head attention with torch.nn.MultiheadAttention's weights, its input projection kept as a layer.

    The published keys `in_proj_weight` and `in_proj_bias` become `in_proj.weight` and `in_proj.bias`: a host moves
    layers, and would leave bare parameters behind.
    """

    def __init__(self, width: int, heads: int, operations: Operations, device: Device, dtype: Dtype):
        super().__init__()
        self.heads = heads
        self.in_proj = operations.Linear(width, 3 * width, device=device, dtype=dtype)
        self.out_proj = operations.Linear(width, width, device=device, dtype=dtype)

    def attend(self, x: torch.Tensor, position: torch.Tensor | None = None, causal: bool = False) -> torch.Tensor:
        """x: [B, T, W]. position: added for queries and keys, not for values. causal: mask later tokens."""
        batch, length, width = x.shape
        if position is None:
            q, k, v = self.in_proj(x).chunk(3, dim=-1)
        else:
            # One projection of both inputs, so that the layer's weight is cast and read once.
            projected = self.in_proj(torch.cat([x + position, x]))
            q, k, _ = projected[:batch].chunk(3, dim=-1)
            v = projected[batch:, :, 2 * width :]
        q, k, v = (t.reshape(batch, length, self.heads, -1).transpose(1, 2) for t in (q, k, v))
        x = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
        return self.out_proj(x.transpose(1, 2).reshape(batch, length, width))


class MultiheadAttention(AttentionLayers):
    """Each token of a row reads the tokens of its own row."""

    def forward(self, x: torch.Tensor, position: torch.Tensor | None = None, causal: bool = False) -> torch.Tensor:
        return self.attend(x, position, causal)


class Mlp(nn.Module):
    def __init__(self, config: TextConfig, operations: Operations, device: Device, dtype: Dtype):
        super().__init__()
        self.activation = ACTIVATIONS[config.activation]
        self.c_fc = operations.Linear(config.width, 4 * config.width, device=device, dtype=dtype)
        self.c_proj = operations.Linear(4 * config.width, config.width, device=device, dtype=dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.c_proj(self.activation(self.c_fc(x)))


class ResidualBlock(nn.Module):
    def __init__(self, config: TextConfig, operations: Operations, device: Device, dtype: Dtype):
        super().__init__()
        self.ln_1 = operations.LayerNorm(config.width, device=device, dtype=dtype)
        self.attn = MultiheadAttention(config.width, config.heads, operations, device, dtype)
        self.ln_2 = operations.LayerNorm(config.width, device=device, dtype=dtype)
        self.mlp = Mlp(config, operations, device, dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attn(self.ln_1(x), causal=True)
        return x + self.mlp(self.ln_2(x))


class Transformer(nn.Module):
    """The causal stack: [B, T, W] -> [B, T, W]."""

    def __init__(self, config: TextConfig, operations: Operations, device: Device, dtype: Dtype):
        super().__init__()
        self.resblocks = nn.ModuleList([ResidualBlock(config, operations, device, dtype) for _ in range(config.layers)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.resblocks:
            x = block(x)
        return x
