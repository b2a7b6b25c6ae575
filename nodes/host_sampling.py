"""The host-dependent part of sampling: its Euler, begun as the published pipeline begins; a look at ranges."""

import logging
import math
import sys
from collections import defaultdict
from functools import cache

import torch

from .conditioning import ACTS

log = logging.getLogger(__name__)


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


def watch_ranges(patcher) -> None:
    """Let a MODEL tell, whenever it is sampled, which identities act in none of the steps.

    The steps are known for sure only here, whatever the sampler; nothing about the sampling is changed.
    """
    import comfy.patcher_extension

    kind = comfy.patcher_extension.WrappersMP.SAMPLER_SAMPLE
    patcher.add_wrapper_with_key(kind, "faceclip", _sample_and_tell)


def _sample_and_tell(executor, guider, sigmas, *args, **kwargs):
    for node, text in idle_identities(guider.conds, sigmas):
        log.warning("Sampling: %s", text)
        _show(node, text)
    return executor(guider, sigmas, *args, **kwargs)


def idle_identities(conds: dict[str, list[dict]], sigmas: torch.Tensor) -> list[tuple[str, str]]:
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
