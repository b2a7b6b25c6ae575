"""The host-dependent part of standing in for a CLIP: FaceCLIP's encoder as an object of the host's class.

The host's own class does what it always does; here are the three things it works with (tokenizer, text encoders,
patcher), and what cannot work, refused by name.
"""

import logging
from dataclasses import dataclass, field, replace
from functools import cache
from types import SimpleNamespace
from typing import Any

import torch

from ..faceclip.errors import InputError
from ..faceclip.identity.person import Person, conditioning_at
from ..faceclip.model import syntax
from ..faceclip.model.encoder import Identity, JointConditioning
from .clip_tokens import FORMS, TokenForm
from .targets import target_of

log = logging.getLogger(__name__)

_UNET = "diffusion_model."
# SDXL's layer by default, and the host's word for "the model's own".
_SAME_LAYER = (None, -2)


@dataclass(frozen=True)
class Carried:
    """What every prompt through the CLIP gets.

    faceclip: host.ManagedFaceCLIP. person: None for text alone. size: width and height told, (0, 0) for none. cut: of
    `JointEncoder.encode_prompt`'s long_prompt. acts: keys that mark an identity's entry.
    """

    faceclip: Any
    person: Person | None
    strength: float
    size: tuple[int, int]
    long_prompt: str
    acts: dict[str, Any] = field(default_factory=dict)

    @property
    def form(self) -> TokenForm:
        return FORMS[type(self.faceclip.config)]


def as_clip(carried: Carried):
    """A CLIP of the host that answers with FaceCLIP's conditioning."""
    import comfy.hooks

    patcher = carried.faceclip.patcher.clone()
    patcher.is_clip = True
    patcher.hook_mode = comfy.hooks.EnumHookMode.MinVram
    return _clip_class()(carried, patcher)


class Tokenizer:
    """What a CLIP's `tokenizer` is asked for."""

    def __init__(self, carried: Carried):
        self._carried = carried
        for name in carried.form.padded:  # how prompt-control learns that rows can be joined
            setattr(self, f"clip_{name}", SimpleNamespace(pad_to_max_length=True))

    def tokenize_with_weights(
        self, text: str, return_word_ids: bool = False, **_
    ) -> dict[str, list[list[tuple[Any, ...]]]]:
        """Text to the host's tokens: for each text encoder, rows of (id, weight) or (id, weight, word).

        Raises InputError for a textual inversion, and whatever the family's tokenize refuses.
        """
        asked = syntax.embeddings(text) if isinstance(text, str) else []
        if asked:
            raise InputError(
                f"The prompt asks for {', '.join(asked)}. Textual inversion cannot work through FaceCLIP: its vectors "
                "were made for SDXL's own text towers, and FaceCLIP's were trained anew. Take it out, or say in words "
                "what it stands for."
            )
        carried = self._carried
        tokenize = carried.faceclip.model.tokens.tokenize
        rows = tokenize(text, carried.person is not None, weighted=True, long_prompt=carried.long_prompt)
        for notice in syntax.notices(text):
            log.warning("Prompt: %s", notice)
        return carried.form.to_host(rows, return_word_ids)


class TextEncoders(torch.nn.Module):
    """What a CLIP's `cond_stage_model` is asked for. Options of SDXL's encoders change nothing here."""

    def __init__(self, carried: Carried):
        super().__init__()
        self.carried = carried

    def encode_token_weights(self, tokens: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor | None, dict[str, Any]]:
        """Conditioning, pooled vector, and what else is said of the picture, of tokens from `Tokenizer`."""
        joint = self.encode(tokens)
        return joint.embeddings, joint.pooled, told_of(self.carried, joint)

    def encode(self, tokens: dict[str, Any]) -> JointConditioning:
        carried = self.carried

        def encode_rows(rows: Any) -> JointConditioning:
            def encode(count: int, identity: Identity | None, **how: bool) -> JointConditioning:
                return carried.faceclip.encode_tokens([rows] * count, identity, **how)

            return conditioning_at(encode, carried.person, carried.strength)

        return carried.form.encode(tokens, carried.person is not None, carried.faceclip.config, encode_rows)

    def reset_clip_options(self) -> None:
        pass

    def set_clip_options(self, options: dict[str, Any]) -> None:
        pass

    def state_dict(self, *_, **__: Any) -> dict[str, torch.Tensor]:
        """The names of the weights that text-encoder LoRAs are made for, so that such a LoRA is seen and told of."""
        nothing = torch.empty(0)
        return dict.fromkeys(self.carried.form.lora_weights, nothing)

    def __getattr__(self, name: str):
        try:
            return super().__getattr__(name)
        except AttributeError:
            raise AttributeError(
                f"FaceCLIP as CLIP has no {name}: what asks for it works on the text encoders of SDXL or FLUX "
                "themselves, and FaceCLIP has its own. Use a node that only encodes text."
            ) from None


