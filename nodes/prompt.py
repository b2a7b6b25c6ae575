"""The prompt pass: text and identity become a conditioning."""

import math
from typing import Any

from comfy_api.latest import io, ui

from ..faceclip.identity import person
from ..faceclip.identity.file import check_encoder
from ..faceclip.model.prompt import LONG_PROMPT
from ..faceclip.sampling import schedule
from . import conditioning, host_clip, host_steps, told
from .checked import checked
from .shelf import SELDOM, shelf
from .targets import target_of
from .types import FaceIdentity, Model

CONTINUE = "continue in further chunks"
LONG_PROMPT_WORDS = {CONTINUE: LONG_PROMPT[0], "cut at 77": LONG_PROMPT[1]}


def _text_inputs(tooltip: str) -> list[io.Input]:
    size = {"min": 16, "max": 16384, "step": schedule.LATENT_SCALE}
    told_to = "of the picture in px, told to SDXL's UNet (FLUX is told no size). Give the latent the same."
    return [
        Model.Input("faceclip", tooltip="From Load FaceCLIP."),
        io.String.Input("text", multiline=True, dynamic_prompts=True, tooltip=tooltip),
        io.Int.Input("width", default=schedule.WIDTH, **size, tooltip=f"Width {told_to}"),
        io.Int.Input("height", default=schedule.HEIGHT, **size, tooltip=f"Height {told_to}"),
    ]


def _long_prompt_input() -> io.Input:
    return io.Combo.Input(
        "long_prompt",
        options=list(LONG_PROMPT_WORDS),
        default=CONTINUE,
        optional=True,
        tooltip="Text beyond 77 tokens: continue in further chunks, each with the identity, or drop it as the "
        "published script does. Shorter prompts are the same either way. FaceT5 reads 512 tokens and ignores this.",
    )


class FaceCLIPEncodePrompt(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FaceCLIPEncodePrompt",
            display_name="FaceCLIP Prompt",
            **shelf(
                "prompt",
                "portrait",
                "likeness",
                "same person",
                "consistent character",
                "identity",
                "PuLID",
                "InstantID",
                "IPAdapter FaceID",
                "PhotoMaker",
            ),
            description="The prompt pass: text and an identity become one conditioning, SDXL's or FLUX's. For text "
            "alone, such as the negative, there is FaceCLIP Text Prompt.",
            inputs=[
                *_text_inputs(
                    "What the picture shows. With an identity, 'Photo of a id person.' is put in front of it, so "
                    "describe the person and the scene only. (word:1.2) weighs a word."
                ),
                FaceIdentity.Input(
                    "identity",
                    optional=True,
                    tooltip="Whom the picture shows. Empty: text alone, and the node says so.",
                ),
                _long_prompt_input(),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=person.MAX_STRENGTH,
                    step=0.05,
                    optional=True,
                    tooltip="How much of the identity: 1.0 is exactly the published output, 0.0 none of it. Above 1 "
                    "the likeness is pushed beyond what the UNet was trained on.",
                ),
                io.Float.Input(
                    "start_percent",
                    **SELDOM,
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.001,
                    optional=True,
                    tooltip="From which part of the sampling on the identity acts. The text acts everywhere.",
                ),
                io.Float.Input(
                    "end_percent",
                    **SELDOM,
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.001,
                    optional=True,
                    tooltip="Up to which part of the sampling the identity acts. Ending early frees the pose's details "
                    "and the style.",
                ),
            ],
            outputs=[io.Conditioning.Output(tooltip="For KSampler, SamplerCustom or any conditioning node.")],
            hidden=[io.Hidden.prompt, io.Hidden.unique_id],
        )

    @classmethod
    @checked
    def execute(
        cls,
        faceclip: Any,
        text: str,
        width: int,
        height: int,
        identity: Any = None,
        long_prompt: str = CONTINUE,
        strength: float = 1.0,
        start_percent: float = 0.0,
        end_percent: float = 1.0,
    ) -> io.NodeOutput:
        target, choice = target_of(faceclip), LONG_PROMPT_WORDS[long_prompt]
        options: dict[str, Any] = {"weighted": True, "long_prompt": target.long_prompt(choice)}
        parts = conditioning.encode_parts(faceclip, text, identity, strength, start_percent, end_percent, options)
        lines, acts = told.about_person(identity, strength, start_percent, end_percent), None
        if identity is not None and strength > 0.0:
            lines += host_steps.about_range(cls.hidden, target, start_percent, end_percent)
            acts = conditioning.acting(cls.hidden, start_percent, end_percent)
        lines += told.about_text(faceclip, text, identity is not None, options["long_prompt"])
        lines += target.notes(choice)
        made = conditioning.entries(target, parts, width, height, acts)
        return io.NodeOutput(made, ui=ui.PreviewText("\n".join(lines)))


