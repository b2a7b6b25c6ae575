"""The T5 v1.1 encoder: pre-norm, gated GELU, a learned bias for how far two tokens are apart, no mask.

Source: the published FaceT5 checkpoint, whose key names these modules have; the tower is T5 v1.1 XXL's.
"""

import math
from typing import cast

import torch
import torch.nn.functional as F
from torch import nn

from .config import T5_VOCABULARY, T5Config
from .ops import Device, Dtype, Operations

_BUCKETS, _FARTHEST = 32, 128  # of the relative positions


class PositionBias(nn.Module):
    """What a head adds to the score of two tokens for their distance; held by the first block, used by all."""

    def __init__(self, config: T5Config, operations: Operations, device: Device, dtype: Dtype):
        super().__init__()
        self.relative_attention_bias = operations.Embedding(_BUCKETS, config.num_heads, device=device, dtype=dtype)

    def forward(self, length: int, device: torch.device) -> torch.Tensor:
        """[1, heads, length, length], in the storage dtype."""
        places = torch.arange(length, device=device)
        buckets = distance_buckets(places[None, :] - places[:, None])
        return self.relative_attention_bias(buckets).permute(2, 0, 1)[None]


def distance_buckets(distance: torch.Tensor) -> torch.Tensor:
    """Which of 32 buckets a distance (key minus query, int64) falls into: 16 each way, 8 exact, 8 logarithmic."""
    half = _BUCKETS // 2
    exact = half // 2
    far = distance.abs()
    steps = torch.log(far.clamp(min=1).float() / exact) / math.log(_FARTHEST / exact) * (half - exact)
    bucket = torch.where(far < exact, far, (exact + steps.to(torch.long)).clamp(max=half - 1))
    return bucket + half * (distance > 0)


class SelfAttention(nn.Module):
    """Scores are not scaled; the bias comes from outside."""

    def __init__(self, config: T5Config, first: bool, operations: Operations, device: Device, dtype: Dtype):
        super().__init__()
        self.heads = config.num_heads
        inner = config.num_heads * config.d_kv
        self.Wq = operations.Linear(config.d_model, inner, bias=False, device=device, dtype=dtype)
        self.Wk = operations.Linear(config.d_model, inner, bias=False, device=device, dtype=dtype)
        self.Wv = operations.Linear(config.d_model, inner, bias=False, device=device, dtype=dtype)
        self.o = operations.Linear(inner, config.d_model, bias=False, device=device, dtype=dtype)
        if first:
            self.pe_encoding = PositionBias(config, operations, device, dtype)

    def forward(self, x: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        batch, length, _ = x.shape
        q, k, v = (
            layer(x).reshape(batch, length, self.heads, -1).transpose(1, 2) for layer in (self.Wq, self.Wk, self.Wv)
        )
        # Not F.scaled_dot_product_attention: unscaled scores are steep, and another order of work shows in float32.
        x = (q @ k.transpose(-1, -2) + bias).softmax(dim=-1, dtype=torch.float32).to(v.dtype) @ v
        return self.o(x.transpose(1, 2).reshape(batch, length, -1))


class SelfAttentionLayer(nn.Module):
    def __init__(self, config: T5Config, first: bool, operations: Operations, device: Device, dtype: Dtype):
        super().__init__()
        self.self_attention = SelfAttention(config, first, operations, device, dtype)
        self.layer_norm = operations.RMSNorm(config.d_model, eps=1e-6, device=device, dtype=dtype)

    def forward(self, x: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        return x + self.self_attention(self.layer_norm(x), bias)


class Gate(nn.Module):
    def __init__(self, config: T5Config, operations: Operations, device: Device, dtype: Dtype):
        super().__init__()
        self.wi_0 = operations.Linear(config.d_model, config.d_ff, bias=False, device=device, dtype=dtype)
        self.wi_1 = operations.Linear(config.d_model, config.d_ff, bias=False, device=device, dtype=dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.gelu(self.wi_0(x), approximate="tanh") * self.wi_1(x)


class FeedForwardLayer(nn.Module):
    def __init__(self, config: T5Config, operations: Operations, device: Device, dtype: Dtype):
        super().__init__()
        self.act = Gate(config, operations, device, dtype)
        self.layer_norm = operations.RMSNorm(config.d_model, eps=1e-6, device=device, dtype=dtype)
        self.wo = operations.Linear(config.d_ff, config.d_model, bias=False, device=device, dtype=dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.wo(self.act(self.layer_norm(x)))


class Block(nn.Module):
    def __init__(self, config: T5Config, first: bool, operations: Operations, device: Device, dtype: Dtype):
        super().__init__()
        self.self_attention_layer = SelfAttentionLayer(config, first, operations, device, dtype)
        self.ff_layer = FeedForwardLayer(config, operations, device, dtype)

    def forward(self, x: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        return self.ff_layer(self.self_attention_layer(x, bias))


class T5Encoder(nn.Module):
    def __init__(self, config: T5Config, operations: Operations, device: Device = None, dtype: Dtype = None):
        super().__init__()
        self.embed_tokens = operations.Embedding(T5_VOCABULARY, config.d_model, device=device, dtype=dtype)
        self.block = nn.ModuleList([Block(config, i == 0, operations, device, dtype) for i in range(config.num_layers)])
        self.final_layer_norm = operations.RMSNorm(config.d_model, eps=1e-6, device=device, dtype=dtype)

    def forward(self, ids: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """Hidden states [R, T, W] of token ids int64 [R, T], computed in dtype. Padding takes part, as published."""
        x = self.embed_tokens(ids).to(dtype)
        first = cast(Block, self.block[0])
        position = first.self_attention_layer.self_attention.pe_encoding
        bias = position(ids.shape[1], ids.device).to(dtype)
        for block in self.block:
            x = block(x, bias)
        return self.final_layer_norm(x)
