"""Training of the small face encoder: margin-softmax over people (CosFace, Wang et al., arXiv 1801.09414).

Beside it, the embedding must tell what the renderer knows of each person (hair, skin, ...).
"""

from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from ...files.state_dict import write_safetensors
from ...model.config import FaceConfig
from ...model.face_encoder import FaceEncoder
from ...model.ops import FrozenBatchNorm1d
from .cartoons.augment import move, soften, to_float
from .cartoons.character import CUES

FACE_FILE = "face_encoder.safetensors"
_CUE_SIZES = tuple(len(words) for words in CUES.values())
_CUE_SCALE = 8.0


class FaceTraining(nn.Module):
    """A batch in, the loss out.

    config: sizes of the encoder. people: number of classes. margin: taken off the right class's cosine, reached after
    `warmup` batches. A batch: crops uint8 or float [B, 3, S, S]; label [B], 0 to people - 1; cues
    [B, 11], index into each entry of identity.CUES.
    """

    batches: torch.Tensor

    def __init__(self, config: FaceConfig, people: int, margin: float = 0.3, scale: float = 30.0, warmup: int = 1000):
        super().__init__()
        self.encoder = trainable_encoder(config)
        self.cues = nn.Linear(config.embed_dim, sum(_CUE_SIZES))
        self.centres = nn.Parameter(torch.randn(people, config.embed_dim) * 0.05)
        self.margin, self.scale, self.warmup = margin, scale, warmup
        self.register_buffer("batches", torch.zeros((), dtype=torch.long))

    def forward(self, batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """ "loss", its parts "people" and "cues", and "accuracy" (share of faces nearest to their own centre)."""
        faces, label = to_float(batch["crops"]), batch["label"].long()
        if self.training:
            faces = soften(move(faces))
            self.batches += 1
        vector = self.encoder(faces).identity_embedding.float()
        cosine = vector @ F.normalize(self.centres.float(), dim=-1).T
        margin = self.margin * (self.batches / max(1, self.warmup)).clamp(0, 1)
        logits = self.scale * (cosine - margin * F.one_hot(label, len(self.centres)))
        people = F.cross_entropy(logits, label)
        cues = self._cue_loss(vector, batch["cues"].long())
        accuracy = (cosine.argmax(dim=-1) == label).float().mean()
        return {"loss": people + cues, "people": people.detach(), "cues": cues.detach(), "accuracy": accuracy.detach()}

    def _cue_loss(self, vector: torch.Tensor, cues: torch.Tensor) -> torch.Tensor:
        """Cross-entropy over what tells people apart. It makes minutes of training out of hours: thousands of people
        seen four times each say little about what matters."""
        logits = self.cues(_CUE_SCALE * vector).split(_CUE_SIZES, dim=-1)
        losses = [F.cross_entropy(part, cues[:, i]) for i, part in enumerate(logits)]
        return 2.0 * torch.stack(losses).sum()

    def export(self, folder: Path) -> None:
        """Write the encoder under the library's names; `faceclip.train.towers.read_face_encoder` reads it."""
        state = {key: value.detach().cpu().contiguous() for key, value in self.encoder.state_dict().items()}
        write_safetensors(state, Path(folder) / FACE_FILE, {}, force=True)


def trainable_encoder(config: FaceConfig) -> FaceEncoder:
    """A fresh encoder whose BatchNorms learn their statistics; its keys are those of the library's."""
    encoder = FaceEncoder(config, dtype=torch.float32)
    for place in (1, 3):
        frozen = encoder.feature[place]
        assert isinstance(frozen, FrozenBatchNorm1d)
        encoder.feature[place] = nn.BatchNorm1d(len(frozen.weight), eps=frozen.eps)
    for module in encoder.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            nn.init.trunc_normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    nn.init.trunc_normal_(encoder.pos_embed, std=0.02)
    encoder.mask_token.requires_grad_(False)  # belongs to another way of training
    return encoder


def frozen_encoder(training: FaceTraining) -> FaceEncoder:
    """The library's encoder with the trained weights, in inference mode."""
    encoder = FaceEncoder(training.encoder.config, dtype=torch.float32)
    encoder.load_state_dict(training.encoder.state_dict())
    return encoder.requires_grad_(False).eval()
