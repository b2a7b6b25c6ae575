"""Several people in one picture."""

from typing import Any

import torch
from comfy_api.latest import io, ui

from ..faceclip.identity.person import MAX_STRENGTH, Person
from ..faceclip.pixels import check_masks
from ..faceclip.sampling import regions, schedule
from . import conditioning as conditionings
from . import host_steps, scene, told
from .checked import checked
from .prompt import CONTINUE, LONG_PROMPT_WORDS
from .shelf import SELDOM, shelf
from .targets import target_of
from .types import FaceIdentity, Model


class FaceCLIPAddPerson(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        part = {"min": 0.0, "max": 1.0, "step": 0.01, "optional": True}
        return io.Schema(
            node_id="FaceCLIPAddPerson",
            display_name="Add Person",
            **shelf("prompt", "two people", "regional prompt", "several people"),
            description="Puts a person into a part of the picture. Start from FaceCLIP Text Prompt for the scene, and "
            "chain one of these for each person.",
            inputs=[
                io.Conditioning.Input("conditioning", tooltip="The scene, or the people added so far."),
                Model.Input("faceclip", tooltip="From Load FaceCLIP."),
                FaceIdentity.Input("identity", tooltip="Whom to add."),
                io.String.Input(
                    "text",
                    multiline=True,
                    dynamic_prompts=True,
                    tooltip="This person and what is around, such as: a man in a red coat, in a park.",
                ),
                io.Int.Input("width", default=schedule.WIDTH, min=16, max=16384, step=8, tooltip="Picture width, px."),
                io.Int.Input(
                    "height", default=schedule.HEIGHT, min=16, max=16384, step=8, tooltip="Picture height, px."
                ),
                io.Combo.Input(
                    "region",
                    options=[*regions.REGIONS, regions.BOX],
                    default="left half",
                    tooltip="Where the person is. A wired mask is used instead.",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=MAX_STRENGTH,
                    step=0.05,
                    tooltip="How much of the identity, as in FaceCLIP Prompt.",
                ),
                io.Float.Input(
                    "scene_share",
                    default=0.2,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="How much the scene's own text still counts where the person is.",
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="Where the person is, white; any size. Several masks: one for each picture of the batch.",
                ),
                io.Float.Input("x", default=0.0, **part, tooltip="Box: left edge, as a part of the width."),
                io.Float.Input("y", default=0.0, **part, tooltip="Box: top edge, as a part of the height."),
                io.Float.Input("box_width", default=0.5, **part, tooltip="Box: width, as a part of the width."),
                io.Float.Input("box_height", default=1.0, **part, tooltip="Box: height, as a part of the height."),
                io.Boolean.Input(
                    "follow_scene",
                    default=True,
                    optional=True,
                    tooltip="What acts on the scene (ControlNet, hooks, a part of the sampling, an area, a mask) acts "
                    "on this person too. Off: the person stands apart from it.",
                ),
                io.Boolean.Input(
                    "region_only",
                    default=False,
                    optional=True,
                    tooltip="The diffusion model works on the person's region alone: faster, but the person is drawn "
                    "without a look at the rest of the picture.",
                    **SELDOM,
                ),
            ],
            outputs=[io.Conditioning.Output(tooltip="The scene with this person.")],
            hidden=[io.Hidden.prompt, io.Hidden.unique_id],
        )

    @classmethod
    @checked
    def execute(
        cls,
        conditioning: Any,
        faceclip: Any,
        identity: Any,
        text: str,
        width: int,
        height: int,
        region: str,
        strength: float,
        scene_share: float,
        mask: Any = None,
        x: float = 0.0,
        y: float = 0.0,
        box_width: float = 0.5,
        box_height: float = 1.0,
        follow_scene: bool = True,
        region_only: bool = False,
    ) -> io.NodeOutput:
        target, choice = target_of(faceclip), LONG_PROMPT_WORDS[CONTINUE]
        cells = target.latent_size(width, height)
        if mask is None:
            place = regions.region_mask(region, (x, y, box_width, box_height), *cells)
        else:
            place = regions.fit_masks(check_masks(mask, "the person's mask"), *cells)
        extras = [{"mask": place, "mask_strength": 1.0}]
        if follow_scene:
            extras = scene.taken_over(conditioning, place)
        room = scene.make_room(conditioning, place, scene_share)
        carried = extras
        if region_only:
            extras, room = scene.within_region(extras), scene.without_covered(room)
        options: dict[str, Any] = {"weighted": True, "long_prompt": target.long_prompt(choice)}
        parts = conditionings.encode_parts(faceclip, text, identity, strength, 0.0, 1.0, options)
        made, acts = [], conditionings.acting(cls.hidden) if strength > 0.0 else None
        for extra in extras:
            made += conditionings.entries(target, parts, width, height, acts, **extra, **{scene.PERSON: True})
        told_anyway = target.tell(parts[0][0], width, height)
        lines = describe(identity, place, strength, scene.names_taken_over(carried, told_anyway))
        if region_only:
            lines.append(scene.about_region(carried))
        for span in scene.ranges(extras):
            lines += host_steps.about_range(cls.hidden, target, *span)
        report = "\n".join([*lines, *told.about_text(faceclip, text, True, options["long_prompt"])])
        return io.NodeOutput([*room, *made], ui=ui.PreviewText(report))


def describe(identity: Person, place: torch.Tensor, strength: float, taken_over: list[str]) -> list[str]:
    """Who stands where, and what acts on them."""
    lines = [f"The person takes {float(place.mean()):.0%} of the picture."]
    lines += told.about_person(identity, strength, 0.0, 1.0)
    return [*lines, f"Taken over from the scene: {', '.join(taken_over)}."] if taken_over else lines
