"""The fuser: six rounds in which text and face look at each other; only the text comes out.

Source: the published checkpoints. The fusion layer is a two-way cross-attention with one score matrix. How the face
attends to itself is a family's own: over the 12 x 12 patch grid by deformable attention, or plainly.
"""

from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import nn

from .config import FACE_GRID, FuserConfig, FuserSizes
from .ops import Device, Dtype, Operations, cast_like
from .text_tower import AttentionLayers, MultiheadAttention

SCORE_LIMIT = 50000.0


class BiAttention(nn.Module):
    """Attention both ways between face (v) and text (l) tokens, from one score matrix."""

    def __init__(self, width: int, config: FuserSizes, operations: Operations, device: Device, dtype: Dtype):
        super().__init__()
        self.heads = config.heads // 2
        inner = config.feedforward // 2
        self.v_proj = operations.Linear(width, inner, device=device, dtype=dtype)
        self.l_proj = operations.Linear(width, inner, device=device, dtype=dtype)
        self.values_v_proj = operations.Linear(width, inner, device=device, dtype=dtype)
        self.values_l_proj = operations.Linear(width, inner, device=device, dtype=dtype)
        self.out_v_proj = operations.Linear(inner, width, device=device, dtype=dtype)
        self.out_l_proj = operations.Linear(inner, width, device=device, dtype=dtype)

    def _split(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(x.shape[0], x.shape[1], self.heads, -1).transpose(1, 2)  # [B, heads, T, d]

    @staticmethod
    def _join(x: torch.Tensor) -> torch.Tensor:
        return x.transpose(1, 2).flatten(2)

    def forward(
        self,
        v: torch.Tensor,
        l: torch.Tensor,  # noqa: E741
        text_only: bool,
    ) -> tuple[torch.Tensor | None, torch.Tensor]:
        """v: [B, 144, W], l: [B, T, W]. Returns (delta_v, delta_l); delta_v is None where text_only."""
        q, k = self._split(self.v_proj(v)), self._split(self.l_proj(l))
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
        scores = scores.clamp(-SCORE_LIMIT, SCORE_LIMIT)
        to_text = scores.transpose(-1, -2).softmax(dim=-1) @ self._split(self.values_v_proj(v))
        delta_l = self.out_l_proj(self._join(to_text))
        if text_only:
            return None, delta_l
        to_face = scores.softmax(dim=-1) @ self._split(self.values_l_proj(l))
        return self.out_v_proj(self._join(to_face)), delta_l


class FusionLayer(nn.Module):
    """The residual starts from the normalised tokens, as published."""

    def __init__(self, width: int, config: FuserSizes, operations: Operations, device: Device, dtype: Dtype):
        super().__init__()
        self.layer_norm_v = operations.LayerNorm(width, device=device, dtype=dtype)
        self.layer_norm_l = operations.LayerNorm(width, device=device, dtype=dtype)
        self.attn = BiAttention(width, config, operations, device, dtype)
        self.gamma_v = nn.Parameter(torch.ones(width, device=device, dtype=dtype))
        self.gamma_l = nn.Parameter(torch.ones(width, device=device, dtype=dtype))

    def forward(
        self, face: torch.Tensor, text: torch.Tensor, text_only: bool
    ) -> tuple[torch.Tensor | None, torch.Tensor]:
        v, l = self.layer_norm_v(face), self.layer_norm_l(text)  # noqa: E741
        delta_v, delta_l = self.attn(v, l, text_only)
        text = l + cast_like(self.gamma_l, l) * delta_l
        return (None if text_only else v + cast_like(self.gamma_v, v) * delta_v), text


class TextLayer(nn.Module):
    """Post-norm transformer layer over the text, with no mask of any kind."""

    def __init__(self, width: int, config: FuserSizes, operations: Operations, device: Device, dtype: Dtype):
        super().__init__()
        feedforward = config.feedforward // 2
        self.self_attn = MultiheadAttention(width, config.heads // 2, operations, device, dtype)
        self.norm1 = operations.LayerNorm(width, device=device, dtype=dtype)
        self.linear1 = operations.Linear(width, feedforward, device=device, dtype=dtype)
        self.linear2 = operations.Linear(feedforward, width, device=device, dtype=dtype)
        self.norm2 = operations.LayerNorm(width, device=device, dtype=dtype)

    def forward(self, text: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
        text = self.norm1(text + self.self_attn(text, position))
        return self.norm2(text + self.linear2(F.relu(self.linear1(text))))


class DeformableAttention(nn.Module):
    """Each patch reads a few bilinear samples around its own cell of the grid (zeros outside)."""

    def __init__(self, width: int, config: FuserConfig, operations: Operations, device: Device, dtype: Dtype):
        super().__init__()
        self.heads, self.points = config.heads, config.points
        samples = self.heads * self.points
        self.sampling_offsets = operations.Linear(width, 2 * samples, device=device, dtype=dtype)
        self.attention_weights = operations.Linear(width, samples, device=device, dtype=dtype)
        self.value_proj = operations.Linear(width, width, device=device, dtype=dtype)
        self.output_proj = operations.Linear(width, width, device=device, dtype=dtype)

    def forward(self, face: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
        query = face + position
        batch, length, width = query.shape
        heads, points = self.heads, self.points
        offsets = self.sampling_offsets(query).reshape(batch, length, heads, points, 2)
        weights = self.attention_weights(query).reshape(batch, length, heads, points).softmax(dim=-1)
        centres = (torch.arange(FACE_GRID, device=query.device, dtype=query.dtype) + 0.5) / FACE_GRID
        y, x = torch.meshgrid(centres, centres, indexing="ij")
        reference = torch.stack([x, y], dim=-1).reshape(1, length, 1, 1, 2)
        grid = 2 * (reference + offsets / FACE_GRID) - 1  # the cells' [0, 1] -> grid_sample's [-1, 1]
        grid = grid.permute(0, 2, 1, 3, 4).reshape(batch * heads, length, points, 2)
        value = self.value_proj(face).transpose(1, 2).reshape(batch * heads, -1, FACE_GRID, FACE_GRID)
        sampled = F.grid_sample(value, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        weights = weights.permute(0, 2, 1, 3).reshape(batch * heads, 1, length, points)
        out = (sampled * weights).sum(dim=-1)  # [B * heads, head width, 144]
        return self.output_proj(out.reshape(batch, width, length).transpose(1, 2))


class BatchAttention(AttentionLayers):
    """Each patch reads the same patch of all faces of the batch, itself included; alone it reads only itself.

    Not what one would build, but what the published FaceT5 was trained with: its layer takes tokens first and is given
    batches first. So the faces of one published batch see one another.
    """

    def __init__(self, width: int, config: FuserSizes, operations: Operations, device: Device, dtype: Dtype):
        super().__init__(width, config.heads, operations, device, dtype)

    def forward(self, face: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
        return self.attend(face.transpose(0, 1), position.expand_as(face).transpose(0, 1)).transpose(0, 1)


class FaceAttention(Protocol):
    """Makes how the face attends to itself: a module with forward(face [B, 144, W], position [1, 144, W])."""

    def __call__(self, width: int, config: Any, operations: Operations, device: Device, dtype: Dtype) -> nn.Module: ...


class FaceLayer(nn.Module):
    """Post-norm layer over the face."""

    def __init__(
        self,
        width: int,
        config: FuserSizes,
        attention: FaceAttention,
        operations: Operations,
        device: Device,
        dtype: Dtype,
    ):
        super().__init__()
        self.self_attn = attention(width, config, operations, device, dtype)
        self.norm1 = operations.LayerNorm(width, device=device, dtype=dtype)
        self.linear1 = operations.Linear(width, config.feedforward, device=device, dtype=dtype)
        self.linear2 = operations.Linear(config.feedforward, width, device=device, dtype=dtype)
        self.norm2 = operations.LayerNorm(width, device=device, dtype=dtype)

    def forward(self, face: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
        face = self.norm1(face + self.self_attn(face, position))
        return self.norm2(face + self.linear2(F.relu(self.linear1(face))))


class FuserEncoder(nn.Module):
    def __init__(
        self,
        width: int,
        config: FuserSizes,
        attention: FaceAttention,
        operations: Operations,
        device: Device,
        dtype: Dtype,
    ):
        super().__init__()
        rounds, place = range(config.layers), (operations, device, dtype)
        self.layers = nn.ModuleList([FaceLayer(width, config, attention, *place) for _ in rounds])
        self.text_layers = nn.ModuleList([TextLayer(width, config, *place) for _ in rounds])
        self.fusion_layers = nn.ModuleList([FusionLayer(width, config, *place) for _ in rounds])

    def forward(
        self, text: torch.Tensor, text_position: torch.Tensor, face: torch.Tensor, face_position: torch.Tensor
    ) -> torch.Tensor:
        last = len(self.layers) - 1
        for i, (fusion, text_layer, face_layer) in enumerate(
            zip(self.fusion_layers, self.text_layers, self.layers, strict=True)
        ):
            # Nothing reads the face after the last fusion, so its update and the last face layer are not run.
            face, text = fusion(face, text, text_only=i == last)
            text = text_layer(text, text_position)
            if i != last:
                face = face_layer(face, face_position)
        return text


class Fuser(nn.Module):
    """forward: text [B, T, W], its position [T, W] or [1, T, W], face [B, 144, W], its position [1, 144, W] ->
    [B, T, W].

    attention: makes the face layers' own. `enc_output` and `enc_output_norm` are in the published files and unused by
    generation.
    """

    def __init__(
        self,
        width: int,
        config: FuserSizes,
        attention: FaceAttention,
        operations: Operations,
        device: Device,
        dtype: Dtype,
    ):
        super().__init__()
        self.encoder = FuserEncoder(width, config, attention, operations, device, dtype)
        self.enc_output = operations.Linear(width, width, device=device, dtype=dtype)
        self.enc_output_norm = operations.LayerNorm(width, device=device, dtype=dtype)

    def forward(
        self, text: torch.Tensor, text_position: torch.Tensor, face: torch.Tensor, face_position: torch.Tensor
    ) -> torch.Tensor:
        return self.encoder(text, text_position, face, face_position)
