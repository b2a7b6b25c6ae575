"""The host-dependent part of merging: another checkpoint's style as patches on FaceCLIP's MODEL."""

from typing import Any

from ..faceclip.errors import InputError

_UNET = "diffusion_model."
# What reads the conditioning: keys and values of cross-attention, and the vector made of pooled text and sizes.
_READERS = (".attn2.to_k.", ".attn2.to_v.", "diffusion_model.label_emb.")
KEEP, MERGE = "keep FaceCLIP's", "merge"
READING_WEIGHTS = (KEEP, MERGE)

# The host's class of a model, by its name -> what a user calls it.
_OTHER_MODELS = {
    "SDXLRefiner": "the SDXL refiner",
    "SDXL_instructpix2pix": "an instruct-pix2pix SDXL",
    "SD21UNCLIP": "Stable Diffusion 2.1 unCLIP",
    "SVD_img2vid": "Stable Video Diffusion",
    "SD3": "Stable Diffusion 3",
    "Flux": "FLUX",
}
_OTHER_CONTEXTS = {768: "Stable Diffusion 1.5", 1024: "Stable Diffusion 2", 1280: "the SDXL refiner"}


def merge_style(model: Any, style: Any, base: Any, strength: float, reading_weights: str = KEEP):
    """FaceCLIP + strength x (style - base), as patches on a clone of FaceCLIP's MODEL; returns (MODEL, weights merged).

    model, style, base: the host's MODEL of FaceCLIP, of a checkpoint that was tuned from SDXL base, and of SDXL base.
    strength: 0.0 gives exactly `model`; where style and base are equal, so does any. reading_weights: what becomes of
    the weights that read the conditioning. The difference is taken weight by weight when the host applies the patches,
    so no third copy of the weights is made. Raises InputError where the models do not fit.
    """
    if reading_weights not in READING_WEIGHTS:
        raise InputError(f"The choice is {reading_weights!r}, wanted one of {', '.join(READING_WEIGHTS)}.")
    _check_kind(model, "model", None)
    for name, other in (("style_model", style), ("base_model", base)):
        _check_kind(other, name, model)
    if strength == 0.0:
        return model.clone(), 0
    ours = _weights(model)
    theirs, origin = style.get_key_patches(_UNET), base.get_key_patches(_UNET)
    _check_keys(ours, _weights(style), "style_model")
    _check_keys(ours, _weights(base), "base_model")
    merged = model.clone()
    chosen = [key for key in ours if reading_weights == MERGE or not any(reader in key for reader in _READERS)]
    # A list stands for a weight with its own patches; the last one takes the base's weight away from it. So the
    # difference is made first, and is exactly zero where both are equal.
    patches = {key: [*theirs[key], (-1.0, origin[key], 1.0, None, None)] for key in chosen}
    merged.add_patches(patches, strength)
    return merged, len(chosen)


def _weights(model: Any) -> dict[str, Any]:
    return {key: tuple(weight.shape) for key, weight in model.model_state_dict(_UNET).items()}


def _check_kind(model: Any, name: str, faceclip: Any) -> None:
    """Tell models apart that cannot be merged, by what the host took them for."""
    import comfy.model_base

    kind, config = model.model, model.model.model_config.unet_config
    context, channels = config.get("context_dim"), config.get("in_channels")
    wanted = "Load FaceCLIP Diffusion Model with the FaceCLIP-SDXL UNet" if faceclip is None else "an SDXL checkpoint"
    if type(kind) is not comfy.model_base.SDXL:
        seen = _OTHER_MODELS.get(type(kind).__name__) or _OTHER_CONTEXTS.get(context) or type(kind).__name__
        raise InputError(f"{name} is {seen}, wanted an SDXL model. Nothing was merged. Wire {wanted}.")
    if faceclip is not None and kind.model_type != faceclip.model.model_type:
        seen, ours = kind.model_type.name, faceclip.model.model_type.name
        raise InputError(
            f"{name} predicts otherwise ({seen}) than FaceCLIP ({ours}), so their weights do not add up. Nothing was "
            "merged. Wire a checkpoint that was tuned from SDXL base and predicts as it does: no v-prediction, no "
            "Playground 2.5."
        )
    if faceclip is not None and channels != faceclip.model.model_config.unet_config.get("in_channels"):
        what = "an inpainting checkpoint" if channels == 9 else f"a checkpoint with {channels} input channels"
        raise InputError(f"{name} is {what}, FaceCLIP has 4 input channels. Nothing was merged. Wire {wanted}.")


def _check_keys(ours: dict[str, Any], theirs: dict[str, Any], name: str) -> None:
    missing = [key for key in ours if key not in theirs]
    extra = [key for key in theirs if key not in ours]
    other = [key for key in ours if key in theirs and theirs[key] != ours[key]]
    if missing or extra or other:
        first = (missing + other + extra)[0]
        seen = f"{first}: {theirs.get(first, 'missing')}, wanted {ours.get(first, 'no such weight')}"
        raise InputError(
            f"{name} has not the weights of FaceCLIP's UNet: {len(missing)} are missing, {len(other)} have another "
            f"shape, {len(extra)} are unknown ({seen}). A pruned or distilled SDXL (SSD-1B, Vega, KOALA) has fewer "
            "layers. Nothing was merged. Wire a full SDXL checkpoint."
        )
