"""The host-dependent part of loading a diffusion model: from checked weights to the host's MODEL.

The host's own loader guesses the model from its weights, knows only a few sizes, and merely logs a weight it could not
fill. This builds the host's SDXL or FLUX from a named config instead, and leaves nothing unfilled.
"""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from ..faceclip.errors import FaceCLIPError
from ..faceclip.files.mapped import Source
from ..faceclip.files.state_dict import Progress, State
from ..faceclip.sampling import diffusion_file, unet_file
from ..faceclip.sampling.diffusion_file import Config
from ..faceclip.sampling.flux_config import FluxConfig
from ..faceclip.sampling.unet_config import VELOCITY, UNetConfig
from . import host_flux, host_sampling

# shown -> (weight dtype, or None for the host's choice; whether to compute in fp8 where the GPU can)
WEIGHT_DTYPES = {
    "default": (None, False),
    "bf16": (torch.bfloat16, False),
    "fp16": (torch.float16, False),
    "fp32": (torch.float32, False),
    "fp8_e4m3fn": (torch.float8_e4m3fn, False),
    "fp8_e4m3fn_fast": (torch.float8_e4m3fn, True),
    "fp8_e5m2": (torch.float8_e5m2, False),
}


@dataclass(frozen=True)
class HostModel:
    """What the host has for a kind of diffusion model.

    name: of its class among the host's supported models. config: our sizes in its words. names: the name of its
    function that tells, for such a config, where each of diffusers' weights goes.
    """

    name: str
    config: Callable[..., dict[str, Any]]
    names: str


def load_unet(
    path: str, weight_dtype: str = "default", progress: Progress | None = None, disable_dynamic: bool = False
):
    """Read, check and build the UNet or transformer in `path`; returns a MODEL. progress(done, total) may raise to
    cancel.

    disable_dynamic: asked for by newer hosts when they build a second copy under their classic memory management.
    """
    source = Source.of(path)
    state, config = diffusion_file.read(path)
    patcher = build_unet(state, config, weight_dtype, _watching(source, progress), disable_dynamic)
    host_sampling.watch_sampling(patcher)
    patcher.cached_patcher_init = (load_unet, (path, weight_dtype))  # how newer hosts make that second copy
    if source is not None and _is_dynamic(patcher):  # the weights stay in the file
        import comfy.patcher_extension

        patcher.add_callback(comfy.patcher_extension.CallbacksMP.ON_PRE_RUN, lambda *_: source.check())
    return patcher


def _watching(source: Source | None, progress: Progress | None) -> Progress | None:
    """`progress`, and a look at the file each time: while its weights are read, nobody may overwrite it."""
    if source is None:
        return progress

    def told(done: int, total: int) -> None:
        if progress:
            progress(done, total)
        source.check()  # last: what is read next follows

    return told


def _is_dynamic(patcher: Any) -> bool:
    return getattr(patcher, "is_dynamic", lambda: False)()


def build_unet(
    state: State,
    config: Config,
    weight_dtype: str = "default",
    progress: Progress | None = None,
    disable_dynamic: bool = False,
):
    """The host's model with these weights (diffusers' keys, checked against the config), in the host's patcher.

    Empties `state` as it goes, so that no weight is held twice.
    """
    import comfy.model_management as mm
    import comfy.model_patcher
    import comfy.supported_models

    kind = HOST_MODELS[type(config)]
    model_config = getattr(comfy.supported_models, kind.name)(kind.config(config))
    _choose_dtypes(model_config, state, weight_dtype)
    model = model_config.get_model(_what_it_predicts(config), "")

    patcher_class = comfy.model_patcher.ModelPatcher
    if not disable_dynamic:  # read late: newer hosts swap it at start
        patcher_class = getattr(comfy.model_patcher, "CoreModelPatcher", patcher_class)
    offload_device = mm.unet_offload_device()
    patcher = patcher_class(model, load_device=mm.get_torch_device(), offload_device=offload_device)
    if not mm.is_device_cpu(offload_device):
        model.to(offload_device)
    _load_weights(model.diffusion_model, state, kind, model_config.unet_config, _is_dynamic(patcher), progress)
    return patcher


