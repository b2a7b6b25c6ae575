"""Training of the small CLIPs: open_clip's own classes and loss, with text towers of FaceCLIP's sizes."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from ...files.state_dict import write_safetensors
from ...model.config import CONTEXT_LENGTH, VOCABULARY, TextConfig
from ..towers import CLIP_CONFIG_KEY, VisionTower
from .cartoons.augment import soften, to_float

IMAGE_SIZE = 64


def clip_config(text: TextConfig, vision_width: int = 16, vision_layers: tuple[int, ...] = (1, 1, 1, 1)) -> dict:
    """open_clip's config of a CLIP with this text tower and a small ResNet for pictures of 64 px."""
    return {
        "embed_dim": text.width,
        "quick_gelu": text.activation == "quick_gelu",
        "vision_cfg": {
            "image_size": IMAGE_SIZE,
            "layers": list(vision_layers),
            "width": vision_width,
            "head_width": vision_width * 2,
        },
        "text_cfg": {
            "context_length": CONTEXT_LENGTH,
            "vocab_size": VOCABULARY,
            "width": text.width,
            "heads": text.heads,
            "layers": text.layers,
        },
    }


class ClipTraining(nn.Module):
    """A batch in, the loss out. text: sizes of the text tower (its width is the embedding's).

    A batch: pictures uint8 or float [B, 3, H, W]; ids and joint_ids [B, 77]. Half of the captions are read behind the
    identity prefix, so that the tower knows them there too.
    """

    used: torch.Tensor

    def __init__(self, text: TextConfig, **vision):
        super().__init__()
        from open_clip.loss import ClipLoss
        from open_clip.model import CLIP

        self.config = clip_config(text, **vision)
        self.clip = CLIP(**self.config)
        assert isinstance(self.clip.token_embedding, nn.Embedding)
        nn.init.normal_(self.clip.token_embedding.weight, std=0.05)
        self.vision = VisionTower(self.clip.visual)
        self.loss = ClipLoss()
        self.register_buffer("used", torch.zeros(VOCABULARY, dtype=torch.bool))

    def forward(self, batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """ "loss" and "accuracy" (captions whose own picture is the nearest of the batch)."""
        pictures, ids = to_float(batch["pictures"]), batch["ids"].long()
        if self.training:
            # Made small first, and by whole pixels: the rest costs a quarter.
            pictures = F.avg_pool2d(pictures, pictures.shape[-1] // IMAGE_SIZE)
            pictures = soften(pictures, noise=0.02)
            prefixed = torch.rand(len(ids), 1, device=ids.device) < 0.5
            ids = torch.where(prefixed, batch["joint_ids"].long(), ids)
            self.used[ids.flatten()] = True
        image = nn.functional.normalize(self.vision(pictures), dim=-1)
        text = self.text_feature(ids)
        scale = self.clip.logit_scale.clamp(max=4.6052).exp()  # at most 100, as CLIP has it
        nearest = (text @ image.T).argmax(dim=-1)
        accuracy = (nearest == torch.arange(len(ids), device=ids.device)).float().mean()
        return {"loss": self.loss(image, text, scale), "accuracy": accuracy.detach()}

    def text_feature(self, ids: torch.Tensor) -> torch.Tensor:
        """CLIP.encode_text, L2-normalised, [B, W], without the padding behind the longest caption (attention is
        causal, so that nothing depends on it)."""
        clip: Any = self.clip  # its text tower's parts, which open_clip does not type
        length = int(ids.argmax(dim=-1).max()) + 1
        x = clip.token_embedding(ids[:, :length]) + clip.positional_embedding[:length]
        x = clip.ln_final(clip.transformer(x, attn_mask=clip.attn_mask[:length, :length]))
        x = x[torch.arange(len(ids), device=ids.device), ids.argmax(dim=-1)]
        return nn.functional.normalize(x @ clip.text_projection, dim=-1)

    def export(self, folder: Path, letter: str) -> None:
        """Write clip_LETTER.safetensors for `faceclip.train.towers.load_clip`; rows of unused tokens are zero."""
        state = {key: value.detach().cpu().contiguous() for key, value in self.clip.state_dict().items()}
        state["token_embedding.weight"] = state["token_embedding.weight"] * self.used.cpu()[:, None]
        write_safetensors(
            state, Path(folder) / f"clip_{letter}.safetensors", {CLIP_CONFIG_KEY: json.dumps(self.config)}, force=True
        )
