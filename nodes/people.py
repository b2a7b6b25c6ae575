"""Several people in one picture."""

import torch
from comfy_api.latest import io

from ..faceclip.identity.person import MAX_STRENGTH
from ..faceclip.sampling import regions, schedule
from . import conditioning as conditionings
from .checked import checked
from .prompt import CONTINUE, LONG_PROMPT_WORDS
from .types import CATEGORY, FaceIdentity, Model

_PERSON = "faceclip_person"  # marks an entry of CONDITIONING that belongs to a person; the host passes it over


class FaceCLIPAddPerson(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        part = {"min": 0.0, "max": 1.0, "step": 0.01, "optional": True}
        return io.Schema(
            node_id="FaceCLIPAddPerson",
            display_name="Add Person",
            category=CATEGORY,
            description="Puts a person into a part of the picture. Start from FaceCLIP Prompt without an identity for "
            "the scene, and chain one of these for each person.",
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
                io.Mask.Input("mask", optional=True, tooltip="Where the person is, white; any size."),
                io.Float.Input("x", default=0.0, **part, tooltip="Box: left edge, as a part of the width."),
                io.Float.Input("y", default=0.0, **part, tooltip="Box: top edge, as a part of the height."),
                io.Float.Input("box_width", default=0.5, **part, tooltip="Box: width, as a part of the width."),
                io.Float.Input("box_height", default=1.0, **part, tooltip="Box: height, as a part of the height."),
            ],
            outputs=[io.Conditioning.Output(tooltip="The scene with this person.")],
        )

    @classmethod
    @checked
    def execute(
        cls,
        conditioning,
        faceclip,
        identity,
        text,
        width,
        height,
        region,
        strength,
        scene_share,
        mask=None,
        x=0.0,
        y=0.0,
        box_width=0.5,
        box_height=1.0,
    ) -> io.NodeOutput:
        cells = schedule.latent_size(width, height)
        if mask is None:
            place = regions.region_mask(region, (x, y, box_width, box_height), *cells)
        else:
            place = regions.fit_mask(mask, *cells)
        options = {"weighted": True, "long_prompt": LONG_PROMPT_WORDS[CONTINUE]}
        parts = conditionings.encode_parts(faceclip, text, identity, strength, 0.0, 1.0, options)
        made = conditionings.entries(parts, width, height, mask=place, mask_strength=1.0, **{_PERSON: True})
        return io.NodeOutput([*make_room(conditioning, place, scene_share), *made])


def make_room(conditioning: list, place: torch.Tensor, share: float) -> list:
    """Copies of the entries, those of the scene pushed back to `share` where the person is; people are left alone."""
    rest = []
    for embeddings, extra in conditioning:
        if not extra.get(_PERSON):
            old = extra.get("mask")
            cells = tuple(place.shape[1:])
            base = torch.ones_like(place) if old is None else regions.fit_mask(old, *cells)
            extra = {**extra, "mask": regions.make_room(base, place, share)}
            extra.setdefault("mask_strength", 1.0)
        rest.append([embeddings, extra])
    return rest
