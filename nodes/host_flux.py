"""The host's words for a FLUX transformer in diffusers' layout."""

from typing import Any

from ..faceclip.sampling.flux_config import IN_CHANNELS, MLP_RATIO, FluxConfig

_PATCH = 2  # the host counts channels of the latent, diffusers those of a token of 2 x 2 cells


def host_config(config: FluxConfig) -> dict[str, Any]:
    """The host's words for a diffusers config."""
    channels = IN_CHANNELS // _PATCH**2
    return {
        "image_model": "flux",
        "in_channels": channels,
        "out_channels": channels,
        "vec_in_dim": config.pooled_projection_dim,
        "context_in_dim": config.joint_attention_dim,
        "hidden_size": config.width,
        "mlp_ratio": float(MLP_RATIO),
        "num_heads": config.num_attention_heads,
        "depth": config.num_layers,
        "depth_single_blocks": config.num_single_layers,
        "axes_dim": list(config.axes_dims_rope),
        "theta": 10000,
        "patch_size": _PATCH,
        "qkv_bias": True,
        "guidance_embed": True,
    }
