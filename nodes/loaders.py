"""Nodes that load models."""

import folder_paths
from comfy_api.latest import io

from . import host_unet


class FaceCLIPUNETLoader(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FaceCLIPUNETLoader",
            display_name="Load FaceCLIP-SDXL UNet",
            category="FaceCLIP",
            description="Loads the SDXL UNet that was tuned for FaceCLIP (unet.pt, or a .safetensors made of it), and "
            "small ones whose file names their sizes. Every weight is checked: a wrong or damaged file is refused.",
            inputs=[
                io.Combo.Input(
                    "unet_name",
                    options=folder_paths.get_filename_list("diffusion_models"),
                    tooltip="The UNet's file, in models/diffusion_models.",
                ),
                io.Combo.Input(
                    "weight_dtype",
                    options=list(host_unet.WEIGHT_DTYPES),
                    default="default",
                    tooltip="How weights are kept. default: ComfyUI decides, as for any model. fp8 halves the memory of "
                    "bf16 and fp16 and costs some detail.",
                ),
            ],
            outputs=[io.Model.Output()],
        )

    @classmethod
    def execute(cls, unet_name, weight_dtype) -> io.NodeOutput:
        path = folder_paths.get_full_path_or_raise("diffusion_models", unet_name)
        return io.NodeOutput(host_unet.load_unet(path, weight_dtype))
