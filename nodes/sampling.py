"""The published sampling recipes as nodes."""

from collections.abc import Sequence
from typing import Any

import torch
from comfy_api.latest import io, ui

from ..faceclip.sampling import flux_schedule, recipes, schedule
from . import host_sampling, host_steps, targets
from .checked import checked
from .shelf import SELDOM, shelf

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
                io.Combo.Input(
                    "recipe",
                    **SELDOM,
                    options=list(recipes.RECIPES),
                    default=recipes.PUBLISHED,
                    optional=True,
                    tooltip="published, or the recipe of a few-step LoRA that you put on the model: its steps, sampler "
                    "and guidance as its authors give them.",
                ),
            ],
            outputs=[
                io.Sigmas.Output(tooltip="The published noise levels; Split Sigmas gives its later part for img2img."),
                io.Sampler.Output(tooltip="Euler, begun as the published pipeline begins it."),
                io.Latent.Output(tooltip="An empty latent of this size."),
                io.Int.Output(display_name="WIDTH", tooltip="The width, for the prompts: typed once."),
                io.Int.Output(display_name="HEIGHT", tooltip="The height, for the prompts: typed once."),
                io.Float.Output(display_name="CFG", tooltip="The recipe's guidance, for the sampler's cfg."),
            ],
            hidden=[io.Hidden.prompt, io.Hidden.unique_id],
        )

    @classmethod
    @checked
    def execute(
        cls, width: int, height: int, steps: int, batch_size: int, recipe: str = recipes.PUBLISHED
    ) -> io.NodeOutput:
        rows, columns = schedule.latent_size(width, height)
        latent = host_sampling.empty_latent(batch_size, rows, columns)
        sigmas, few = recipes.sigmas_of(recipe, steps), recipes.FEW_STEPS.get(recipe)
        sampler = host_sampling.stock(few.sampler) if few else host_sampling.euler_from(float(sigmas[0]))
        guidance = few.guidance if few else schedule.GUIDANCE
        text = _text(cls.hidden, targets.SDXL, sigmas, _about_recipe(few, steps) if few else [])
        return io.NodeOutput(sigmas, sampler, latent, width, height, guidance, ui=text)


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
    def execute(cls, width: int, height: int, steps: int, batch_size: int) -> io.NodeOutput:
        rows, columns = flux_schedule.latent_size(width, height)
        sigmas = flux_schedule.published_sigmas(width, height, steps)
        latent = host_sampling.empty_latent(batch_size, rows, columns, flux_schedule.LATENT_CHANNELS)
        sampler = host_sampling.stock()
        return io.NodeOutput(sigmas, sampler, latent, width, height, ui=_text(cls.hidden, targets.FLUX, sigmas))


def _text(hidden: Any, target: targets.Target, sigmas: torch.Tensor, recipe: Sequence[str] = ()) -> ui.PreviewText:
    lines = [describe(sigmas, target), *recipe, *host_steps.prompts_before(hidden, target)]
    return ui.PreviewText("\n".join(lines))


def _about_recipe(recipe: recipes.Recipe, steps: int) -> list[str]:
    """What a few-step recipe wants beside it."""
    lines = [f"{recipe.sampler}, cfg {recipe.guidance:g} ({recipe.source}). Load its LoRA with LoraLoaderModelOnly."]
    if recipe.guidance == 1.0:
        lines.append("At cfg 1 the negative prompt is not looked at.")
    if steps not in (len(recipe.times), schedule.STEPS):
        lines.append(f"! steps {steps} means nothing here: the recipe has {len(recipe.times)}.")
    return lines


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
