"""Name the model a state dict belongs to, so that a wrong file is refused in plain words."""

from collections.abc import Iterable

_LDM_UNET = "input_blocks.0.0.weight"

# (words for the user, what must begin one key and each of the others): the first row that fits is the answer,
# so whole checkpoints come before the parts they hold.
_BY_PREFIX = (
    ("an SDXL checkpoint with text encoders and VAE in one file", ("conditioner.embedders.",)),
    ("a Stable Diffusion 1 or 2 checkpoint with its text encoder in one file", ("cond_stage_model.",)),
    ("a FaceCLIP encoder", ("face_clip_l.",)),
    ("a FaceCLIP encoder", ("model.face_clip_l.",)),
    ("an IP-Adapter", ("ip_adapter.", "image_proj.")),
    ("a ControlNet", ("controlnet_cond_embedding.",)),
    ("a ControlNet", ("control_model.",)),
    ("a ControlNet", ("zero_convs.",)),
    ("a TAESD-shaped VAE", ("taesd_decoder.",)),
    ("a VAE", ("first_stage_model.decoder.",)),
    ("a VAE", ("decoder.conv_in.", "encoder.conv_in.")),
    ("a VAE", ("decoder.conv_in.", "post_quant_conv.")),
    ("a FLUX model", ("double_blocks.",)),
    ("a FLUX model", ("model.diffusion_model.double_blocks.",)),
    ("a Stable Diffusion 3 model", ("joint_blocks.",)),
    ("a Stable Diffusion 3 model", ("model.diffusion_model.joint_blocks.",)),
    ("a diffusion transformer, not a UNet", ("transformer_blocks.", "proj_out.")),
    ("a CLIP text encoder", ("text_model.embeddings.",)),
    ("a CLIP model", ("transformer.resblocks.",)),
    ("a CLIP model", ("visual.",)),
    ("a T5 text encoder", ("encoder.block.", "shared.")),
)


def describe_foreign(keys: Iterable[str]) -> str | None:
    """Words such as "a LoRA" for the model whose state dict has these keys; None when it is none of the known ones.

    A UNet in diffusers' layout is not foreign: its shapes decide (see `faceclip.unet`).
    """
    keys = list(keys)
    if any(part in key for key in keys for part in ("lora_down", "lora_up", "lora_A", "lora_B", "hada_w1_", "lokr_w1")):
        return "a LoRA"
    for words, prefixes in _BY_PREFIX:
        if all(any(key.startswith(prefix) for key in keys) for prefix in prefixes):
            return words
    if any(key == _LDM_UNET or key.endswith("diffusion_model." + _LDM_UNET) for key in keys):
        return "a UNet in the original (ldm) key layout"
    return None
