"""Nodes that make identities of faces, mix them, keep them and bring them back."""

from typing import Any

import torch
from comfy_api.latest import io, ui

from ..faceclip.errors import InputError
from ..faceclip.identity import file as identity_file
from ..faceclip.identity import person
from ..faceclip.install.places import IDENTITIES
from . import host
from .checked import checked
from .lists import one_for_all
from .shelf import SELDOM, shelf
from .types import AlignedFace, FaceIdentity, Model


class FaceCLIPEncodeIdentity(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FaceCLIPEncodeIdentity",
            display_name="Encode Identity",
            **shelf("people", "same person", "likeness", "reference photo", "consistent character", "IPAdapter FaceID"),
            description="The face pass: what FaceCLIP's face encoder sees in one or more aligned faces of one person. "
            "A new prompt does not repeat it. Each reference goes through the whole prompt pass later, and the results "
            "are averaged.",
            is_input_list=True,
            inputs=[
                Model.Input("faceclip", tooltip="From Load FaceCLIP."),
                AlignedFace.Input("face", tooltip="From Align Face or Use Aligned Face; a batch or a list is fine."),
                AlignedFace.Input("face_2", optional=True, tooltip="More references of the same person."),
                AlignedFace.Input("face_3", optional=True, tooltip="More references of the same person."),
                AlignedFace.Input("face_4", optional=True, tooltip="More references of the same person."),
                io.String.Input(
                    "weights",
                    **SELDOM,
                    default="",
                    optional=True,
                    tooltip="One number for each reference, such as 1, 0.5, 0.5. Empty: all count the same.",
                ),
                io.Combo.Input(
                    "outliers",
                    **SELDOM,
                    options=list(person.OUTLIERS),
                    default=person.OUTLIERS[0],
                    optional=True,
                    tooltip="What to do with a reference that does not look like the others: stop with an error, leave "
                    "it out, or keep it.",
                ),
                io.Float.Input(
                    "min_similarity",
                    **SELDOM,
                    default=person.MIN_SIMILARITY,
                    min=-1.0,
                    max=1.0,
                    step=0.01,
                    optional=True,
                    tooltip="Below this cosine similarity to the other references, one counts as another person.",
                ),
            ],
            outputs=[FaceIdentity.Output(display_name="IDENTITY", tooltip="For FaceCLIP Prompt.")],
        )

    @classmethod
    @checked
    def execute(
        cls,
        faceclip: Any,
        face: Any,
        face_2: Any = (),
        face_3: Any = (),
        face_4: Any = (),
        weights: Any = ("",),
        outliers: Any = person.OUTLIERS[:1],
        min_similarity: Any = (person.MIN_SIMILARITY,),
    ) -> io.NodeOutput:
        faces = [*face, *face_2, *face_3, *face_4]
        model, numbers, outliers, lowest = one_for_all(
            faceclip=faceclip, weights=weights, outliers=outliers, min_similarity=min_similarity
        )
        made, table = model.make_person(faces, parse_weights(numbers), outliers, lowest)
        return io.NodeOutput(made, ui=ui.PreviewText(table))


def parse_weights(text: str) -> list[float]:
    """Numbers from "1, 0.5 0.5"; raises InputError for anything else."""
    try:
        return [float(word) for word in text.replace(",", " ").replace(";", " ").split()]
    except ValueError as error:
        raise InputError(f"The weights are {text!r}, wanted numbers such as 1, 0.5, 0.5, or nothing.") from error


class FaceCLIPBlendIdentities(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FaceCLIPBlendIdentities",
            display_name="Blend Identities",
            **shelf("people", "mix faces", "same person"),
            description="A person between two. Their conditionings are averaged, not their faces; chain the node for "
            "more.",
            inputs=[
                FaceIdentity.Input("identity_1", tooltip="The person at ratio 0."),
                FaceIdentity.Input("identity_2", tooltip="The person at ratio 1."),
                io.Float.Input(
                    "ratio", default=0.5, min=0.0, max=1.0, step=0.01, tooltip="How much of the second person."
                ),
            ],
            outputs=[FaceIdentity.Output(display_name="IDENTITY", tooltip="For FaceCLIP Prompt.")],
        )

    @classmethod
    @checked
    def execute(cls, identity_1: Any, identity_2: Any, ratio: Any) -> io.NodeOutput:
        return io.NodeOutput(person.blend(identity_1, identity_2, ratio))


class FaceCLIPSaveIdentity(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FaceCLIPSaveIdentity",
            display_name="Save Identity",
            **shelf("people", "consistent character", "same person"),
            description="Keeps an identity as one .safetensors in models/faceclip_identities. It holds a person's face "
            "features and small pictures: personal data.",
            is_output_node=True,
            inputs=[
                FaceIdentity.Input("identity", tooltip="From Encode Identity or Blend Identities."),
                io.String.Input("name", default="person", tooltip="The file's name, without a folder."),
                io.Combo.Input(
                    "existing",
                    options=list(identity_file.EXISTING),
                    default=identity_file.EXISTING[0],
                    tooltip="What happens where the name is taken.",
                ),
            ],
            outputs=[FaceIdentity.Output(display_name="IDENTITY", tooltip="The same identity, for what comes next.")],
        )

    @classmethod
    def validate_inputs(cls, name: Any = None):
        try:
            return name is None or bool(identity_file.check_name(name))
        except InputError as error:
            return str(error)

    @classmethod
    @checked
    def execute(cls, identity: Any, name: Any, existing: Any) -> io.NodeOutput:
        path = identity_file.save_person(identity, host.folders(IDENTITIES)[0], name, existing)
        text = f"Saved as {path.name} ({len(identity)} references), in {path.parent}."
        return io.NodeOutput(identity, ui={"text": (text,), "faceclip_saved": (path.name,)})


class FaceCLIPLoadIdentity(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FaceCLIPLoadIdentity",
            display_name="Load Identity",
            **shelf("people", "consistent character", "same person"),
            description="Brings back an identity from models/faceclip_identities. No detector and no photo is needed.",
            inputs=[
                io.Combo.Input(
                    "file",
                    options=host.list_files(IDENTITIES),
                    tooltip="A file made by Save Identity. Press R to refresh the list.",
                ),
            ],
            outputs=[
                FaceIdentity.Output(display_name="IDENTITY", tooltip="For FaceCLIP Prompt."),
                io.Image.Output(display_name="THUMBNAILS", tooltip="The references, 112 x 112 px."),
            ],
        )

    @classmethod
    def validate_inputs(cls, file: Any = None):
        return host.check_file(IDENTITIES, file, ())

    @classmethod
    def fingerprint_inputs(cls, file: Any = None):
        return host.modified(IDENTITIES, file)

    @classmethod
    @checked
    def execute(cls, file: Any) -> io.NodeOutput:
        loaded = identity_file.load_person(host.find_file(IDENTITIES, file))
        pictures = loaded.thumbnails.permute(0, 2, 3, 1).to(torch.float32) / 255  # BCHW -> BHWC
        shown = ui.PreviewImage(pictures, cls=cls).as_dict()
        return io.NodeOutput(loaded, pictures, ui={**shown, "faceclip_identity": (file,)})