def told_of(carried: Carried, joint: JointConditioning) -> dict[str, Any]:
    told = target_of(carried.faceclip).tell(joint, *carried.size)
    return {key: value for key, value in {**told, **carried.acts}.items() if key != "pooled_output"}


def check_patches(patches: dict[str, Any], strength: float) -> None:
    """Raise InputError for patches to a text encoder, unless they are of no strength; those are only told of.

    patches: as for the host's add_patches, with those to the UNet, which are not for a CLIP, among them.
    """
    names = [key[0] if isinstance(key, tuple) else key for key in patches]
    names = [name for name in names if not name.startswith(_UNET)]
    if names and strength != 0.0:
        raise InputError(
            f"{len(names)} weights of a text encoder were to be changed ({names[0]} and so on), at strength "
            f"{strength:g}: a LoRA or merge made for the text encoders of SDXL or FLUX. FaceCLIP's are others, so that "
            "part cannot work. Set the loader's strength_clip to 0, or use LoraLoaderModelOnly: the part for the "
            "diffusion model works."
        )
    if names:
        log.info("%d weights of a LoRA are for text encoders: FaceCLIP passes them over.", len(names))


def check_patcher(patcher: Any, encoders: TextEncoders) -> None:
    """Raise InputError where hooks or injections on a patcher are to change a text encoder."""
    import comfy.hooks
    import comfy.lora

    if getattr(patcher, "injections", None):
        raise InputError(
            f"The CLIP's text encoders were to be changed in passing ({', '.join(patcher.injections)}), as a bypass "
            "LoRA loader does. FaceCLIP's are not those it was made for. Use a loader for the model alone."
        )
    for hook in patcher.forced_hooks.get_type(comfy.hooks.EnumHookType.Weight) if patcher.forced_hooks else ():
        if hook.need_weight_init:
            names = comfy.lora.model_lora_keys_clip(encoders, {})
            patches = comfy.lora.load_lora(hook.weights, names, log_missing=False)
        else:
            patches = hook.weights_clip or {}
        check_patches(patches, hook._strength_clip)


def _refused(what: str, way: str):
    def method(self: Any, *_, **__: Any):
        raise InputError(f"{what} FaceCLIP's encoder is no text encoder of SDXL or FLUX. {way}")

    return method


@cache
def _clip_class():
    # looked up late: the host's modules must not be imported before the host has set itself up
    import comfy.sd

    class FaceCLIPStandIn(comfy.sd.CLIP):
        """The host's CLIP over FaceCLIP. `.patcher` is the encoder's, so the host loads and frees it as any model."""

        def __init__(self, carried: Carried, patcher: Any):
            super().__init__(no_init=True)
            mine = replace(carried, faceclip=carried.faceclip.under(patcher))
            self.carried, self.patcher = mine, patcher
            self.tokenizer, self.cond_stage_model = Tokenizer(mine), TextEncoders(mine)
            self.layer_idx, self.use_clip_schedule, self.apply_hooks_to_conds = None, False, None
            self.tokenizer_options = {}

        def clone(self, **options: Any):
            other = type(self)(self.carried, self.patcher.clone(**options))
            other.layer_idx, other.use_clip_schedule = self.layer_idx, self.use_clip_schedule
            other.apply_hooks_to_conds = self.apply_hooks_to_conds
            other.tokenizer_options = self.tokenizer_options.copy()
            return other

        def encode_from_tokens(self, tokens: Any, *args: Any, **kwargs: Any):
            check_patcher(self.patcher, self.cond_stage_model)
            return super().encode_from_tokens(tokens, *args, **kwargs)

        def encode_from_tokens_scheduled(self, tokens: Any, *args: Any, **kwargs: Any):
            check_patcher(self.patcher, self.cond_stage_model)
            made = super().encode_from_tokens_scheduled(tokens, *args, **kwargs)
            for embeddings, told in made:  # the oldest hosts leave these out where hooks are scheduled
                for key, value in told_of(self.carried, JointConditioning(embeddings, told["pooled_output"])).items():
                    told.setdefault(key, value)
            return made

        def load_model(self, *_, **__: Any):
            self.carried.faceclip.load()
            return self.patcher

        def add_patches(self, patches: Any, strength_patch: Any = 1.0, strength_model: Any = 1.0):
            check_patches(patches, strength_patch)
            return []

        def clip_layer(self, layer_idx: Any):
            if layer_idx not in _SAME_LAYER:
                raise InputError(
                    f"CLIP Set Last Layer asks for layer {layer_idx}. FaceCLIP's diffusion model was trained on one "
                    "layer only. Take the node out, or set it to -2, SDXL's own."
                )
            self.layer_idx = layer_idx

        get_sd = _refused("A CLIP cannot be saved of this one.", "Keep FaceCLIP's own file, and load it again.")
        state_dict_for_saving = get_sd  # what newer hosts ask for
        load_sd = _refused("Weights cannot be loaded into this CLIP.", "Load them with Load CLIP.")
        get_key_patches = _refused("A CLIP cannot be merged with this one.", "Merge other CLIPs.")

    return FaceCLIPStandIn
