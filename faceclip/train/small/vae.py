"""The small VAE: an autoencoder of TAESD's topology, narrow enough to train on a CPU in minutes.

ComfyUI's loader knows TAESD only in one shape, 64 channels wide at every size, most of whose cost lies at high
resolution. `SmallVAE` has fewer channels there and fewer residual blocks; `to_taesd` pads it with zeros to the full
shape, which then computes exactly the same.
"""

import functools
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from ...errors import CheckpointError, InputError, shown
from ...files.state_dict import State, read_state_dict, report_mismatch, write_safetensors
from ...small import models as small

FACTOR = 8  # picture pixels per latent pixel, along each side
_LIMIT = 3.0  # the decoder bends its input into (-3, 3), as TAESD does
VAE_FILE = "vae.safetensors"
METADATA_KEY = "toy_vae"
_WIDEST = small.vae_shapes()["taesd_encoder.0.weight"][0]
_ROOM = (1, 3, 3, 3)  # blocks that TAESD has per size


@dataclass(frozen=True)
class SmallVAEConfig:
    """Widths and numbers of residual blocks, from the picture's size down to the latent's (1/8); and the loss.

    crop: side of the square that training cuts from each picture, a multiple of 8; 0 takes whole pictures.
    noise: standard deviation of what is added to latents of unit variance before they are decoded in training.
    edges, squares, colours: weights of the error's gradients, of the squared error and of the error of each cell's mean
    colour, beside L1's weight of 1.
    """

    encoder_widths: tuple[int, ...] = (16, 32, 48, 64)
    encoder_blocks: tuple[int, ...] = (0, 0, 1, 2)
    decoder_widths: tuple[int, ...] = (16, 32, 48, 64)
    decoder_blocks: tuple[int, ...] = (0, 1, 1, 2)
    crop: int = 0
    noise: float = 0.05
    edges: float = 1.0
    squares: float = 2.0
    colours: float = 2.0

    def __post_init__(self):
        for name in ("encoder", "decoder"):
            widths, blocks = getattr(self, f"{name}_widths"), getattr(self, f"{name}_blocks")
            fits = len(widths) == len(blocks) == len(_ROOM) and all(0 < w <= _WIDEST for w in widths)
            if not fits or any(not 0 <= count <= most for count, most in zip(blocks, _ROOM, strict=True)):
                raise InputError(
                    f"The small VAE's {name} has widths {list(widths)} and blocks {list(blocks)}; wanted four widths "
                    f"from 1 to {_WIDEST} and four numbers of blocks of at most {list(_ROOM)}, to fit TAESD's shape."
                )
        if self.crop < 0 or self.crop % FACTOR:
            raise InputError(f"crop is {self.crop}, wanted a multiple of {FACTOR}, or 0 for whole pictures.")

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "SmallVAEConfig":
        try:
            values: dict[str, Any] = json.loads(text)
            values |= {key: tuple(value) for key, value in values.items() if isinstance(value, list)}
            return cls(**values)
        except InputError:
            raise
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise CheckpointError(
                f"The small VAE's sizes cannot be read: {shown(error)}. Train it again, or install the pack again."
            ) from error


class Block(nn.Module):
    """A residual block [B, C, h, w] -> the same, not negative."""

    def __init__(self, width: int):
        super().__init__()
        self.conv = nn.Sequential(_conv(width, width), nn.ReLU(), _conv(width, width), nn.ReLU(), _conv(width, width))

    @property
    def convolutions(self) -> list[nn.Conv2d]:
        return [layer for layer in self.conv if isinstance(layer, nn.Conv2d)]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(x + self.conv(x))


def _conv(inputs: int, outputs: int, stride: int = 1, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=bias)


class _Stage(nn.Sequential):
    """Blocks of one size; with none of them, the ReLU that a block of zeros leaves."""

    def __init__(self, width: int, blocks: int):
        super().__init__(*(Block(width) for _ in range(blocks)) if blocks else [nn.ReLU()])


