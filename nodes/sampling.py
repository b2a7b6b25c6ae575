"""The published sampling recipes as nodes."""

from comfy_api.latest import io

from ..faceclip.sampling import flux_schedule, schedule
from . import host_sampling
from .checked import checked
from .shelf import shelf


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
        )

    @classmethod
    @checked
    def execute(cls, width, height, steps, batch_size) -> io.NodeOutput:
        rows, columns = schedule.latent_size(width, height)
        sigmas = schedule.published_sigmas(steps)
        sampler = host_sampling.euler_from(float(sigmas[0]))
        latent = host_sampling.empty_latent(batch_size, rows, columns)
        return io.NodeOutput(sigmas, sampler, latent, width, height)


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
        )

    @classmethod
    @checked
    def execute(cls, width, height, steps, batch_size) -> io.NodeOutput:
        rows, columns = flux_schedule.latent_size(width, height)
        sigmas = flux_schedule.published_sigmas(width, height, steps)
        latent = host_sampling.empty_latent(batch_size, rows, columns, flux_schedule.LATENT_CHANNELS)
        return io.NodeOutput(sigmas, host_sampling.stock_euler(), latent, width, height)