class FaceCLIPEncodeText(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FaceCLIPEncodeText",
            display_name="FaceCLIP Text Prompt",
            **shelf("prompt", "negative prompt"),
            description="Text alone as one conditioning: the negative, and the scene for Add Person. It has no "
            "input for an identity, so none can get in.",
            inputs=[
                *_text_inputs("What the picture shows, or is not to show. (word:1.2) weighs a word."),
                _long_prompt_input(),
                io.Float.Input(
                    "guidance",
                    min=0.0,
                    max=100.0,  # as the host's samplers
                    optional=True,
                    force_input=True,
                    tooltip="For a negative prompt: the sampler's cfg, as FaceCLIP Sampling Settings gives it. At 1 "
                    "samplers look at no negative, and it is not encoded.",
                ),
            ],
            outputs=[
                io.Conditioning.Output(tooltip="For KSampler, SamplerCustom, Add Person or any conditioning node.")
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    @checked
    def execute(
        cls,
        faceclip: Any,
        text: str,
        width: int,
        height: int,
        long_prompt: str = CONTINUE,
        guidance: float | None = None,
    ) -> io.NodeOutput:
        target, choice = target_of(faceclip), LONG_PROMPT_WORDS[long_prompt]
        if guidance is not None and math.isclose(guidance, 1.0):  # the host's own rule
            made = conditioning.unread(faceclip, target, width, height, getattr(cls.hidden, "unique_id", None))
            return io.NodeOutput(made, ui=ui.PreviewText("Not encoded: at guidance 1 no sampler reads it."))
        options: dict[str, Any] = {"weighted": True, "long_prompt": target.long_prompt(choice)}
        parts = conditioning.encode_parts(faceclip, text, None, 1.0, 0.0, 1.0, options)
        lines = told.about_text(faceclip, text, False, options["long_prompt"])
        lines += target.notes(choice)
        made = conditioning.entries(target, parts, width, height)
        return io.NodeOutput(made, ui=ui.PreviewText("\n".join(lines)))


class FaceCLIPAsClip(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        size = {"default": 0, "min": 0, "max": 16384, "step": schedule.LATENT_SCALE, "optional": True}
        told_to = (
            "of the picture in px, told to SDXL's UNet. 0 for both: that of whatever is painted, as detailers need."
        )
        return io.Schema(
            node_id="FaceCLIPAsClip",
            display_name="FaceCLIP as CLIP",
            **shelf("prompt", "CLIP", "detailer", "wildcard", "prompt control", "pipe", "adapter"),
            description="FaceCLIP with an identity in it, for every node that asks for a CLIP: CLIP Text Encode, "
            "detailers, wildcards, pipes. Whatever text comes to it gets this identity.",
            inputs=[
                Model.Input("faceclip", tooltip="From Load FaceCLIP."),
                FaceIdentity.Input(
                    "identity",
                    optional=True,
                    tooltip="Whom every text through this CLIP shows. Empty: text alone, as negative prompts need.",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=person.MAX_STRENGTH,
                    step=0.05,
                    optional=True,
                    tooltip="How much of the identity, as in FaceCLIP Prompt.",
                ),
                io.Int.Input("width", **size, tooltip=f"Width {told_to}"),
                io.Int.Input("height", **size, tooltip=f"Height {told_to}"),
                _long_prompt_input(),
            ],
            outputs=[io.Clip.Output(tooltip="For CLIP Text Encode, CLIPTextEncodeSDXL, detailers, pipes and so on.")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    @checked
    def execute(
        cls,
        faceclip: Any,
        identity: Any = None,
        strength: float = 1.0,
        width: int = 0,
        height: int = 0,
        long_prompt: str = CONTINUE,
    ) -> io.NodeOutput:
        target, choice = target_of(faceclip), LONG_PROMPT_WORDS[long_prompt]
        if (width, height) != (0, 0):
            target.latent_size(width, height)  # refuses sizes that the model cannot make
        if identity is not None and identity.encoder:
            check_encoder(identity, faceclip.encoder_hash, identity.name or "given")
        acts = conditioning.acting(cls.hidden) if identity is not None and strength > 0.0 else {}
        chosen = target.long_prompt(choice)
        clip = host_clip.as_clip(host_clip.Carried(faceclip, identity, strength, (width, height), chosen, acts))
        lines = told.about_person(identity, strength, 0.0, 1.0)
        return io.NodeOutput(clip, ui=ui.PreviewText("\n".join(lines)))
