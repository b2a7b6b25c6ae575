"""The host-dependent part of sampling: its Euler sampler, begun as the published pipeline begins."""

import math
from functools import cache

import torch


@cache
def _sampler_class():
    # looked up late: the host's modules must not be imported before the host has set itself up
    import comfy.samplers

    class PublishedStart(comfy.samplers.KSAMPLER):
        """A sampler that takes the first level of a published schedule for the model's largest.

        The host scales the first noise by sqrt(sigma^2 + 1) only at its own largest level, elsewhere by sigma. The
        published schedule begins lower and uses the first rule there. Any other first level (a later part of a split
        schedule, another scheduler's) keeps the host's rule.
        """

        start: float

        def max_denoise(self, model_wrap, sigmas) -> bool:
            at_start = math.isclose(float(sigmas[0]), self.start, rel_tol=1e-5)
            return at_start or super().max_denoise(model_wrap, sigmas)

    return PublishedStart


def euler_from(start: float):
    """The host's Euler SAMPLER for a published schedule whose first noise level is `start`."""
    import comfy.samplers

    stock = comfy.samplers.sampler_object("euler")
    sampler = _sampler_class()(stock.sampler_function, stock.extra_options, stock.inpaint_options)
    sampler.start = start
    return sampler


def stock_euler():
    """The host's Euler SAMPLER as it is."""
    import comfy.samplers

    return comfy.samplers.sampler_object("euler")


def empty_latent(batch_size: int, height: int, width: int, channels: int = 4) -> dict:
    """A LATENT of zeros, [batch, channels, height, width] in cells, where the host keeps what passes between nodes."""
    import comfy.model_management

    device = comfy.model_management.intermediate_device()
    return {"samples": torch.zeros(batch_size, channels, height, width, device=device)}
