"""FaceT5: a T5 text tower with the fuser, and CLIP-L beside it, giving FLUX conditioning.

Arithmetic: float32 on a CPU, bf16 where the device has it (see `arithmetic`); the face pass is float32 everywhere, so
that an identity is the same numbers whichever family and machine read it.
"""

from collections.abc import Sequence
from typing import Any, cast

import torch

from . import ops, t5_prompt
from .clip_text import ClipText
from .config import T5_LENGTH, FaceT5Config, TextConfig
from .encoder import Identity, JointEncoder, TokenRule, face_position
from .face_encoder import FaceEncoder
from .fuser import BatchAttention, Fuser
from .ops import Device, Dtype, Operations
from .prompt import TokenRow
from .t5_tower import T5Encoder


def arithmetic(device: torch.device) -> torch.dtype:
    """What the prompt pass computes in: bf16, the published pipeline's, but on a CPU and on cards without it."""
    if device.type == "cpu" or (device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False)):
        return torch.float32
    return torch.bfloat16


class FaceT5(JointEncoder):
    """clip: the sizes of CLIP-L, None where a file has none; then `pooled` is None."""

    tokens = TokenRule(T5_LENGTH, t5_prompt.tokenize, t5_prompt.END)
    positional_embedding: torch.Tensor

    def __init__(
        self,
        config: FaceT5Config,
        clip: TextConfig | None = None,
        operations: Operations = ops,
        device: Device = None,
        dtype: Dtype = None,
    ) -> None:
        super().__init__(config)
        place: dict[str, Any] = {"device": device, "dtype": dtype}
        width, face_width = config.t5.d_model, config.face.width
        self.register_buffer("positional_embedding", torch.zeros(1, T5_LENGTH, width, **place))
        self.face_encoder = FaceEncoder(config.face, operations, **place)
        self.t5_encoder = T5Encoder(config.t5, operations, **place)
        self.face_patch_proj = operations.Linear(face_width, width, **place)
        self.face_pos_proj = operations.Linear(face_width, width, **place)
        self.fuser = Fuser(width, config.fuser, BatchAttention, operations, **place)
        self.encoder_1 = ClipText(clip, operations, **place) if clip else None
        self._pooled_width = clip.width if clip else None

    @property
    def face_encoders(self) -> tuple[FaceEncoder, ...]:
        return (self.face_encoder,)

    def encode_text(self, ids: torch.Tensor) -> torch.Tensor:
        """T5's hidden states [R, 512, W] of token ids int64 [R, 512]; rows that are equal are computed once."""
        different, place = torch.unique(ids, dim=0, return_inverse=True)
        return self.t5_encoder(different, arithmetic(self.pass_device))[place]

    def fuse(self, text: torch.Tensor, patch_tokens: torch.Tensor) -> torch.Tensor:
        """Fused text [R, 512, W]. text: [R, 512, W]; patch_tokens: [R, 144, F], whose faces see one another."""
        return self.fuser(
            text,
            ops.cast_like(self.positional_embedding, text),
            self.face_patch_proj(patch_tokens.to(text.dtype)),
            self.face_pos_proj(face_position(self.face_encoder, text)),
        )

    @property
    def widths(self) -> tuple[int, int | None]:
        return self.config.t5.d_model, self._pooled_width

    def _joint(
        self,
        rows: Sequence[TokenRow],
        owner: list[int],
        identity: Identity | None,
        flags: list[bool],
        together: int,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        patches = self._faces_of_rows("l", owner, identity, flags).patch_tokens
        text = self.encode_text(self._token_ids(rows))
        parts = (slice(0, together), *(slice(i, i + 1) for i in range(together, len(rows))))
        fused = torch.cat([self.fuse(text[part], patches[part]) for part in parts])
        return fused.float(), self._pooled(rows)

    def _pooled(self, rows: Sequence[TokenRow]) -> torch.Tensor | None:
        if self.encoder_1 is None:
            return None
        clip_ids = [cast(t5_prompt.T5Row, row).clip_ids for row in rows]  # as this family's tokenize gives them
        ids = torch.tensor(clip_ids, dtype=torch.long, device=self.pass_device)
        return self.encoder_1(ids, arithmetic(self.pass_device)).float()
