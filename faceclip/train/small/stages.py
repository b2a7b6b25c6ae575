"""The stages of the recipe: each trains one part and writes its file into the folder of its name."""

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from ...model import checkpoint
from ...sampling import unet_file
from ...small import models as small
from .. import towers
from ..alignment import ENCODER_FILE, TERMS, Alignment
from ..data import ArrayData
from ..diffusion import UNET_FILE, Diffusion, new_unet, time_ids
from ..engine import TrainResult, train
from ..face_cells import face_cells
from ..run_file import Objective, Terms
from . import features, scores
from . import vae as small_vae
from .cartoons.canvas import SIZE
from .classifier import ClassifierTraining
from .clip import ClipTraining
from .face_tower import FACE_FILE, FaceTraining
from .recipe import Work

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel

TABLE_FILE = "table.json"
_GAMMA = 0.1  # far above what pretrained towers start with: there is little time
_CLASSIFIED, _ROUND_TRIPS = 16000, 8000  # pictures the classifier sees, and how many of them also decoded


def vae(work: Work) -> TrainResult:
    """Pictures -> vae.safetensors."""

    def export(trained, folder):
        some = np.linspace(0, len(work.pictures) - 1, 2000).astype(int)
        trained.calibrate(torch.from_numpy(work.pictures.pictures[some]))
        small_vae.save(trained, folder / small_vae.VAE_FILE)

    data = ArrayData({"pictures": work.pictures.pictures})
    return work.train("vae", small_vae.SmallVAE(), data, export)


def decoder(work: Work) -> TrainResult:
    """The VAE's decoder once more, deeper, for the latents as they are -> decoder/vae.safetensors."""
    start = small_vae.load(work.path("vae", small_vae.VAE_FILE))
    data = ArrayData({"pictures": work.pictures.pictures})
    deeper = small_vae.with_deeper_decoder(start, (0, 1, 3, 3))
    return work.train(
        "decoder", deeper, data, lambda trained, folder: small_vae.save(trained, folder / small_vae.VAE_FILE)
    )


def face(work: Work) -> TrainResult:
    """Aligned faces and who they are -> face_encoder.safetensors."""
    module = FaceTraining(small.ENCODER.face, work.recipe.data.people, warmup=500)
    data = ArrayData({name: getattr(work.pictures, name) for name in ("crops", "label", "cues")})
    return work.train("face", module, data, lambda trained, folder: trained.export(folder))


def clip_l(work: Work) -> TrainResult:
    """Pictures and captions -> clip_l.safetensors."""
    return _clip(work, "l")


def clip_g(work: Work) -> TrainResult:
    """Pictures and captions -> clip_g.safetensors."""
    return _clip(work, "g")


def _clip(work: Work, letter: str) -> TrainResult:
    module = ClipTraining(getattr(small.ENCODER, letter))
    names = ("pictures", "ids", "joint_ids")
    data = ArrayData({name: getattr(work.pictures, name) for name in names})
    return work.train(f"clip_{letter}", module, data, lambda trained, folder: trained.export(folder, letter))


def classifier(work: Work) -> TrainResult:
    """Pictures, some of them after the autoencoder, and what they show -> classifier.safetensors."""
    some = np.linspace(0, len(work.pictures) - 1, min(_CLASSIFIED, len(work.pictures))).astype(int)
    arrays = {name: getattr(work.pictures, name)[some] for name in ("pictures", "attributes", "landmarks")}
    autoencoder = small_vae.load(work.path("decoder", small_vae.VAE_FILE))

    @torch.no_grad()
    def round_trip(rows: slice) -> torch.Tensor:
        return autoencoder.decode(autoencoder.encode(features.pixels(arrays["pictures"], rows))).clamp(0, 1)

    count = min(_ROUND_TRIPS, len(some))
    decoded = features.cached(work.folder / "features" / "round_trips.npy", count, round_trip)
    rest = arrays["pictures"][count:].astype(np.float16) / 255
    arrays["round_trips"] = np.concatenate([decoded, rest])
    return work.train(
        "classifier", ClassifierTraining(), ArrayData(arrays), lambda trained, folder: trained.export(folder)
    )


def start_alignment(work: Work, branches: tuple[str, ...] = ("l", "g"), terms: Terms | None = None) -> Alignment:
    """A FaceCLIP with trained towers and fresh fusers, its teachers beside it."""
    clips = {
        letter: towers.load_clip(work.path(f"clip_{letter}", f"clip_{letter}.safetensors")) for letter in ("l", "g")
    }
    encoder = towers.read_face_encoder(work.path("face", FACE_FILE), heads=small.ENCODER.face.heads)
    model = towers.new_faceclip(clips, encoder, small.ENCODER.fuser, work.recipe.seed, gamma=_GAMMA)
    assert model.config == small.ENCODER, model.config
    vision = {letter: towers.VisionTower(clips[letter][0].visual) for letter in branches}
    return Alignment(model, vision, terms, branches)