class SmallVAE(nn.Module):
    """Pictures to latents of unit variance and back; as a training module, a batch to its losses.

    Latents have mean 0 and variance 1 per channel: over the batch in training, over what `calibrate` saw afterwards.
    """

    def __init__(self, config: SmallVAEConfig | None = None):
        super().__init__()
        self.encoder_is_frozen = False
        self.config = config = config or SmallVAEConfig()
        down, up = config.encoder_widths, config.decoder_widths
        self.into = _conv(3, down[0])
        self.encoder = nn.ModuleList(map(_Stage, down, config.encoder_blocks))
        self.downs = nn.ModuleList(_conv(a, b, stride=2, bias=False) for a, b in zip(down, down[1:], strict=False))
        self.to_latent = _conv(down[-1], small.LATENT_CHANNELS)
        self.norm = nn.BatchNorm2d(small.LATENT_CHANNELS, affine=False, momentum=0.02)
        self.from_latent = _conv(small.LATENT_CHANNELS, up[-1])
        self.decoder = nn.ModuleList(map(_Stage, up, config.decoder_blocks))
        self.ups = nn.ModuleList(_conv(b, a, bias=False) for a, b in zip(up, up[1:], strict=False))
        self.out = _conv(up[0], 3)
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for module in self.modules():
            if isinstance(module, Block):
                module.convolutions[-1].weight.data.mul_(0.2)  # or the blocks' sums would grow
        self.out.weight.data.mul_(0.3)
        assert self.out.bias is not None
        nn.init.constant_(self.out.bias, 0.5)

    def encode(self, pictures: torch.Tensor) -> torch.Tensor:
        """Pictures float [B, 3, H, W] in [0, 1] -> latents [B, 4, H/8, W/8] as the UNet takes them; 8 divides H, W."""
        _check(pictures, 3, FACTOR, "pictures")
        return self.norm(self._raw(pictures).float())

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents [B, 4, h, w] -> pictures [B, 3, 8h, 8w], about [0, 1] and not clamped."""
        _check(latents, small.LATENT_CHANNELS, 1, "latents")
        x = F.relu(self.from_latent(torch.tanh(latents / _LIMIT) * _LIMIT))
        for i in reversed(range(len(self.decoder))):
            x = self.decoder[i](x)
            if i:
                x = self.ups[i - 1](F.interpolate(x, scale_factor=2))
        return self.out(x)

    def forward(self, batch: dict) -> dict[str, torch.Tensor]:
        """batch["pictures"]: uint8, or float in [0, 1], [B, 3, H, W]. Returns loss, l1, edges, squares, colours."""
        pictures = _floats(self._crop(batch["pictures"])).to(memory_format=torch.channels_last)
        latents = self.encode(pictures)
        seen = self.decode(latents + self.config.noise * torch.randn_like(latents)).float()
        parts = {
            "l1": F.l1_loss(seen, pictures),
            "edges": _edges(seen - pictures),
            "squares": F.mse_loss(seen, pictures),
            "colours": F.l1_loss(F.avg_pool2d(seen, FACTOR), F.avg_pool2d(pictures, FACTOR)),
        }
        loss = parts["l1"] + sum(getattr(self.config, name) * parts[name] for name in ("edges", "squares", "colours"))
        return {"loss": loss, **parts}

    def freeze_encoder(self) -> "SmallVAE":
        """Train the decoder alone from here on; latents and their statistics stay as they are."""
        self.encoder_is_frozen = True
        for part in (self.into, self.encoder, self.downs, self.to_latent):
            part.requires_grad_(False)
        return self.train(self.training)

    def train(self, mode: bool = True) -> "SmallVAE":
        super().train(mode)
        if self.encoder_is_frozen:
            self.norm.eval()
        return self

    @property
    def statistics(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and variance of the latents before they are normalised, [4] each: the buffers themselves."""
        assert self.norm.running_mean is not None and self.norm.running_var is not None
        return self.norm.running_mean, self.norm.running_var

    @torch.no_grad()
    def calibrate(self, pictures: torch.Tensor, batch_size: int = 64) -> None:
        """Fix the latents' mean and variance to those over `pictures`, uint8 or float [N, 3, H, W], N at least 1."""
        _check(pictures, 3, FACTOR, "pictures")
        raw = torch.cat([self._raw(_floats(part)).float() for part in pictures.split(batch_size)])
        mean, variance = self.statistics
        variance.copy_(raw.var(dim=(0, 2, 3), correction=0))
        mean.copy_(raw.mean(dim=(0, 2, 3)))

    @torch.no_grad()
    def latents(self, pictures: torch.Tensor, batch_size: int = 64) -> torch.Tensor:
        """Latents float32 [N, 4, H/8, W/8] of pictures uint8 or float [N, 3, H, W], by the fixed statistics."""
        _check(pictures, 3, FACTOR, "pictures")
        was_training = self.training
        self.eval()
        found = torch.cat([self.encode(_floats(part)).float() for part in pictures.split(batch_size)])
        self.train(was_training)
        return found.contiguous()

    def _raw(self, x: torch.Tensor) -> torch.Tensor:
        x = self.into(x)
        for i, stage in enumerate(self.encoder):
            x = stage(self.downs[i - 1](x) if i else x)
        return self.to_latent(x)

    def _crop(self, pictures: torch.Tensor) -> torch.Tensor:
        size, (height, width) = self.config.crop, pictures.shape[-2:]
        if not size or size >= min(height, width):
            return pictures
        tops = torch.randint(height - size + 1, (len(pictures),)).tolist()
        lefts = torch.randint(width - size + 1, (len(pictures),)).tolist()
        places = zip(pictures, tops, lefts, strict=True)
        return torch.stack([picture[:, y : y + size, x : x + size] for picture, y, x in places])


