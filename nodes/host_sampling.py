"""The host-dependent part of sampling: its Euler, begun as the published pipeline begins; a look at what is sampled."""

import logging
import math
import sys
from collections import defaultdict
from functools import cache
from typing import Any

import torch

from ..faceclip.errors import InputError
from .conditioning import ACTS, UNREAD

log = logging.getLogger(__name__)
_ROUNDING = 1.001  # of a noise level


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

        def max_denoise(self, model_wrap: Any, sigmas: Any) -> bool:
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


def stock(name: str = "euler"):
    """A SAMPLER of the host as it is."""
    import comfy.samplers

    return comfy.samplers.sampler_object(name)


def empty_latent(batch_size: int, height: int, width: int, channels: int = 4) -> dict[str, Any]:
    """A LATENT of zeros, [batch, channels, height, width] in cells, where the host keeps what passes between nodes."""
    import comfy.model_management

    device = comfy.model_management.intermediate_device()
    return {"samples": torch.zeros(batch_size, channels, height, width, device=device)}


def watch_sampling(patcher: Any) -> None:
    """Let a MODEL refuse, whenever it is sampled, what is the other family's or was never encoded, and tell which
    identities act in no step.

    The steps are known for sure only here, whatever the sampler; nothing about the sampling is changed.
    """
    import comfy.patcher_extension

    kinds = comfy.patcher_extension.WrappersMP
    patcher.add_wrapper_with_key(kinds.SAMPLER_SAMPLE, "faceclip", _sample_and_tell)
    patcher.add_wrapper_with_key(kinds.CALC_COND_BATCH, "faceclip", _read)


def _sample_and_tell(
    executor: Any,
    guider: Any,
    sigmas: Any,
    extra_args: Any,
    callback: Any,
    noise: Any,
    latent_image: Any = None,
    *args: Any,
    **kwargs: Any,
):
    check_width(guider.conds, guider.inner_model.model_config.unet_config)
    check_levels(sigmas, guider.inner_model.model_sampling, latent_image)
    for node, text in idle_identities(guider.conds, sigmas):
        log.warning("Sampling: %s", text)
        _show(node, text)
    return executor(guider, sigmas, extra_args, callback, noise, latent_image, *args, **kwargs)


def _read(executor: Any, model: Any, conds: Any, *args: Any, **kwargs: Any):
    check_encoded(conds)
    return executor(model, conds, *args, **kwargs)


def check_encoded(conds: list[list[dict[str, Any]] | None]) -> None:
    """Raise InputError for a conditioning that is read in this step and was left out when prompts were encoded."""
    for entry in (entry for group in conds for entry in group or ()):
        if UNREAD in entry:
            raise InputError(
                f"The conditioning of node {entry[UNREAD]} (FaceCLIP Text Prompt) was not encoded, since the guidance "
                "wired to it is 1, and this sampler reads it. Wire the guidance that the sampler has, or take the link "
                "off the node's guidance."
            )


def check_width(conds: dict[str, list[dict[str, Any]]], unet_config: dict[str, Any]) -> None:
    """Raise InputError for a conditioning of another width than the model's: it was made for another model."""
    wanted = unet_config.get("context_dim", unet_config.get("context_in_dim"))
    for entry in (entry for group in conds.values() for entry in group or ()):
        tokens = entry.get("cross_attn")
        if wanted is not None and tokens is not None and tokens.shape[-1] != wanted:
            raise InputError(
                f"The diffusion model reads tokens that are {wanted} wide, and these are {tokens.shape[-1]}. "
                "FaceCLIP's prompts are for the FaceCLIP-SDXL UNet, FaceT5's for the FaceT5-FLUX transformer. Choose "
                "files of one family in Load FaceCLIP and Load FaceCLIP Diffusion Model."
            )


def check_levels(sigmas: torch.Tensor, model_sampling: Any, latent: torch.Tensor | None) -> None:
    """Raise InputError for noise levels of the other family's recipe: nothing but noise would come of them."""
    import comfy.model_sampling

    if len(sigmas) == 0:
        return
    first, largest = float(sigmas[0]), float(model_sampling.sigma_max)
    if isinstance(model_sampling, comfy.model_sampling.CONST):
        if first > largest * _ROUNDING:
            raise InputError(
                f"The noise levels begin at {first:.3g}, and FLUX's largest is {largest:g}. FaceCLIP Sampling Settings "
                "is SDXL's recipe: wire FaceT5 Sampling Settings, or a scheduler that is given this MODEL."
            )
    elif math.isclose(first, 1.0, rel_tol=1e-6) and (latent is None or not latent.any()):
        raise InputError(
            f"The noise levels begin at 1, which on an empty latent gives noise: SDXL's largest is {largest:.3g}. "
            "FaceT5 Sampling Settings is FLUX's recipe: wire FaceCLIP Sampling Settings."
        )


def idle_identities(conds: dict[str, list[dict[str, Any]]], sigmas: torch.Tensor) -> list[tuple[str, str]]:
    """The nodes whose identity acts in none of these steps, or in another range than its own, with what to say.

    conds: a guider's, as the host has prepared them: a range is two noise levels.
    """
    by_node = defaultdict(list)
    for entry in (entry for group in conds.values() for entry in group or ()):
        if ACTS in entry:
            by_node[entry[ACTS]["node"]].append(entry)
    found = []
    levels = [float(level) for level in sigmas[:-1]]
    for node, entries in by_node.items():
        spans = [(entry.get("timestep_start", math.inf), entry.get("timestep_end", 0.0)) for entry in entries]
        if levels and not any(low <= level <= high for high, low in spans for level in levels):
            count = "step lies" if len(levels) == 1 else f"{len(levels)} steps lie"
            found.append((node, f"none of the {count} in the range of this identity, so it does nothing in them."))
            continue
        own = entries[0][ACTS]["range"]
        now = {(entry.get("start_percent", 0.0), entry.get("end_percent", 1.0)) for entry in entries}
        if tuple(own) != (0.0, 1.0) and now != {tuple(own)}:
            shown = " and ".join(f"{start:.1%} to {end:.1%}" for start, end in sorted(now))
            found.append((node, f"the identity's own range was replaced behind this node, by {shown}."))
    return found


def _show(node: str, text: str) -> None:
    """At the node in the page, as nodes show progress in words; the log has it in any case."""
    server = getattr(getattr(sys.modules.get("server"), "PromptServer", None), "instance", None)
    if server is not None and hasattr(server, "send_progress_text"):
        server.send_progress_text(f"FaceCLIP: {text}", node)
