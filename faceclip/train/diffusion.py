"""Stage B: SDXL's UNet learns to follow FaceCLIP's conditioning, with the usual loss: of the noise, or of v.

The UNet is diffusers' `UNet2DConditionModel`; what is exported loads through FaceCLIPUNETLoader.
Source: arXiv 2504.14202; noise levels are SDXL-base-1.0's (faceclip.sampling.schedule).
Min-SNR weighting: arXiv 2303.09556. v: arXiv 2202.00512.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.nn.functional as F
from torch import nn

from ..errors import DependencyError, InputError
from ..files.state_dict import State
from ..install import extras
from ..model.encoder import JointConditioning
from ..model.faceclip import FaceCLIP
from ..sampling import unet_file
from ..sampling.schedule import BETA_END, BETA_START, TRAIN_STEPS
from ..sampling.unet_config import EPSILON, VELOCITY, UNetConfig
from .adapter import has_lora, save_lora
from .data import floats
from .run_file import Objective

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, UNet2DConditionModel

UNET_FILE = "unet.safetensors"


class Diffusion(nn.Module):
    """The module of stage B: a batch in, the loss out.

    unet: diffusers', whose config says what it predicts (see `new_unet`). unconditional: what a dropped sample is
    trained on, embeddings [1, 77, C] and pooled [1, P] (FaceCLIP's of the empty prompt without a face: the negative
    that guidance uses). model, vae: frozen; a FaceCLIP and diffusers' AutoencoderKL, not needed where batches carry
    conditioning and latents.

    A batch: latent [B, 4, h, w] at the UNet's scale, or latent_mean and latent_std to draw it from, or picture
    [B, 3, H, W], float in [0, 1] or uint8;
    embeddings [B, 77, C] with pooled [B, P], or caption (list of B texts) with face [B, 3, S, S], float or uint8;
    time_ids [B, 6]: original (height, width), crop (top, left), target (height, width), in px; face_cells
    [B, 1, h, w], 1 where a face is, for a face_weight. With noise [B, 4, h, w] and one time, 0 to 999, the batch is
    only told of: "error" at that time.
    """

    # What accelerate shards one by one under FSDP.
    _no_split_modules = ("BasicTransformerBlock", "ResnetBlock2D")
    empty_embeddings: torch.Tensor
    empty_pooled: torch.Tensor

    def __init__(
        self,
        unet: "UNet2DConditionModel",
        unconditional: JointConditioning,
        objective: Objective | None = None,
        model: FaceCLIP | None = None,
        vae: "AutoencoderKL | None" = None,
    ):
        super().__init__()
        from diffusers import DDPMScheduler

        assert unconditional.pooled is not None  # FaceCLIP always gives it
        self.unet = unet
        self.objective = objective or Objective()
        self.register_buffer("empty_embeddings", unconditional.embeddings.float(), persistent=False)
        self.register_buffer("empty_pooled", unconditional.pooled.float(), persistent=False)
        prediction: Any = prediction_of(unet)
        self.predicts_v = prediction == VELOCITY
        self.schedule = DDPMScheduler(
            TRAIN_STEPS, BETA_START, BETA_END, "scaled_linear", prediction_type=prediction, clip_sample=False
        )
        self.model, self.vae = model, vae
        for frozen in (model, vae):
            if frozen is not None:
                frozen.requires_grad_(False)

    def enable_gradient_checkpointing(self) -> None:
        """diffusers' own: the UNet's blocks run again in the backward pass."""
        self.unet.enable_gradient_checkpointing()

    def compiled(self) -> list[nn.Module]:
        """What torch.compile is for."""
        return [self.unet]

    def forward(self, batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """ "loss": the weighted mean squared error of the predicted noise or v; "error": the same unweighted."""
        latent = self.latent(batch)
        if "time" in batch:  # to be told, not trained on
            return {"error": self.error_at(batch, latent, batch["noise"], int(batch["time"]))}
        embeddings, pooled = self.conditioning(batch)
        dropped = torch.rand(len(latent), device=latent.device) < self.objective.drop
        embeddings = torch.where(dropped[:, None, None], self.empty_embeddings, embeddings)
        pooled = torch.where(dropped[:, None], self.empty_pooled, pooled)
        noise = torch.randn_like(latent)
        if self.objective.noise_offset:
            noise = noise + self.objective.noise_offset * torch.randn_like(latent[:, :, :1, :1])
        times = torch.randint(TRAIN_STEPS, (len(latent),), device=latent.device)
        added = {"text_embeds": pooled, "time_ids": batch["time_ids"].to(latent.device)}
        noisy = self.schedule.add_noise(latent, noise, cast("torch.IntTensor", times))
        predicted = self.unet(noisy, times, embeddings, added_cond_kwargs=added).sample
        error = F.mse_loss(predicted.float(), self.wanted(latent, noise, times), reduction="none")
        weighted = (self._face_weights(batch, latent.device) * error).mean(dim=(1, 2, 3))
        return {"loss": (self._weights(times) * weighted).mean(), "error": error.detach().mean()}

    def wanted(self, latent: torch.Tensor, noise: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        """What the UNet is to answer: the noise, or v."""
        return self.schedule.get_velocity(latent, noise, cast("torch.IntTensor", times)) if self.predicts_v else noise

    @torch.no_grad()
    def error_at(self, batch: Mapping[str, Any], latent: torch.Tensor, noise: torch.Tensor, time: int) -> torch.Tensor:
        """The mean squared error at one time, conditioned and unweighted."""
        embeddings, pooled = self.conditioning(batch)
        times = torch.full((len(latent),), time, device=latent.device)
        noisy = self.schedule.add_noise(latent, noise, cast("torch.IntTensor", times))
        added = {"text_embeds": pooled, "time_ids": batch["time_ids"].to(latent.device)}
        predicted = self.unet(noisy, times, embeddings, added_cond_kwargs=added).sample
        return F.mse_loss(predicted.float(), self.wanted(latent, noise, times))

    @torch.no_grad()
    def latent(self, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """[B, 4, h, w] at the UNet's scale."""
        if "latent" in batch:
            return batch["latent"].float()
        if "latent_mean" in batch:
            return batch["latent_mean"].float() + batch["latent_std"].float() * torch.randn_like(
                batch["latent_mean"], dtype=torch.float32
            )
        if self.vae is None:
            raise InputError(
                "The batch holds pictures, but there is no VAE. Name one in the run's [model] table (vae)."
            )
        return self._moments(batch).sample().float() * self.vae.config["scaling_factor"]

    def _moments(self, batch: Mapping[str, torch.Tensor]) -> Any:
        assert self.vae is not None
        picture = floats(batch["picture"])
        with _own_precision(picture.device):
            return self.vae.encode(2 * picture - 1, return_dict=False)[0]

    @torch.no_grad()
    def features(self, batch: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        """What the frozen models make of a batch, in half precision; a batch of these is trained on without them."""
        if self.vae is None or self.objective.drop_face or self.objective.drop_text:
            raise InputError("A cache needs a VAE, and no drop_face or drop_text: it holds face and text together.")
        moments, scale = self._moments(batch), self.vae.config["scaling_factor"]
        embeddings, pooled = self.conditioning(batch)
        found = {"latent_mean": moments.mean * scale, "latent_std": moments.std * scale}
        found = {name: value.half() for name, value in (found | {"embeddings": embeddings, "pooled": pooled}).items()}
        return found | {name: batch[name] for name in ("time_ids", "face_cells") if name in batch}

    @torch.no_grad()
    def conditioning(self, batch: Mapping[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
        """embeddings [B, 77, C] and pooled [B, P]."""
        if "embeddings" in batch:
            if self.objective.drop_face or self.objective.drop_text:
                raise InputError("drop_face and drop_text need faces and captions, but the batch holds embeddings.")
            return batch["embeddings"].float(), batch["pooled"].float()
        if self.model is None:
            raise InputError(
                "The batch holds faces and captions, but there is no FaceCLIP. Name one in the run's [model] table "
                "(faceclip)."
            )
        face, captions = floats(batch["face"]), list(batch["caption"])
        without = self._draw("drop_text", captions)
        captions = ["" if left else text for left, text in zip(without, captions, strict=True)]
        shown = [not left for left in self._draw("drop_face", captions)]
        with _own_precision(face.device):
            joint = self.model.encode_prompt(captions, self.model.encode_identity(face), shown)
        assert joint.pooled is not None
        return joint.embeddings, joint.pooled

    def _draw(self, name: str, batch: list) -> list[bool]:
        """Which samples of a batch lose something, by the objective's probability of that name."""
        share = getattr(self.objective, name)
        return (torch.rand(len(batch)) < share).tolist() if share else [False] * len(batch)

    def _weights(self, times: torch.Tensor) -> torch.Tensor:
        if self.objective.min_snr_gamma is None:
            return torch.ones_like(times, dtype=torch.float32)
        from diffusers.training_utils import compute_snr

        snr = compute_snr(self.schedule, times)
        # The same weight of the picture's error, whatever is predicted.
        return snr.clamp(max=self.objective.min_snr_gamma) / (snr + 1 if self.predicts_v else snr)

    def _face_weights(self, batch, device: torch.device) -> torch.Tensor | float:
        """[B, 1, h, w]"""
        if self.objective.face_weight == 1:
            return 1.0
        if "face_cells" not in batch:
            raise InputError(
                "face_weight is set, but the batch does not say where faces are (face_cells). Leave it out, or give "
                "samples with landmarks."
            )
        weights = 1 + (self.objective.face_weight - 1) * batch["face_cells"].to(device).float()
        return weights / weights.mean(dim=(2, 3), keepdim=True)

    def export(self, folder: Path) -> None:
        """Write unet.safetensors, which names its own sizes; where a LoRA was trained, unet_lora.safetensors."""
        if has_lora(self.unet):
            save_lora(self.unet, Path(folder))
            return
        state = {key: value.detach().cpu() for key, value in self.unet.state_dict().items()}
        unet_file.save(state, config_of(self.unet), Path(folder) / UNET_FILE, force=True)


def _own_precision(device: torch.device) -> torch.autocast:
    """What is frozen is computed as it is when pictures are made, whatever the trained part is computed in."""
    return torch.autocast(device.type, enabled=False)


def new_unet(config: UNetConfig, state: State | None = None) -> "UNet2DConditionModel":
    """diffusers' UNet of these sizes, with fresh weights or those of `state` (see faceclip.sampling.unet_file.read)."""
    try:
        from diffusers import UNet2DConditionModel
    except ImportError as error:
        raise DependencyError(
            f'Training the UNet needs diffusers ({error}), which the extra "train" brings: '
            f"{extras.install_line('train')}"
        ) from error
    sizes = json.loads(config.to_json())
    prediction = sizes.pop("prediction_type")
    model = UNet2DConditionModel.from_config(sizes)
    assert isinstance(model, UNet2DConditionModel)
    model.register_to_config(prediction_type=prediction)  # kept with its sizes, which diffusers does not do by itself
    if state is not None:
        model.load_state_dict(state, strict=True)
    return model


def config_of(model: "UNet2DConditionModel") -> UNetConfig:
    """The sizes of a diffusers UNet; raises CheckpointError where it is not SDXL-shaped."""
    return UNetConfig.from_json(json.dumps(dict(model.config), default=str))


def prediction_of(model: nn.Module) -> str:
    """What a diffusers UNet predicts: what `new_unet` noted, and noise where nothing is."""
    return getattr(getattr(model, "config", None), "prediction_type", EPSILON)


def time_ids(size: tuple[int, int], crop: tuple[int, int], target: tuple[int, int]) -> torch.Tensor:
    """SDXL's six numbers, float32 [6]; each argument is (height, width) or (top, left) in px."""
    return torch.tensor([*size, *crop, *target], dtype=torch.float32)
