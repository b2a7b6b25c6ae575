"""A small network that reads a picture: every attribute of the scene, and the five landmarks of the face."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from ...errors import shown
from ...files.state_dict import read_state_dict, report_mismatch, write_safetensors
from .cartoons.augment import soften, to_float
from .cartoons.scene import ATTRIBUTES

CLASSIFIER_FILE = "classifier.safetensors"
_SIZES = tuple(len(words) for words in ATTRIBUTES.values())
# The mean place of the five landmarks; what is learnt is the difference, in units of 10 px.
_MEAN = ((50.5, 55.5), (76.5, 55.5), (63.5, 66.0), (54.0, 76.5), (73.0, 76.5))
_UNIT = 10.0


@dataclass(frozen=True)
class Reading:
    """logits: one [B, number of words] per attribute, in the order of ATTRIBUTES. landmarks: [B, 5, 2] px."""

    logits: tuple[torch.Tensor, ...]
    landmarks: torch.Tensor

    @property
    def attributes(self) -> torch.Tensor:
        """The likeliest word of each attribute, int64 [B, 8]."""
        return torch.stack([logits.argmax(dim=-1) for logits in self.logits], dim=1)


class Block(nn.Module):
    """A residual block of two 3 x 3 convolutions; the first may halve the size."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.second = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.skip = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.stride = stride

    def forward(self, x):
        y = self.norm2(self.second(F.relu(self.norm1(self.first(x)))))
        x = F.avg_pool2d(x, self.stride) if self.stride > 1 else x
        return F.relu(self.skip(x) + y)


class CartoonClassifier(nn.Module):
    """forward: pictures float [B, 3, 128, 128], RGB, [0, 1] -> Reading. width: channels of the first layer."""

    def __init__(self, width: int = 16):
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, width, 5, 2, 2, bias=False),  # 64 x 64
            nn.BatchNorm2d(width),
            nn.ReLU(),
        )
        self.blocks = nn.Sequential(
            Block(width, 2 * width, 2),  # 32 x 32
            Block(2 * width, 4 * width, 2),  # 16 x 16
            Block(4 * width, 6 * width, 2),  # 8 x 8
        )
        self.squeeze = nn.Sequential(nn.Conv2d(6 * width, 24, 1, bias=False), nn.BatchNorm2d(24), nn.ReLU())
        self.hidden = nn.Sequential(nn.Linear(24 * 64, 128, bias=False), nn.BatchNorm1d(128), nn.ReLU())
        self.attributes = nn.Linear(128, sum(_SIZES))
        self.landmarks = nn.Linear(128, 10)
        self.register_buffer("mean", torch.tensor(_MEAN), persistent=False)

    def forward(self, pictures: torch.Tensor) -> Reading:
        # NHWC in memory: convolutions on a CPU take two thirds of the time.
        x = self.blocks(self.stem((2 * pictures - 1).contiguous(memory_format=torch.channels_last)))
        x = self.hidden(self.squeeze(x).flatten(1))
        places = self.mean + _UNIT * self.landmarks(x).reshape(-1, 5, 2)
        return Reading(self.attributes(x).split(_SIZES, dim=1), places)


class ClassifierTraining(nn.Module):
    """A batch in, the loss out.

    A batch: pictures uint8 or float [B, 3, 128, 128]; attributes [B, 8]; landmarks [B, 5, 2] px; optionally
    round_trips, the same pictures after the autoencoder, which then stand in for half of them.
    """

    def __init__(self, width: int = 16):
        super().__init__()
        self.classifier = CartoonClassifier(width)
        self.classifier.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue] - not in torch's stub

    def forward(self, batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """ "loss", "accuracy" (mean over attributes) and "landmarks" (mean distance, px)."""
        pictures = to_float(batch["pictures"])
        if self.training:
            if "round_trips" in batch:
                swapped = torch.rand(len(pictures), 1, 1, 1, device=pictures.device) < 0.5
                pictures = torch.where(swapped, to_float(batch["round_trips"]), pictures)
            pictures = soften(pictures)
        reading, wanted = self.classifier(pictures), batch["attributes"].long()
        loss = sum(F.cross_entropy(logits, wanted[:, i]) for i, logits in enumerate(reading.logits))
        away = reading.landmarks - batch["landmarks"]
        return {
            "loss": loss + F.smooth_l1_loss(away / _UNIT, torch.zeros_like(away), beta=0.1),
            "accuracy": (reading.attributes == wanted).float().mean().detach(),
            "landmarks": away.norm(dim=-1).mean().detach(),
        }

    def export(self, folder: Path) -> None:
        state = {key: value.detach().cpu().contiguous() for key, value in self.classifier.state_dict().items()}
        write_safetensors(state, Path(folder) / CLASSIFIER_FILE, {}, force=True)


def load_classifier(path) -> CartoonClassifier:
    """A trained classifier from its file, in inference mode. CheckpointError for a file that is no such network."""
    state, _ = read_state_dict(path)
    stem, name = state.get("stem.0.weight"), shown(Path(path).name)
    width = stem.shape[0] if stem is not None and stem.ndim else 1
    with torch.device("meta"):  # without memory, until the file is known to have the weights
        empty = CartoonClassifier(width)
    shapes = {key: tuple(value.shape) for key, value in empty.state_dict().items()}
    report_mismatch(state, shapes, name, "a classifier of cartoons")
    classifier = CartoonClassifier(width)
    classifier.load_state_dict(state)
    return classifier.requires_grad_(False).eval()
