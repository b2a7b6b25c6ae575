"""The published sampling recipes as nodes."""

import torch
from comfy_api.latest import io, ui

from ..faceclip.sampling import flux_schedule, schedule
from . import host_sampling, host_steps, targets
from .checked import checked
from .shelf import shelf

_MOST_SHOWN = 8


class FaceCLIPSampling(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        size = {"min": 16, "max": 16384, "step": schedule.LATENT_SCALE}
        return io.Schema(
            node_id="FaceCLIPSampling",
            display_name="FaceCLIP Sampling Settings",
            **shelf("sampling", "portrait size", "euler"),
            description="Noise levels, sampler and empty latent of the published FaceCLIP-SDXL recipe, for the stock "
            f"SamplerCustom with cfg {schedule.GUIDANCE}.",
            inputs=[
                io.Int.Input(
                    "width",
                    default=schedule.WIDTH,
                    **size,
                    tooltip="Width of the picture in px, a multiple of 8.",
                ),
                io.Int.Input(
                    "height",
                    default=schedule.HEIGHT,
                    **size,
                    tooltip="Height of the picture in px, a multiple of 8.",
                ),
                io.Int.Input(
                    "steps",
                    default=schedule.STEPS,
                    min=1,
                    max=schedule.MAX_STEPS,
                    tooltip="Number of Euler steps. Fewer are faster and coarser.",
                ),
                io.Int.Input("batch_size", default=1, min=1, max=64, tooltip="Pictures made at the same time."),
            ],
            outputs=[
                io.Sigmas.Output(tooltip="The published noise levels; Split Sigmas gives its later part for img2img."),
                io.Sampler.Output(tooltip="Euler, begun as the published pipeline begins it."),
                io.Latent.Output(tooltip="An empty latent of this size."),
                io.Int.Output(display_name="WIDTH", tooltip="The width, for the prompts: typed once."),
                io.Int.Output(display_name="HEIGHT", tooltip="The height, for the prompts: typed once."),
            ],
            hidden=[io.Hidden.prompt, io.Hidden.unique_id],
        )

    @classmethod
    @checked
    def execute(cls, width, height, steps, batch_size) -> io.NodeOutput:
        rows, columns = schedule.latent_size(width, height)
        sigmas = schedule.published_sigmas(steps)
        sampler = host_sampling.euler_from(float(sigmas[0]))
        latent = host_sampling.empty_latent(batch_size, rows, columns)
        return io.NodeOutput(sigmas, sampler, latent, width, height, ui=_text(cls.hidden, targets.SDXL, sigmas))


class FaceT5Sampling(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        size = {"min": 16, "max": 16384, "step": flux_schedule.SIZE_STEP}
        return io.Schema(
            node_id="FaceT5Sampling",
            display_name="FaceT5 Sampling Settings",
            **shelf("sampling", "FLUX", "euler"),
            description="Noise levels, sampler and empty latent of the published FaceT5-FLUX recipe, for the stock "
            f"SamplerCustom (or CFGGuider) with cfg {flux_schedule.GUIDANCE}. FaceCLIP Prompt tells FLUX the guidance "
            f"embedding of the recipe, {flux_schedule.DISTILLED_GUIDANCE}.",
            inputs=[
                io.Int.Input(
                    "width",
                    default=flux_schedule.WIDTH,
                    **size,
                    tooltip="Width of the picture in px, a multiple of 16.",
                ),
                io.Int.Input(
                    "height",
                    default=flux_schedule.HEIGHT,
                    **size,
                    tooltip="Height of the picture in px, a multiple of 16.",
                ),
                io.Int.Input(
                    "steps",
                    default=flux_schedule.STEPS,
                    min=1,
                    max=flux_schedule.MAX_STEPS,
                    tooltip="Number of Euler steps. Fewer are faster and coarser.",
                ),
                io.Int.Input("batch_size", default=1, min=1, max=64, tooltip="Pictures made at the same time."),
            ],
            outputs=[
                io.Sigmas.Output(tooltip="The published noise levels, shifted for this size."),
                io.Sampler.Output(tooltip="Euler."),
                io.Latent.Output(tooltip="An empty latent of this size."),
                io.Int.Output(display_name="WIDTH", tooltip="The width, for Add Person: typed once."),
                io.Int.Output(display_name="HEIGHT", tooltip="The height, for Add Person: typed once."),
            ],
            hidden=[io.Hidden.prompt, io.Hidden.unique_id],
        )

    @classmethod
    @checked
    def execute(cls, width, height, steps, batch_size) -> io.NodeOutput:
        rows, columns = flux_schedule.latent_size(width, height)
        sigmas = flux_schedule.published_sigmas(width, height, steps)
        latent = host_sampling.empty_latent(batch_size, rows, columns, flux_schedule.LATENT_CHANNELS)
        sampler = host_sampling.stock_euler()
        return io.NodeOutput(sigmas, sampler, latent, width, height, ui=_text(cls.hidden, targets.FLUX, sigmas))


def _text(hidden, target: targets.Target, sigmas: torch.Tensor) -> ui.PreviewText:
    lines = [describe(sigmas, target), *host_steps.prompts_before(hidden, target)]
    return ui.PreviewText("\n".join(lines))


def describe(sigmas: torch.Tensor, target: targets.Target) -> str:
    """The steps' noise levels, and where they lie in the sampling."""
    levels, parts = sigmas[:-1].tolist(), target.parts_of_sampling(sigmas[:-1])
    shown = list(zip(levels, parts, strict=True))
    if len(shown) > _MOST_SHOWN:
        shown = [*shown[: _MOST_SHOWN - 1], shown[-1]]
    text = ", ".join(f"{level:.3g} at {part:.1%}" for level, part in shown[:-1])
    gap = ", ... " if len(levels) > len(shown) else ", "
    last = f"{shown[-1][0]:.3g} at {shown[-1][1]:.1%}"
    return f"{len(levels)} steps, noise {text + gap if text else ''}{last} of the sampling."
