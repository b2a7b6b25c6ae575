"""Pictures of the small model without a host: diffusers' Euler steps with the published schedule, for measuring."""

from collections.abc import Callable

import torch
from torch import nn

from ...model.encoder import JointConditioning
from ...sampling.schedule import BETA_END, BETA_START, LATENT_SCALE, TRAIN_STEPS
from ..diffusion import time_ids
from .cartoons.canvas import SIZE


@torch.no_grad()
def generate(
    unet: nn.Module,
    decode: Callable[[torch.Tensor], torch.Tensor],
    positive: JointConditioning,
    negative: JointConditioning,
    steps: int = 25,
    guidance: float = 3.0,
    seed: int = 0,
    batch_size: int = 50,
    progress: Callable[[int, int], None] | None = None,
) -> torch.Tensor:
    """One picture per row of `positive`: float32 [N, 3, 128, 128], in [0, 1].

    decode: latents at the UNet's scale -> pictures. negative: one row, for all. The noise of a row depends on the seed
    and the row alone. progress(done, total) is called after each batch and may raise to cancel.
    """
    assert positive.pooled is not None
    count = len(positive.embeddings)
    cells = SIZE // LATENT_SCALE
    noise = torch.randn(count, 4, cells, cells, generator=torch.Generator().manual_seed(seed))
    pictures = []
    for start in range(0, count, batch_size):
        rows = slice(start, start + batch_size)
        joint = JointConditioning(positive.embeddings[rows], positive.pooled[rows])
        latents = _sample(unet, joint, negative, noise[rows], steps, guidance)
        pictures.append(decode(latents).float().clamp(0, 1))
        if progress:
            progress(min(start + batch_size, count), count)
    return torch.cat(pictures)


def _sample(unet, positive, negative, noise, steps: int, guidance: float) -> torch.Tensor:
    from diffusers import EulerDiscreteScheduler

    scheduler = EulerDiscreteScheduler(
        TRAIN_STEPS, BETA_START, BETA_END, "scaled_linear", timestep_spacing="leading", steps_offset=1
    )
    scheduler.set_timesteps(steps)
    rows = len(noise)
    embeddings = torch.cat([negative.embeddings.expand(rows, -1, -1), positive.embeddings])
    pooled = torch.cat([negative.pooled.expand(rows, -1), positive.pooled])
    sizes = time_ids((SIZE, SIZE), (0, 0), (SIZE, SIZE)).expand(2 * rows, -1)
    added = {"text_embeds": pooled, "time_ids": sizes}
    latents = noise * scheduler.init_noise_sigma
    for time in scheduler.timesteps:
        scaled = scheduler.scale_model_input(torch.cat([latents, latents]), time)
        without, with_ = unet(scaled, time, embeddings, added_cond_kwargs=added).sample.chunk(2)
        latents = scheduler.step(without + guidance * (with_ - without), time, latents, return_dict=False)[0]
    return latents