def alignment_data(work: Work, module: Alignment) -> ArrayData:
    """Each picture with its caption, and the face of any picture of the same person."""
    known = features.of_faces_and_clips(work.folder / "features", work.pictures, module)
    known = {name: torch.from_numpy(np.array(values)) for name, values in known.items()}
    joint_ids = torch.from_numpy(np.array(work.pictures.joint_ids)).long()
    scenes = work.recipe.data.scenes

    def gather(batch: dict) -> dict:
        rows = batch["row"]
        # From torch's random numbers, which a checkpoint holds.
        partners = rows // scenes * scenes + torch.randint(scenes, rows.shape)
        faces = {name: known[name][partners] for name in ("class_token", "patch_tokens")}
        targets = {name: values[rows] for name, values in known.items() if "_feature_" in name}
        return {**faces, **targets, "joint_ids": joint_ids[rows]}

    return ArrayData({"row": torch.arange(len(work.pictures))}, gather)


def alignment(work: Work) -> TrainResult:
    """Stage A of the paper -> alignment/faceclip.safetensors and alignment_heads.safetensors."""
    module = start_alignment(work)
    return work.train("alignment", module, alignment_data(work, module), lambda trained, folder: trained.export(folder))


def ablation(work: Work) -> TrainResult:
    """Stage A again, briefly, on the l branch alone: with all terms, and with each left out -> table.json."""
    sample = scores.Sample.of(work.held_out)
    path, result = work.path("ablation", TABLE_FILE), TrainResult(0, {}, stopped=False)
    table = json.loads(path.read_text("utf-8")) if path.exists() else {}
    for left_out in (None, *TERMS):
        name = f"without {left_out}" if left_out else "all terms"
        if name in table:
            continue
        module = start_alignment(work, ("l",), Terms(**{left_out: 0.0}) if left_out else Terms())
        data = alignment_data(work, module)
        folder = work.folder / "ablation" / name.replace(" ", "_")
        settings = work.recipe.settings("ablation", folder)
        # Each run ends at its step, not at a time: they are compared with each other.
        result = train(module, data, replace(settings, minutes=None))
        if result.stopped:
            return result
        table[name] = scores.retrieval(module.eval(), sample)
        path.write_text(json.dumps(table, indent=1), encoding="utf-8")
    return result


def diffusion(work: Work) -> TrainResult:
    """Stage B of the paper -> diffusion/unet.safetensors."""
    torch.manual_seed(work.recipe.seed)
    objective = Objective(drop=0.1, min_snr_gamma=5.0, noise_offset=0.2)
    return _diffusion(work, "diffusion", new_unet(small.UNET), objective)


def refine(work: Work) -> TrainResult:
    """Stage B goes on; the face, and the times that make its details, weigh more -> refine/unet.safetensors."""
    state, config = unet_file.read(work.path("diffusion", UNET_FILE))
    objective = Objective(drop=0.1, min_snr_gamma=20.0, noise_offset=0.2, face_weight=4.0)
    return _diffusion(work, "refine", new_unet(config, state), objective)


def _diffusion(work: Work, stage: str, start: "UNet2DConditionModel", objective: Objective) -> TrainResult:
    model = checkpoint.load(work.path("alignment", ENCODER_FILE))
    autoencoder = small_vae.load(work.path("vae", small_vae.VAE_FILE))
    data, count = work.pictures, len(work.pictures)
    scenes = work.recipe.data.scenes
    shift = np.random.default_rng(work.recipe.seed).integers(1, scenes, count)  # never the picture's own face
    partners = np.arange(count) // scenes * scenes + (np.arange(count) + shift) % scenes
    folder = work.folder / "features"
    arrays = features.of_conditioning(folder, data, model, partners)
    latents = features.cached(
        folder / "latents.npy", count, lambda rows: autoencoder.latents(torch.from_numpy(np.array(data.pictures[rows])))
    )
    arrays = {name: torch.from_numpy(np.array(values)) for name, values in arrays.items()}
    arrays |= {
        "latent": torch.from_numpy(np.array(latents)),
        "face_cells": torch.stack([face_cells(landmarks, (SIZE, SIZE)) for landmarks in data.landmarks]),
        "time_ids": time_ids((SIZE, SIZE), (0, 0), (SIZE, SIZE)).expand(count, -1),
    }
    module = Diffusion(start, model.encode_prompt([""]), objective)
    return work.train(stage, module, ArrayData(arrays), lambda trained, folder: trained.export(folder))
