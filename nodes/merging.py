"""FaceCLIP's UNet with the style of another SDXL checkpoint."""

import re
from typing import Any

from comfy_api.latest import io, ui

from . import host_merge
from .checked import checked
from .shelf import shelf

MAX_STRENGTH = 2.0
# What few-step models are called by those who make them: nothing in their weights tells.
_FEW_STEPS = re.compile(r"turbo|lightning|hyper|lcm|dmd|tcd", re.IGNORECASE)


class FaceCLIPStyleMerge(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FaceCLIPStyleMerge",
            display_name="Merge Style into FaceCLIP",
            **shelf("models", "merge checkpoints"),
            description="FaceCLIP's UNet in the style of another SDXL checkpoint: FaceCLIP + strength x (style - "
            "base). Nobody has measured yet what that does to the likeness with the published weights.",
            inputs=[
                io.Model.Input("model", tooltip="From Load FaceCLIP Diffusion Model."),
                io.Model.Input("style_model", tooltip="An SDXL checkpoint tuned from SDXL base: Load Checkpoint."),
                io.Model.Input("base_model", tooltip="SDXL base 1.0, from which the style's difference is taken."),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=MAX_STRENGTH,
                    step=0.01,
                    tooltip="How much of the style's difference from base is added. 0 is exactly FaceCLIP.",
                ),
                io.Combo.Input(
                    "reading_weights",
                    options=list(host_merge.READING_WEIGHTS),
                    default=host_merge.KEEP,
                    tooltip="The weights that read the conditioning (cross-attention's keys and values, the pooled "
                    "vector's layers): FaceCLIP's were retrained with its encoder, the style's were not.",
                ),
            ],
            outputs=[io.Model.Output(tooltip="For SamplerCustom or KSampler, LoRA loaders and so on.")],
            hidden=[io.Hidden.prompt, io.Hidden.unique_id],
        )

    @classmethod
    @checked
    def execute(
        cls, model: Any, style_model: Any, base_model: Any, strength: Any, reading_weights: Any
    ) -> io.NodeOutput:
        merged, count = host_merge.merge_style(model, style_model, base_model, strength, reading_weights)
        text = f"{count} weights get {strength:g} x (style - base)." if count else "Strength 0: FaceCLIP as it is."
        named = few_steps_file(cls.hidden, "style_model")
        if named:
            text += f"\n{named} is for few steps, by its name: sample with its steps and guidance, or merge another."
        return io.NodeOutput(merged, ui=ui.PreviewText(text))


def few_steps_file(hidden: Any, name: str) -> str | None:
    """The file whose MODEL is wired into an input, where its name says that it was distilled to few steps.

    hidden: the node's `prompt` and `unique_id`, None outside of a server.
    """
    prompt = getattr(hidden, "prompt", None) or {}
    inputs = prompt.get(str(getattr(hidden, "unique_id", None)), {}).get("inputs", {})
    seen, link = set(), inputs.get(name)
    while isinstance(link, list) and link[0] not in seen:
        seen.add(link[0])
        inputs = prompt.get(link[0], {}).get("inputs", {})
        files = [inputs[key] for key in ("ckpt_name", "unet_name", "file") if isinstance(inputs.get(key), str)]
        if files:
            return files[0] if _FEW_STEPS.search(files[0]) else None
        link = inputs.get("model")
    return None
