"""CLIP-L's text model, for the one vector that FLUX takes of a prompt beside its tokens.

Source: transformers' `CLIPTextModel`, whose key names these modules have. (text_tower is the same network under
open_clip's names, with the identity in it.)
"""

import torch
import torch.nn.functional as F
from torch import nn

from .config import CONTEXT_LENGTH, VOCABULARY, TextConfig
from .ops import Device, Dtype, Operations
from .text_tower import ACTIVATIONS


class Attention(nn.Module):
    def __init__(self, config: TextConfig, operations: Operations, device: Device, dtype: Dtype):
        super().__init__()
        self.heads, width = config.heads, config.width
        self.q_proj = operations.Linear(width, width, device=device, dtype=dtype)
        self.k_proj = operations.Linear(width, width, device=device, dtype=dtype)
        self.v_proj = operations.Linear(width, width, device=device, dtype=dtype)
        self.out_proj = operations.Linear(width, width, device=device, dtype=dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, width = x.shape
        q, k, v = (
            layer(x).reshape(batch, length, self.heads, -1).transpose(1, 2)
            for layer in (self.q_proj, self.k_proj, self.v_proj)
        )
        x = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out_proj(x.transpose(1, 2).reshape(batch, length, width))


class Mlp(nn.Module):
    def __init__(self, config: TextConfig, operations: Operations, device: Device, dtype: Dtype):
        super().__init__()
        self.activation = ACTIVATIONS[config.activation]
        self.fc1 = operations.Linear(config.width, 4 * config.width, device=device, dtype=dtype)
        self.fc2 = operations.Linear(4 * config.width, config.width, device=device, dtype=dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc2(self.activation(self.fc1(x)))


class Layer(nn.Module):
    def __init__(self, config: TextConfig, operations: Operations, device: Device, dtype: Dtype):
        super().__init__()
        self.self_attn = Attention(config, operations, device, dtype)
        self.layer_norm1 = operations.LayerNorm(config.width, device=device, dtype=dtype)
        self.mlp = Mlp(config, operations, device, dtype)
        self.layer_norm2 = operations.LayerNorm(config.width, device=device, dtype=dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.self_attn(self.layer_norm1(x))
        return x + self.mlp(self.layer_norm2(x))


class Embeddings(nn.Module):
    def __init__(self, config: TextConfig, operations: Operations, device: Device, dtype: Dtype):
        super().__init__()
        self.token_embedding = operations.Embedding(VOCABULARY, config.width, device=device, dtype=dtype)
        self.position_embedding = operations.Embedding(CONTEXT_LENGTH, config.width, device=device, dtype=dtype)


class Encoder(nn.Module):
    def __init__(self, config: TextConfig, operations: Operations, device: Device, dtype: Dtype):
        super().__init__()
        self.layers = nn.ModuleList([Layer(config, operations, device, dtype) for _ in range(config.layers)])


class TextModel(nn.Module):
    def __init__(self, config: TextConfig, operations: Operations, device: Device, dtype: Dtype):
        super().__init__()
        self.embeddings = Embeddings(config, operations, device, dtype)
        self.encoder = Encoder(config, operations, device, dtype)
        self.final_layer_norm = operations.LayerNorm(config.width, device=device, dtype=dtype)


class ClipText(nn.Module):
    def __init__(self, config: TextConfig, operations: Operations, device: Device = None, dtype: Dtype = None):
        super().__init__()
        self.text_model = TextModel(config, operations, device, dtype)

    def forward(self, ids: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """The pooled output [R, W] of token ids int64 [R, 77]: the end token's last state, without a projection."""
        tables = self.text_model.embeddings
        x = tables.token_embedding(ids).to(dtype)
        x = x + tables.position_embedding(torch.arange(ids.shape[1], device=ids.device)).to(dtype)
        for layer in self.text_model.encoder.layers:
            x = layer(x)
        x = self.text_model.final_layer_norm(x)
        return x[torch.arange(len(ids), device=ids.device), ids.argmax(dim=-1)]  # the end token has the highest id