def _floats(pictures: torch.Tensor) -> torch.Tensor:
    return pictures if pictures.is_floating_point() else pictures.float() / 255


def _edges(error: torch.Tensor) -> torch.Tensor:
    """Mean size of the error's gradients, at full and at half size: small features keep their borders."""
    levels = (error, F.avg_pool2d(error, 2))
    return functools.reduce(torch.add, (level.diff(dim=dim).abs().mean() for level in levels for dim in (-1, -2))) / 2


def _check(x: torch.Tensor, channels: int, multiple: int, name: str) -> None:
    if x.ndim != 4 or x.shape[1] != channels or not len(x) or not all(n and n % multiple == 0 for n in x.shape[2:]):
        sides = f" with sides that are multiples of {multiple}" if multiple > 1 else ""
        raise InputError(f"{name} have the shape {list(x.shape)}, wanted [B, {channels}, H, W]{sides}. Resize them.")


def with_deeper_decoder(vae: SmallVAE, blocks: tuple[int, ...]) -> SmallVAE:
    """The same autoencoder with more residual blocks in its decoder, which do nothing yet, and a frozen encoder."""
    deeper = SmallVAE(replace(vae.config, decoder_blocks=blocks))
    for stage, known in zip(deeper.decoder, vae.decoder, strict=True):
        for block in list(stage.children())[sum(isinstance(b, Block) for b in known.children()) :]:
            if isinstance(block, Block):
                nn.init.zeros_(block.convolutions[-1].weight)
    deeper.load_state_dict(vae.state_dict(), strict=False)
    return deeper.freeze_encoder()


def to_taesd(vae: SmallVAE, dtype: torch.dtype = torch.float32) -> State:
    """The same autoencoder with every key and shape of a TAESD, as ComfyUI's VAE loader wants it.

    The normalisation of latents goes into the encoder's last convolution. The host's latent is the UNet's divided by
    0.13025 (SDXL's factor), which `vae_scale` undoes.
    """
    state = {key: torch.zeros(shape, dtype=dtype) for key, shape in small.vae_shapes().items()}

    def put(name: str, conv: nn.Conv2d) -> None:
        _put(state[f"{name}.weight"], conv.weight)
        if conv.bias is not None:
            _put(state[f"{name}.bias"], conv.bias)

    for name, conv in _places(vae):
        put(name, conv)
    last = f"taesd_encoder.{_LAST_ENCODER}"
    mean, variance = vae.statistics
    spread = torch.sqrt(variance + vae.norm.eps)
    assert vae.to_latent.bias is not None
    _put(state[f"{last}.weight"], vae.to_latent.weight / spread[:, None, None, None])
    _put(state[f"{last}.bias"], (vae.to_latent.bias - mean) / spread)
    state["vae_scale"] = torch.tensor(small.LATENT_FACTOR)
    state["vae_shift"] = torch.tensor(0.0)
    return state


