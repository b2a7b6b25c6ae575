"""Nodes that ask whether a picture shows that person."""

import torch
from comfy_api.latest import io, ui

from ..faceclip.faces.detect.base import SCORE_FLOOR
from ..faceclip.faces.face import DEFAULT_MIN_SCORE
from ..faceclip.identity import likeness
from ..faceclip.identity.judge import InsightFaceJudge, OwnJudge
from ..faceclip.install.places import INSIGHTFACE_PACKS, find_insightface
from . import host
from .checked import checked
from .types import CATEGORY, FaceDetector, FaceIdentity, Model

OWN = "FaceCLIP's face encoder"


def common_inputs() -> list:
    return [
        io.Image.Input("image", tooltip="The generated pictures."),
        FaceIdentity.Input("identity", tooltip="The person they should show."),
        FaceDetector.Input("detector", tooltip="From Load Face Detector."),
        Model.Input("faceclip", tooltip="From Load FaceCLIP; its face encoder compares."),
        io.Combo.Input(
            "judge",
            options=[OWN, *(f"InsightFace {name}" for name in INSIGHTFACE_PACKS)],
            default=OWN,
            tooltip="Who compares. FaceCLIP's own encoder also conditioned the picture; an InsightFace pack is an "
            "independent judge.",
        ),
        io.Float.Input(
            "min_score",
            default=DEFAULT_MIN_SCORE,
            min=SCORE_FLOOR,
            max=1.0,
            step=0.01,
            tooltip="Faces the detector is less sure of are left out.",
        ),
    ]


def judged(image, identity, detector, faceclip, judge, min_score):
    """The likeness of each picture's faces, and the judge."""
    if judge == OWN:
        referee = OwnJudge(faceclip.encode_identity, faceclip.encoder_hash)
    else:
        pack = find_insightface(host.folders("insightface"), judge.removeprefix("InsightFace "))
        referee = InsightFaceJudge(pack)
    return likeness.find_likeness(image, identity, detector, referee, min_score, host.Progress()), referee


def with_notice(text: str, referee) -> str:
    return f"{text}\n{referee.notice}" if referee.notice else text


class FaceCLIPSimilarity(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FaceCLIPSimilarity",
            display_name="Face Similarity",
            category=CATEGORY,
            description="How much the faces of pictures look like an identity: one cosine similarity for each face.",
            is_output_node=True,
            inputs=common_inputs(),
            outputs=[
                io.Float.Output(
                    display_name="SIMILARITY", is_output_list=True, tooltip="One number for each face, -1 to 1."
                ),
                io.String.Output(display_name="TABLE", tooltip="The same in words, picture by picture."),
                io.Image.Output(display_name="CROPS", tooltip="The faces, in the order of the numbers."),
            ],
        )

    @classmethod
    @checked
    def execute(cls, image, identity, detector, faceclip, judge, min_score) -> io.NodeOutput:
        found, referee = judged(image, identity, detector, faceclip, judge, min_score)
        faces = [one for picture in found for one in picture]
        table = with_notice(likeness.likeness_table(found, referee.name), referee)
        # A black crop where there is no face at all: an empty batch would break what comes next.
        crops = torch.stack([one.crop for one in faces]) if faces else torch.zeros(1, 3, 448, 448)
        crops = crops.permute(0, 2, 3, 1)  # BCHW -> BHWC
        numbers = [one.similarity for one in faces] or [likeness.NO_FACE_RANKED]
        shown = ui.PreviewImage(crops, cls=cls).as_dict() | {"text": (table,)}
        return io.NodeOutput(numbers, table, crops, ui=shown)


class FaceCLIPPickBest(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FaceCLIPPickBest",
            display_name="Pick Best Likeness",
            category=CATEGORY,
            description="The pictures of a batch that look most like an identity, best first. A picture without a face "
            "counts as the worst.",
            inputs=[
                *common_inputs(),
                io.Int.Input("count", default=1, min=1, max=64, tooltip="How many pictures to keep."),
                io.Latent.Input("latent", optional=True, tooltip="The pictures' latents, picked in the same order."),
            ],
            outputs=[
                io.Image.Output(display_name="IMAGE", tooltip="The best pictures, best first."),
                io.Latent.Output(display_name="LATENT", tooltip="Their latents, if latents are wired."),
                io.Float.Output(
                    display_name="SIMILARITY", is_output_list=True, tooltip="The kept pictures' similarities."
                ),
                io.String.Output(display_name="TABLE", tooltip="All pictures' similarities, and which were kept."),
            ],
        )

    @classmethod
    @checked
    def execute(cls, image, identity, detector, faceclip, judge, min_score, count, latent=None) -> io.NodeOutput:
        found, referee = judged(image, identity, detector, faceclip, judge, min_score)
        kept = likeness.pick_best(found, count)
        table = with_notice(likeness.likeness_table(found, referee.name, kept), referee)
        scores = likeness.best_per_picture(found)
        picked = None if latent is None else host.pick_latents(latent, kept, len(image))
        return io.NodeOutput(image[kept], picked, [scores[i] for i in kept], table, ui=ui.PreviewText(table))