def host_config(config: UNetConfig) -> dict[str, Any]:
    """The host's words for a diffusers config."""
    widths, depths, layers = config.block_out_channels, config.attention_depths, config.layers_per_block
    return {
        "image_size": 32,
        "in_channels": config.in_channels,
        "out_channels": config.out_channels,
        "model_channels": widths[0],
        "channel_mult": [width // widths[0] for width in widths],
        "num_res_blocks": [layers] * len(widths),
        "transformer_depth": [depth for depth in depths for _ in range(layers)],
        "transformer_depth_middle": config.transformer_layers_per_block[-1],
        "transformer_depth_output": [depth for depth in depths for _ in range(layers + 1)],
        "context_dim": config.cross_attention_dim,
        "num_classes": "sequential",
        "adm_in_channels": config.projection_class_embeddings_input_dim,
        "use_spatial_transformer": True,
        "use_linear_in_transformer": True,
        "use_checkpoint": False,
        "use_temporal_attention": False,
        "use_temporal_resblock": False,
        "legacy": False,
    }


def _what_it_predicts(config: Config) -> State:
    """The empty weights by which the host tells what a UNet predicts; nothing is the noise, or a FLUX's velocity."""
    if isinstance(config, UNetConfig) and config.prediction_type == VELOCITY:
        return {unet_file.VELOCITY_KEY: torch.empty(0)}
    return {}


def _choose_dtypes(model_config: Any, state: State, weight_dtype: str) -> None:
    """Set storage and compute dtype by the same rules as the host's own loader."""
    import comfy.model_management as mm
    import comfy.utils

    supported = list(model_config.supported_inference_dtypes)
    dtype, fast_fp8 = WEIGHT_DTYPES[weight_dtype]
    if dtype is None:
        dtype = mm.unet_dtype(
            model_params=comfy.utils.calculate_parameters(state),
            supported_dtypes=supported,
            weight_dtype=comfy.utils.weight_dtype(state),
        )
    compute = mm.unet_manual_cast(dtype, mm.get_torch_device(), supported)
    model_config.set_inference_dtype(dtype, compute)
    if fast_fp8:
        model_config.optimizations["fp8"] = True


def _load_weights(
    module: torch.nn.Module,
    state: State,
    kind: HostModel,
    host_config: dict[str, Any],
    assign: bool,
    progress: Progress | None,
):
    """Move every weight of `state` into the host's module, layer group by layer group."""
    import comfy.utils

    names = getattr(comfy.utils, kind.names)(host_config)  # diffusers' key -> place, with keys of other models
    groups: dict[str, dict[str, list[Any]]] = defaultdict(lambda: defaultdict(list))
    unknown = [key for key in state if key not in names]
    for key in [key for key in state if key in names]:
        place = names[key]
        # A name; or the name with the rows that a part of it takes, and with what the host does to the weight.
        name, *more = (place,) if isinstance(place, str) else place
        rows, change = (*more, None, None)[:2]
        parts = name.split(".")
        group = ".".join(parts[: min(2, len(parts) - 1)])
        groups[group][name[len(group) + 1 :]].append((rows[1] if rows else 0, key, change))
    filled = {f"{group}.{rest}" for group, part in groups.items() for rest in part}

    for done, (group, part) in enumerate(groups.items()):
        weights = {rest: _joined(state, pieces) for rest, pieces in part.items()}
        module.get_submodule(group).load_state_dict(weights, strict=True, assign=assign)
        if progress:
            progress(done + 1, len(groups))
    # Only after loading: newer hosts create some weights no earlier than that.
    unfilled = [key for key in module.state_dict() if key not in filled]
    if unknown or unfilled:
        raise FaceCLIPError(
            f"This ComfyUI builds {kind.name} otherwise than expected: {len(unknown)} weights have no place in it "
            f"{unknown[:4]}, {len(unfilled)} would be left empty {unfilled[:4]}. Nothing was loaded. "
            "Update ComfyUI-FaceCLIP, or use a ComfyUI version that its README names."
        )


def _joined(state: State, pieces: list[tuple[int, str, Callable[..., Any] | None]]) -> torch.Tensor:
    """One of the host's weights, of pieces that lie one below the other; taken out of `state`."""
    parts = []
    for _, key, change in sorted(pieces, key=lambda piece: piece[0]):
        value = state.pop(key)
        parts.append(change(value) if change else value)
    return parts[0] if len(parts) == 1 else torch.cat(parts)


HOST_MODELS = {
    UNetConfig: HostModel("SDXL", host_config, "unet_to_diffusers"),
    FluxConfig: HostModel("Flux", host_flux.host_config, "flux_to_diffusers"),
}
