"""Nodes that load the models beside the encoder."""

from comfy_api.latest import io

from ..faceclip import published
from . import host, host_unet
from .types import CATEGORY

FOLDER = "diffusion_models"
WANTED = (published.UNET,)


class FaceCLIPUNETLoader(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FaceCLIPUNETLoader",
            display_name="Load FaceCLIP-SDXL UNet",
            category=CATEGORY,
            description="Loads the SDXL UNet that was tuned for FaceCLIP (unet.pt, or a .safetensors made of it), and "
            "small ones whose file names their sizes. Every weight is checked: a wrong or damaged file is refused.",
            inputs=[
                io.Combo.Input(
                    "file",
                    options=host.list_files(FOLDER),
                    tooltip="A file from models/diffusion_models.",
                ),
                io.Combo.Input(
                    "weight_dtype",
                    options=list(host_unet.WEIGHT_DTYPES),
                    default="default",
                    tooltip="How weights are kept. default: ComfyUI decides, as for any model. fp8 halves the memory "
                    "of bf16 and fp16 and costs some detail.",
                ),
            ],
            outputs=[io.Model.Output(tooltip="For SamplerCustom or KSampler, like any SDXL model.")],
        )

    @classmethod
    def validate_inputs(cls, file=None):
        return host.check_file(FOLDER, file, WANTED)

    @classmethod
    def execute(cls, file, weight_dtype) -> io.NodeOutput:
        path = host.find_file(FOLDER, file, WANTED)
        return io.NodeOutput(host_unet.load_unet(path, weight_dtype, host.Progress()))
