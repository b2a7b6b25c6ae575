"""FaceCLIP: two CLIP text towers, each with its fuser, giving SDXL conditioning.

All arithmetic is float32 whatever the weights are stored in: the layers cast. The published weights are bf16, so the
result is that of float32 on those weights.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from . import ops, prompt, tokenizer
from .config import CONTEXT_LENGTH, VOCABULARY, FaceCLIPConfig, TextConfig
from .encoder import Identity, JointEncoder, TokenRule, face_position
from .face_encoder import FaceEncoder
from .fuser import DeformableAttention, Fuser
from .ops import Device, Dtype, Operations
from .text_tower import Transformer

BRANCHES = ("face_clip_l", "face_clip_g")
ROWS_AT_ONCE = 16  # of 77 tokens; about as quick as more are


class Branch(nn.Module):
    """One text tower with its fuser (face_clip_l or face_clip_g).

    `text_projection`, `logit_scale` and `logit_bias` serve training and scoring only.
    """

    def __init__(self, config: FaceCLIPConfig, text: TextConfig, operations: Operations, device: Device, dtype: Dtype):
        super().__init__()
        width, face_width = text.width, config.face.width
        bare: dict[str, Any] = {"device": device, "dtype": dtype}
        self.positional_embedding = nn.Parameter(torch.zeros(CONTEXT_LENGTH, width, **bare))
        self.text_projection = nn.Parameter(torch.zeros(width, width, **bare))
        self.logit_scale = nn.Parameter(torch.zeros((), **bare))
        self.logit_bias = nn.Parameter(torch.zeros((), **bare))
        self.transformer = Transformer(text, operations, device, dtype)
        self.token_embedding = operations.Embedding(VOCABULARY, width, **bare)
        self.ln_final = operations.LayerNorm(width, **bare)
        self.proj1 = operations.Linear(config.face.embed_dim, width, **bare)
        self.face_patch_proj = operations.Linear(face_width, width, **bare)
        self.face_pos_proj = operations.Linear(face_width, width, **bare)
        self.text_embed_proj = operations.Linear(width, width, **bare)
        self.text_pos_proj = operations.Linear(width, width, **bare)
        self.fuser = Fuser(width, config.fuser, DeformableAttention, operations, device, dtype)

    def encode_text(
        self,
        ids: torch.Tensor,
        identity_embedding: torch.Tensor | None = None,
        with_identity: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Hidden states after `ln_final`, float32 [R, 77, W].

        ids: int64 [R, 77]. identity_embedding: float32 [R, embed_dim], put in place of the prefix's token `id` in the
        rows where with_identity (bool [R]) is set.
        """
        x = self.token_embedding(ids).float()
        if with_identity is not None and with_identity.any():
            position = 1 + tokenizer.identity_offset()
            replaced = torch.where(with_identity[:, None], self.proj1(identity_embedding), x[:, position])
            x = torch.cat([x[:, :position], replaced[:, None], x[:, position + 1 :]], dim=1)
        x = x + ops.cast_like(self.positional_embedding, x)
        return self.ln_final(self.transformer(x))

    def fuse(self, text: torch.Tensor, patch_tokens: torch.Tensor, face_position: torch.Tensor) -> torch.Tensor:
        """Fused text [R, 77, W]. text: [R, 77, W]; patch_tokens: [R, 144, F]; face_position: [1, 144, F]."""
        return self.fuser(
            self.text_embed_proj(text),
            self.text_pos_proj(ops.cast_like(self.positional_embedding, text)),
            self.face_patch_proj(patch_tokens),
            self.face_pos_proj(face_position),
        )


class FaceCLIP(JointEncoder):
    """Both branches and their face encoder(s).

    shared_face_encoder: one encoder serves both branches, allowed only where the two copies are equal.
    """

    tokens = TokenRule(CONTEXT_LENGTH, prompt.tokenize, tokenizer.END)

    def __init__(
        self,
        config: FaceCLIPConfig,
        shared_face_encoder: bool = True,
        operations: Operations = ops,
        device: Device = None,
        dtype: Dtype = None,
    ):
        super().__init__(config)
        self.shared_face_encoder = shared_face_encoder
        self.face_clip_l = Branch(config, config.l, operations, device, dtype)
        self.face_clip_g = Branch(config, config.g, operations, device, dtype)
        if shared_face_encoder:
            self.face_encoder = FaceEncoder(config.face, operations, device, dtype)
        else:
            for branch in (self.face_clip_l, self.face_clip_g):
                branch.face_encoder = FaceEncoder(config.face, operations, device, dtype)

    def face_encoder_of(self, branch: str) -> FaceEncoder:
        """The face encoder that serves a branch ("face_clip_l" or "face_clip_g")."""
        return self.face_encoder if self.shared_face_encoder else getattr(self, branch).face_encoder

    @property
    def face_encoders(self) -> tuple[FaceEncoder, ...]:
        branches = BRANCHES[:1] if self.shared_face_encoder else BRANCHES
        return tuple(self.face_encoder_of(branch) for branch in branches)

    @property
    def widths(self) -> tuple[int, int]:
        return self.config.l.width + self.config.g.width, self.config.g.width

    def _joint(
        self,
        rows: Sequence[prompt.TokenRow],
        owner: list[int],
        identity: Identity | None,
        flags: list[bool],
        together: int,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        # Rows never see one another here, so a few at a time give the same, in memory that does not grow with them.
        passes = [
            self._few(rows[start : start + ROWS_AT_ONCE], owner[start : start + ROWS_AT_ONCE], identity, flags)
            for start in range(0, len(rows), ROWS_AT_ONCE)
        ]
        if len(passes) == 1:
            return passes[0]
        embeddings, pooled = zip(*passes, strict=True)
        return torch.cat(embeddings), torch.cat(pooled)

    def _few(
        self, rows: Sequence[prompt.TokenRow], owner: list[int], identity: Identity | None, flags: list[bool]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        ids = self._token_ids(rows)
        with_identity = torch.tensor([flags[i] for i in owner], device=self.pass_device)
        texts, fused = {}, []
        for name in BRANCHES:
            face = self._faces_of_rows(name[-1], owner, identity, flags)
            branch = getattr(self, name)
            text = texts[name] = branch.encode_text(ids, face.identity_embedding, with_identity)
            fused.append(branch.fuse(text, face.patch_tokens, face_position(self.face_encoder_of(name), text)))
        end = ids.argmax(dim=-1)  # the end token has the highest id
        pooled = texts["face_clip_g"][torch.arange(len(rows), device=self.pass_device), end]
        return torch.cat(fused, dim=-1), pooled
