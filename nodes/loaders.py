"""Nodes that load the models: the encoder and the diffusion model. The detector is with the faces."""

import torch
from comfy_api.latest import io

from ..faceclip.install import published
from . import host, host_unet
from .checked import checked
from .shelf import OTHER_PACKS, SELDOM, shelf
from .types import Model

ENCODERS, UNETS = "faceclip", "diffusion_models"  # folders of the host
PRECISIONS = {
    "auto": None,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "fp32": torch.float32,
    "fp8_e4m3fn": torch.float8_e4m3fn,
}
_ENCODERS, _DIFFUSION_MODELS = (published.ENCODER, published.T5_ENCODER), (published.UNET, published.DIT)


class FaceCLIPLoader(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FaceCLIPLoader",
            display_name="Load FaceCLIP",
            **shelf("models", "portrait", *OTHER_PACKS),
            description="Loads a FaceCLIP encoder (for SDXL) or a FaceT5 encoder (for FLUX): the published "
            "face_clip_encoder.pt or face_t5_encoder.pt, or a converted .safetensors. The file says which it is.",
            inputs=[
                io.Combo.Input(
                    "file",
                    options=host.list_files(ENCODERS),
                    tooltip="A file from models/faceclip. A .safetensors made with `python -m faceclip convert` loads "
                    "faster than the published .pt.",
                ),
                io.Combo.Input(
                    "precision",
                    **SELDOM,
                    options=list(PRECISIONS),
                    default="auto",
                    tooltip="How the weights are kept in memory; auto keeps the file's own. Arithmetic is float32 "
                    "always, FaceT5's bf16 on a GPU. FaceT5 takes no fp16; fp8 is for FaceT5 alone, and costs detail.",
                ),
            ],
            outputs=[Model.Output(display_name="FACECLIP", tooltip="The encoder, under the host's memory management.")],
        )

    @classmethod
    def validate_inputs(cls, file: str | None = None):
        return host.check_file(ENCODERS, file, _ENCODERS)

    @classmethod
    def fingerprint_inputs(cls, file: str | None = None, **_):
        return host.modified(ENCODERS, file)

    @classmethod
    @checked
    def execute(cls, file: str, precision: str) -> io.NodeOutput:
        path = host.find_file(ENCODERS, file, _ENCODERS)
        return io.NodeOutput(host.ManagedFaceCLIP(path, PRECISIONS[precision], host.Progress()))


class FaceCLIPUNETLoader(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FaceCLIPUNETLoader",
            display_name="Load FaceCLIP Diffusion Model",
            **shelf("models", "SDXL"),
            description="Loads the SDXL UNet that was tuned for FaceCLIP (unet.pt), the FLUX transformer that was "
            "tuned for FaceT5 (dit.pt), a .safetensors made of either, and small ones whose file names their sizes. "
            "Every weight is checked: a wrong or damaged file is refused.",
            inputs=[
                io.Combo.Input(
                    "file",
                    options=host.list_files(UNETS),
                    tooltip="A file from models/diffusion_models.",
                ),
                io.Combo.Input(
                    "weight_dtype",
                    **SELDOM,
                    options=list(host_unet.WEIGHT_DTYPES),
                    default="default",
                    tooltip="How weights are kept. default: ComfyUI decides, as for any model. fp8 halves the memory "
                    "of bf16 and fp16 and costs some detail.",
                ),
            ],
            outputs=[io.Model.Output(tooltip="For SamplerCustom or KSampler, like any SDXL or FLUX model.")],
        )

    @classmethod
    def validate_inputs(cls, file: str | None = None):
        return host.check_file(UNETS, file, _DIFFUSION_MODELS)

    @classmethod
    def fingerprint_inputs(cls, file: str | None = None, **_):
        return host.modified(UNETS, file)

    @classmethod
    @checked
    def execute(cls, file: str, weight_dtype: str) -> io.NodeOutput:
        path = host.find_file(UNETS, file, _DIFFUSION_MODELS)
        return io.NodeOutput(host_unet.load_unet(path, weight_dtype, host.Progress()))
