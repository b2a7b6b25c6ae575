"""The face recognition ViT: one aligned face in, an identity vector and 144 patch tokens out.

Source: the published FaceCLIP checkpoint; measured, not trained here, and always in inference mode.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from . import ops
from .config import ENCODER_SIZE, FACE_GRID, FACE_PATCH, FaceConfig
from .ops import Device, Dtype, Operations


@dataclass(frozen=True)
class FaceFeatures:
    """What the face encoder knows of B faces.

    class_token: float32 [B, embed_dim], not normalised. patch_tokens: float32 [B, 144, width].
    """

    class_token: torch.Tensor
    patch_tokens: torch.Tensor

    @property
    def identity_embedding(self) -> torch.Tensor:
        """The L2-normalised class token, [B, embed_dim]."""
        return F.normalize(self.class_token, dim=-1)

    @classmethod
    def cat(cls, parts: Sequence["FaceFeatures"]) -> "FaceFeatures":
        """All faces of `parts`, in order."""
        return cls(torch.cat([p.class_token for p in parts]), torch.cat([p.patch_tokens for p in parts]))

    def to(self, device: str | torch.device) -> "FaceFeatures":
        return FaceFeatures(self.class_token.to(device), self.patch_tokens.to(device))


class Attention(nn.Module):
    """Self-attention, qkv without bias."""

    def __init__(self, config: FaceConfig, operations: Operations, device: Device, dtype: Dtype):
        super().__init__()
        self.heads = config.heads
        self.qkv = operations.Linear(config.width, 3 * config.width, bias=False, device=device, dtype=dtype)
        self.proj = operations.Linear(config.width, config.width, device=device, dtype=dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, width = x.shape
        qkv = self.qkv(x).reshape(batch, length, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each [B, heads, tokens, head width]
        x = F.scaled_dot_product_attention(q, k, v)
        return self.proj(x.transpose(1, 2).reshape(batch, length, width))


class Mlp(nn.Module):
    def __init__(self, config: FaceConfig, operations: Operations, device: Device, dtype: Dtype):
        super().__init__()
        self.fc1 = operations.Linear(config.width, 4 * config.width, device=device, dtype=dtype)
        self.fc2 = operations.Linear(4 * config.width, config.width, device=device, dtype=dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc2(F.relu6(self.fc1(x)))


class Block(nn.Module):
    def __init__(self, config: FaceConfig, operations: Operations, device: Device, dtype: Dtype):
        super().__init__()
        self.norm1 = operations.LayerNorm(config.width, eps=1e-5, device=device, dtype=dtype)
        self.attn = Attention(config, operations, device, dtype)
        self.norm2 = operations.LayerNorm(config.width, eps=1e-5, device=device, dtype=dtype)
        self.mlp = Mlp(config, operations, device, dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class PatchEmbed(nn.Module):
    def __init__(self, config: FaceConfig, operations: Operations, device: Device, dtype: Dtype):
        super().__init__()
        self.proj = operations.Conv2d(
            3, config.width, kernel_size=FACE_PATCH, stride=FACE_PATCH, device=device, dtype=dtype
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.proj(x).flatten(2).transpose(1, 2)  # [B, width, 12, 12] -> [B, 144, width]


class FaceEncoder(nn.Module):
    """forward: aligned faces float32 [B, 3, H, W], RGB, [0, 1], no mean/std normalisation -> FaceFeatures."""

    def __init__(self, config: FaceConfig, operations: Operations = ops, device: Device = None, dtype: Dtype = None):
        super().__init__()
        self.config = config
        width, patches = config.width, FACE_GRID * FACE_GRID
        self.patch_embed = PatchEmbed(config, operations, device, dtype)
        self.pos_embed = nn.Parameter(torch.zeros(1, patches, width, device=device, dtype=dtype))
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width, device=device, dtype=dtype))
        self.blocks = nn.ModuleList([Block(config, operations, device, dtype) for _ in range(config.layers)])
        self.norm = operations.LayerNorm(width, eps=1e-5, device=device, dtype=dtype)
        self.feature = nn.ModuleList(
            [
                operations.Linear(patches * width, width, bias=False, device=device, dtype=dtype),
                ops.FrozenBatchNorm1d(width, 2e-5, device=device, dtype=dtype),
                operations.Linear(width, config.embed_dim, bias=False, device=device, dtype=dtype),
                ops.FrozenBatchNorm1d(config.embed_dim, 2e-5, device=device, dtype=dtype),
            ]
        )

    def forward(self, faces: torch.Tensor) -> FaceFeatures:
        x = F.interpolate(faces, size=(ENCODER_SIZE, ENCODER_SIZE), mode="bilinear", align_corners=False)
        x = self.patch_embed(x)
        x = x + ops.cast_like(self.pos_embed, x)
        for block in self.blocks:
            x = block(x)
        patches = self.norm(x)
        x = patches.flatten(1)
        for layer in self.feature:
            x = layer(x)
        return FaceFeatures(class_token=x, patch_tokens=patches)