def trimmed(state: State) -> State:
    """A TAESD without the zeros behind the last used channel; faceclip.small.models.padded_vae puts them back."""
    kept = {}
    for key, value in state.items():
        ends = [int(places.max()) + 1 for places in value.nonzero(as_tuple=True) if len(places)]
        if value.ndim == 0 or len(ends) == value.ndim:
            kept[key] = value[tuple(map(slice, ends))].contiguous() if value.ndim else value
    return kept


def of_taesd(state: State, config: SmallVAEConfig) -> SmallVAE:
    """The narrow autoencoder, much faster, out of a TAESD that `to_taesd` made; its latents need no normalising."""
    vae, full = SmallVAE(config), small.padded_vae(state)
    with torch.no_grad():
        for name, conv in (*_places(vae), (f"taesd_encoder.{_LAST_ENCODER}", vae.to_latent)):
            for part in ("weight", "bias"):
                if (own := getattr(conv, part)) is not None:
                    own.copy_(full[f"{name}.{part}"][tuple(map(slice, own.shape))])
    vae.statistics[1].fill_(1 - vae.norm.eps)
    return vae.eval()


_LAST_ENCODER = 14  # places in TAESD's two sequences; see small.models.vae_shapes
_ENCODER_STAGES, _DOWNS = (1, 3, 7, 11), (2, 6, 10)
_DECODER_STAGES, _UPS = (18, 13, 8, 3), (17, 12, 7)  # from the picture's size down to the latent's


def _places(vae: SmallVAE) -> Iterator[tuple[str, nn.Conv2d]]:
    """Each convolution, except the encoder's last, under its name in TAESD."""
    yield "taesd_encoder.0", vae.into
    yield "taesd_decoder.1", vae.from_latent
    yield "taesd_decoder.19", vae.out
    sides = (
        ("taesd_encoder", vae.encoder, vae.downs, _ENCODER_STAGES, _DOWNS),
        ("taesd_decoder", vae.decoder, vae.ups, _DECODER_STAGES, _UPS),
    )
    for side, stages, between, stage_places, between_places in sides:
        for conv, place in zip(between, between_places, strict=True):
            assert isinstance(conv, nn.Conv2d)
            yield f"{side}.{place}", conv
        for stage, place in zip(stages, stage_places, strict=True):
            for i, block in enumerate(b for b in stage.children() if isinstance(b, Block)):
                for layer, conv in zip((0, 2, 4), block.convolutions, strict=True):
                    yield f"{side}.{place + i}.conv.{layer}", conv


def _put(target: torch.Tensor, values: torch.Tensor) -> None:
    """Copy into the first rows (and columns) of a tensor of zeros."""
    target[tuple(map(slice, values.shape))] = values.detach().to(target.dtype)


def save(vae: SmallVAE, path: str | os.PathLike) -> None:
    """Write the narrow weights (float32) and the configuration to one safetensors file."""
    state = {key: value.detach().contiguous() for key, value in vae.state_dict().items()}
    write_safetensors(state, Path(path), {METADATA_KEY: vae.config.to_json()}, force=True)


def load(path: str | os.PathLike) -> SmallVAE:
    """Read what `save` wrote; ready to encode and decode. Raises CheckpointError for another or a damaged file."""
    state, metadata = read_state_dict(path)
    if METADATA_KEY not in metadata:
        raise CheckpointError(f"{Path(path).name} is no small VAE: its metadata lack {METADATA_KEY}. Train one first.")
    vae = SmallVAE(SmallVAEConfig.from_json(metadata[METADATA_KEY]))
    report_mismatch(state, {k: tuple(v.shape) for k, v in vae.state_dict().items()}, Path(path).name, "a small VAE")
    vae.load_state_dict(state)
    return vae.eval()


@torch.no_grad()
def psnr(seen: torch.Tensor, wanted: torch.Tensor) -> float:
    """Peak signal-to-noise ratio in dB, the mean over pictures [B, 3, H, W] in [0, 1]; `seen` is clamped to that."""
    errors = (seen.clamp(0, 1) - wanted).square().flatten(1).mean(dim=1).clamp_min(1e-10)
    return float(-10 * torch.log10(errors).mean())
