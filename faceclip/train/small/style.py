"""The style companion: the small model's UNet tuned on such people under a print of two inks, as a LoRA.

`python -m faceclip toy FOLDER --style` makes it, and makes it again for another small model: what is worked on lies in
a folder named after the model's files. It is what merging styles is tried, tested and measured with.
"""

import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ...errors import InputError
from ...files.state_dict import write_safetensors
from ...sampling import difference, unet_file
from ...small import models as small
from ..data import ArrayData
from ..diffusion import UNET_FILE, Diffusion, time_ids
from ..engine import TrainResult, train
from ..run_file import Objective, Settings
from . import features, shipped
from .cartoons import dataset
from .cartoons.canvas import SIZE
from .cartoons.character import people

log = logging.getLogger(__name__)

LARGEST = 3_000_000  # bytes of the LoRA
# The print's colours by how light the drawing is, from black to white, evenly apart.
INKS = ((28, 26, 84), (226, 74, 88), (255, 238, 200))
OPACITY = 0.5
_LIGHTNESS = (0.299, 0.587, 0.114)
_SEED = 40


@dataclass(frozen=True)
class Style:
    """How many people are drawn in how many scenes each, and how long the UNet is tuned on them."""

    people: int = 3000
    scenes: int = 2
    steps: int = 1500
    batch_size: int = 32
    minutes: float = 20
    rank: int = 16


def printed(pictures: torch.Tensor) -> torch.Tensor:
    """Pictures [N, 3, H, W], 0 to 1, under a print of two inks on paper: half of each pixel is a colour by how light
    the pixel is, and half its own, by which people are still known."""
    lightness = torch.einsum("nchw,c->nhw", pictures, torch.tensor(_LIGHTNESS)).clamp(0, 1)
    inks = torch.tensor(INKS, dtype=torch.float32) / 255
    place = lightness * (len(inks) - 1)
    lower = place.floor().clamp(max=len(inks) - 2)
    share = (place - lower)[..., None]
    mixed = torch.lerp(inks[lower.long()], inks[lower.long() + 1], share)
    return torch.lerp(pictures, mixed.permute(0, 3, 1, 2), OPACITY)  # NHWC -> NCHW


def make(folder: Path, models: Path = small.FOLDER, style: Style | None = None) -> TrainResult:
    """Tune the UNet of `models` and write faceclip_tiny_style.safetensors beside what was worked on.

    folder: where it is worked, given again to go on after a stop. Raises InputError where the LoRA is over `LARGEST`.
    """
    style = style or Style()
    place = folder / f"style-{_stamp(models, style)}"
    parts = shipped.load(models)
    chosen = people(style.people, _SEED)
    pictures = dataset.build(place / "pictures", chosen, style.scenes, _SEED, processes=1)
    settings = Settings(
        output=place,
        steps=style.steps,
        minutes=style.minutes,
        batch_size=style.batch_size,
        seed=_SEED,
        learning_rate=5e-4,
        warmup=min(100, style.steps),
        precision="bf16",
        ema=0.99,
        save_every=200,
    )
    objective = Objective(drop=0.1, min_snr_gamma=5.0, noise_offset=0.2)
    module = Diffusion(parts.unet.requires_grad_(True), parts.faceclip.encode_prompt([""]), objective)
    data = _samples(place / "features", pictures, parts, style.scenes)
    result = train(module, data, settings, lambda trained, output: trained.export(output))
    if not result.stopped:
        path = place / small.STYLE_FILE
        write_lora(place / UNET_FILE, models / small.UNET_FILE, style.rank, path)
        log.info("Wrote %s: %d bytes.", path, path.stat().st_size)
    return result


def write_lora(tuned: Path, base: Path, rank: int, path: Path) -> None:
    """What tells two UNets of the small model apart, as `python -m faceclip lora` writes it."""
    after, config = unet_file.read(tuned)
    before, _ = unet_file.read(base)
    state = {}
    for part, _ in difference.lora(after, before, list(before), rank):
        state |= part
    about = {"ss_network_module": "networks.lora", "ss_network_dim": str(rank)}
    write_safetensors(state, path, about, True, torch.float16)
    if path.stat().st_size > LARGEST:
        raise InputError(f"{path} has {path.stat().st_size:,} bytes, wanted {LARGEST:,} at most. Choose a lower rank.")


def _samples(folder: Path, pictures: dataset.CartoonData, parts: shipped.SmallModel, scenes: int) -> ArrayData:
    """Latents of the prints, and the conditioning of the people as they are in the drawings."""
    count = len(pictures)
    partners = np.arange(count) // scenes * scenes + (np.arange(count) + 1) % scenes

    def latents(rows: slice) -> torch.Tensor:
        made = printed(features.pixels(pictures.pictures, rows))
        return parts.vae.latents((made * 255).round().to(torch.uint8))

    arrays = features.of_conditioning(folder, pictures, parts.faceclip, partners)
    arrays = {name: torch.from_numpy(np.array(values)) for name, values in arrays.items()}
    arrays["latent"] = torch.from_numpy(np.array(features.cached(folder / "latents.npy", count, latents)))
    arrays["time_ids"] = time_ids((SIZE, SIZE), (0, 0), (SIZE, SIZE)).expand(count, -1)
    return ArrayData(arrays)


def _stamp(models: Path, style: Style) -> str:
    """Of what is made: the model's files, the inks and the numbers."""
    digest = hashlib.sha256(f"{style} {INKS} {OPACITY} {_SEED}".encode())
    for name in (small.ENCODER_FILE, small.UNET_FILE, small.VAE_FILE):
        digest.update((models / name).read_bytes())
    return digest.hexdigest()[:12]
