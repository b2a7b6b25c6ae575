"""What a run is worth on samples that it never trains on: the loss by term and by noise level, retrieval, pictures.

Each time the same samples, faces, noise and times, so that two values differ by the weights alone.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F

from ..errors import InputError
from ..faces.align import CROP_SIZE
from ..faces.detect.base import Detector
from ..faces.face import align_faces, detect_faces
from ..files import whole
from ..model.encoder import JointConditioning
from ..sampling.schedule import BETA_END, BETA_START, LATENT_SCALE, TRAIN_STEPS
from . import retrieval
from .alignment import TERMS, Alignment
from .data import floats
from .diffusion import Diffusion
from .run_file import Validation

TIMES = (50, 250, 500, 750, 950)  # noise levels at which stage B's error is told
_SEED = 0
_HIGHEST = 512  # px of a picture on the sheet
Values = dict[str, float]


class Examiner(Protocol):
    """score: which of the values says how good the weights are, the lower the better."""

    score: str

    def __call__(self, module: Any, batches: Iterator[Mapping[str, Any]], step: int, main: bool) -> Values: ...


class OfAlignment:
    """Losses by branch and term, and retrieval among the samples of one process: whether the right identity, caption
    and picture is the nearest to the joint representation, 0 to 1."""

    score = "loss"

    def __call__(self, module: Alignment, batches: Iterator[Mapping[str, Any]], step: int, main: bool) -> Values:
        losses: list[dict[str, torch.Tensor]] = []
        seen: dict[str, list[torch.Tensor]] = {}
        for batch in batches:
            losses.append(module(batch))
            features = {} if "patch_tokens" in batch else module.features(batch)
            for name, value in self._vectors(module, {**batch, **features}).items():
                seen.setdefault(name, []).append(value.float().cpu())
        found = {
            name: float(torch.stack([one[name] for one in losses]).mean())
            for name in losses[0]
            if not name.endswith(("_scale", "_bias"))
        }
        vectors = {name: torch.cat(parts) for name, parts in seen.items()}
        for letter, term in itertools.product(module.branches, TERMS):
            if f"{letter}_{term}" in vectors:
                joint = vectors[f"{letter}_joint_{'face' if term == 'face' else 'text'}"]
                found[f"{letter}_{term}_top1"] = retrieval.top_k(joint, vectors[f"{letter}_{term}"])
        return found

    def _vectors(self, module: Alignment, batch: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        found = {}
        for letter in module.branches:
            face = module.face(batch, letter)
            text, identity = module.joint(letter, batch["joint_ids"], face)
            found |= {f"{letter}_joint_text": text, f"{letter}_joint_face": identity}
            for term in TERMS:
                if getattr(module.terms, term):
                    found[f"{letter}_{term}"] = module.target(batch, letter, term, face)
        return found


class OfDiffusion:
    """The error at five noise levels, and a sheet of pictures: each face, and what is drawn of it and its caption.

    With a detector, `likeness` is the mean cosine of the face encoder's vectors of the face given and the face drawn,
    among the `faces_found`. It is the encoder that conditioned the picture, so it flatters.
    """

    score = "error"

    def __init__(self, settings: Validation, output: Path, detector: Detector | None = None):
        self.settings, self.folder, self.detector = settings, output / "samples", detector

    def __call__(self, module: Diffusion, batches: Iterator[Mapping[str, Any]], step: int, main: bool) -> Values:
        errors: dict[int, list[torch.Tensor]] = {time: [] for time in TIMES}
        shown: Mapping[str, Any] = {}
        for number, batch in enumerate(batches):
            shown = shown or batch
            latent = module.latent(batch)
            generator = torch.Generator().manual_seed(_SEED + number)
            noise = torch.randn(latent.shape, generator=generator).to(latent.device)
            for time in TIMES:
                errors[time].append(module({**batch, "noise": noise, "time": time, "latent": latent})["error"])
        found = {f"error_{time}": float(torch.stack(values).mean()) for time, values in errors.items()}
        found["error"] = sum(found.values()) / len(found)
        if self.settings.pictures and "face" in shown and module.vae is not None:
            found |= self._sheet(module, shown, step, main)
        return found

    def _sheet(self, module: Diffusion, batch: Mapping[str, Any], step: int, main: bool) -> Values:
        rows = slice(0, self.settings.pictures)
        some = {name: value[rows] for name, value in batch.items()}
        pictures = draw(module, some, self.settings.steps, self.settings.guidance)
        faces = F.interpolate(floats(some["face"]), (CROP_SIZE, CROP_SIZE), mode="bilinear", antialias=True)
        if main:
            self.folder.mkdir(parents=True, exist_ok=True)
            save_sheet(self.folder / f"step-{step:08d}.png", faces.cpu(), pictures.cpu())
        return self._likeness(module, faces, pictures)

    def _likeness(self, module: Diffusion, faces: torch.Tensor, pictures: torch.Tensor) -> Values:
        if self.detector is None or module.model is None:
            return {}
        images = pictures.permute(0, 2, 3, 1).cpu().contiguous()  # BCHW -> BHWC
        given, cosines = module.model.encode_identity(faces).embedding.cpu(), []
        for row, image in enumerate(images.split(1)):
            found = detect_faces(image, self.detector, on_no_face="use whole picture")
            if found[0]:
                drawn = module.model.encode_identity(align_faces(image, found).crops).embedding.cpu()
                cosines.append(float(given[row] @ drawn[0]))
        mean = {"likeness": float(np.mean(cosines))} if cosines else {"likeness": 0.0}
        return {**mean, "faces_found": len(cosines) / len(images)}


def draw(module: Diffusion, batch: Mapping[str, Any], steps: int, guidance: float) -> torch.Tensor:
    """Pictures of a batch's faces and captions: float32 [B, 3, H, W] in [0, 1], of the batch's size.

    Euler steps at the published noise levels (see faceclip.sampling.schedule), the same noise each time.
    """
    from diffusers import EulerDiscreteScheduler

    assert module.vae is not None
    scheduler = EulerDiscreteScheduler(
        TRAIN_STEPS,
        BETA_START,
        BETA_END,
        "scaled_linear",
        prediction_type=dict(module.unet.config).get("prediction_type", "epsilon"),
        timestep_spacing="leading",
        steps_offset=1,
    )
    scheduler.set_timesteps(steps)
    embeddings, pooled = module.conditioning(batch)
    rows, device = len(embeddings), embeddings.device
    positive = JointConditioning(embeddings, pooled)
    height, width = (side // LATENT_SCALE for side in batch["picture"].shape[-2:])
    noise = torch.randn(rows, 4, height, width, generator=torch.Generator().manual_seed(_SEED)).to(device)
    latents = noise * scheduler.init_noise_sigma
    both = torch.cat([module.empty_embeddings.expand(rows, -1, -1), positive.embeddings])
    target = torch.tensor([[8 * height, 8 * width, 0, 0, 8 * height, 8 * width]], dtype=torch.float32, device=device)
    added = {
        "text_embeds": torch.cat([module.empty_pooled.expand(rows, -1), pooled]),
        "time_ids": target.expand(2 * rows, -1),
    }
    for time in scheduler.timesteps:
        scaled = scheduler.scale_model_input(torch.cat([latents, latents]), time)
        plain, seen = module.unet(scaled, time, both, added_cond_kwargs=added).sample.float().chunk(2)
        latents = scheduler.step(plain + guidance * (seen - plain), time, latents, return_dict=False)[0]
    with torch.autocast(device.type, enabled=False):
        decoded = module.vae.decode(latents.float() / module.vae.config["scaling_factor"], return_dict=False)[0]
    return (decoded / 2 + 0.5).clamp(0, 1).float()


def save_sheet(path: Path, faces: torch.Tensor, pictures: torch.Tensor) -> None:
    """One row for each: the face, and the picture of it."""
    import io

    from PIL import Image

    height = min(_HIGHEST, pictures.shape[-2])
    width = max(1, round(height * pictures.shape[-1] / pictures.shape[-2]))
    left = F.interpolate(faces, (height, height), mode="bilinear", antialias=True)
    right = F.interpolate(pictures, (height, width), mode="bilinear", antialias=True)
    sheet = torch.cat([left, right], dim=-1).permute(0, 2, 3, 1).flatten(0, 1)  # rows below each other, HWC
    data = io.BytesIO()
    Image.fromarray((sheet.clamp(0, 1) * 255).round().to(torch.uint8).numpy()).save(data, "PNG")
    whole.write(path, data.getvalue())


def batches_of(data: Any, settings: Validation, batch_size: int, rank: int, world: int) -> Callable[[], Iterator]:
    """Makes the same batches anew each time it is called."""

    def some() -> Iterator[Mapping[str, Any]]:
        found = data.batches(rank, world, batch_size, _SEED)
        try:
            for _ in range(settings.batches):
                try:
                    yield next(found)
                except InputError as error:
                    raise InputError(f"[validation]: {error}") from None
        finally:
            found.close()

    return some
