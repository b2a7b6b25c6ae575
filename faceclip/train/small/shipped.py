"""The files of a trained small model: what ships with the pack, and reading them back for measuring."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from ...errors import CheckpointError
from ...files.state_dict import State, read_state_dict, write_safetensors
from ...model import checkpoint
from ...model.faceclip import FaceCLIP
from ...sampling import unet_file
from ...sampling.unet_config import METADATA_KEY
from ...small import models as small
from .. import towers
from ..alignment import ENCODER_FILE, HEADS_FILE, Alignment
from ..diffusion import UNET_FILE, new_unet
from . import vae as small_vae
from .classifier import CLASSIFIER_FILE, CartoonClassifier
from .clip import clip_config
from .recipe import Work

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel

JUDGES_FILE = "judges.safetensors"
_HEADS, _VISION, _CLASSIFIER = "heads.", "vision.", "classifier."


def ship(work: Work, folder: Path, branches: tuple[str, ...] = ("l", "g")) -> None:
    """Write the model's four files in bf16: encoder and UNet as ComfyUI's loaders take them, the VAE without its zeros,
    and what measures them: the classifier, and heads and CLIP vision towers of these branches."""
    bf16 = torch.bfloat16
    encoder = checkpoint.load(work.path("alignment", ENCODER_FILE))
    checkpoint.save(encoder, folder / small.ENCODER_FILE, dtype=bf16, force=True)
    state, config = unet_file.read(work.path("refine", UNET_FILE))
    write_safetensors(state, folder / small.UNET_FILE, {METADATA_KEY: config.to_json()}, True, bf16)
    autoencoder = small_vae.load(work.path("decoder", small_vae.VAE_FILE))
    config_of_vae = {small_vae.METADATA_KEY: autoencoder.config.to_json()}
    write_safetensors(
        small_vae.trimmed(small_vae.to_taesd(autoencoder)), folder / small.VAE_FILE, config_of_vae, True, bf16
    )
    heads, _ = read_state_dict(work.path("alignment", HEADS_FILE))
    judges = {_HEADS + key: value for key, value in heads.items() if key.split(".")[0] in branches}
    judges |= _prefixed(_CLASSIFIER, read_state_dict(work.path("classifier", CLASSIFIER_FILE))[0])
    for letter in branches:
        clip, _ = towers.load_clip(work.path(f"clip_{letter}", f"clip_{letter}.safetensors"))
        judges |= _prefixed(f"{_VISION}{letter}.", clip.visual.state_dict())
    write_safetensors(judges, folder / JUDGES_FILE, {}, True, bf16)


@dataclass(frozen=True)
class SmallModel:
    """Everything that is measured, ready on the CPU in float32. decode: latents at the UNet's scale -> pictures."""

    faceclip: FaceCLIP
    alignment: Alignment
    unet: "UNet2DConditionModel"
    vae: small_vae.SmallVAE
    classifier: CartoonClassifier


def load(folder: Path = small.FOLDER) -> SmallModel:
    """Read what `ship` wrote. Raises CheckpointError for a file that is missing or does not fit."""
    model = towers.load_faceclip(folder / small.ENCODER_FILE, torch.float32)
    state, config = unet_file.read(folder / small.UNET_FILE)
    judges, _ = read_state_dict(folder / JUDGES_FILE)
    judges = {key: value.float() if value.is_floating_point() else value for key, value in judges.items()}
    branches = [letter for letter in ("l", "g") if any(key.startswith(f"{_VISION}{letter}.") for key in judges)]
    alignment = Alignment(model, {letter: _vision(judges, letter) for letter in branches}, branches=branches)
    _fill(alignment.heads, judges, _HEADS)
    classifier = CartoonClassifier()
    _fill(classifier, judges, _CLASSIFIER)
    network = new_unet(config, {key: value.float() for key, value in state.items()}).eval()
    narrow, metadata = read_state_dict(folder / small.VAE_FILE)
    autoencoder = small_vae.of_taesd(
        narrow, small_vae.SmallVAEConfig.from_json(metadata.get(small_vae.METADATA_KEY, ""))
    )
    for module in (alignment, network, autoencoder, classifier):
        module.requires_grad_(False).eval()
    return SmallModel(model, alignment, network, autoencoder, classifier)


def _vision(judges: State, letter: str) -> towers.VisionTower:
    from open_clip.model import CLIP

    visual = CLIP(**clip_config(getattr(small.ENCODER, letter))).visual
    _fill(visual, judges, f"{_VISION}{letter}.")
    return towers.VisionTower(visual)


def _fill(module: nn.Module, state: State, prefix: str) -> None:
    part = {key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)}
    missing, extra = module.load_state_dict(part, strict=False)
    if missing or extra:
        raise CheckpointError(
            f"{JUDGES_FILE} does not fit: {len(missing)} weights are missing, {len(extra)} unknown "
            f"(first: {(missing + extra)[0]}). Train the small model again, or install the pack again."
        )


def _prefixed(prefix: str, state: State) -> State:
    return {prefix + key: value for key, value in state.items()}
