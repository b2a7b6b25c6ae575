"""Nodes that ask whether a picture shows that person."""

from collections.abc import Sequence
from typing import Any

import torch
from comfy_api.latest import io, ui

from ..faceclip.faces import choices
from ..faceclip.faces.detect.base import SCORE_FLOOR
from ..faceclip.faces.face import DEFAULT_MIN_SCORE
from ..faceclip.faces.pictures import Pictures
from ..faceclip.identity import chart, likeness
from ..faceclip.identity.judge import InsightFaceJudge, Judge, OwnJudge, SFaceJudge
from ..faceclip.install.places import INSIGHTFACE_PACKS, find_insightface, find_sface
from . import host
from .checked import checked
from .lists import one_for_all, paired
from .shelf import shelf
from .types import FaceDetector, FaceIdentity, Model

OWN = "FaceCLIP's face encoder"
SFACE = "SFace"
LONGEST_SIDE = 384  # px, of a picture shown with its score


def common_inputs() -> list[Any]:
    return [
        io.Image.Input("image", tooltip="The generated pictures, a batch or a list."),
        FaceIdentity.Input("identity", tooltip="The person they should show."),
        FaceDetector.Input("detector", tooltip="From Load Face Detector."),
        Model.Input("faceclip", tooltip="From Load FaceCLIP; its face encoder compares."),
        io.Combo.Input(
            "judge",
            options=[OWN, *(f"InsightFace {name}" for name in INSIGHTFACE_PACKS), SFACE],
            default=OWN,
            tooltip="Who compares. FaceCLIP's own encoder also conditioned the picture; SFace and the InsightFace "
            "packs are independent judges.",
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


def judged(
    image: Any, identity: Any, detector: Any, faceclip: Any, judge: Any, min_score: Any
) -> tuple[list[Any], Judge, list[str]]:
    """The likeness of each picture's faces, the judge, and with whom each was compared where there are several.

    All are lists: pictures and identities in pairs, the others with one value for all.
    """
    detector, faceclip, judge, min_score = one_for_all(
        detector=detector, faceclip=faceclip, judge=judge, min_score=min_score
    )
    if judge == OWN:
        referee = OwnJudge(faceclip.encode_identity, faceclip.encoder_hash)
    elif judge == SFACE:
        referee = SFaceJudge(find_sface(host.folders("face_recognition")))
    else:
        pack = find_insightface(host.folders("insightface"), judge.removeprefix("InsightFace "))
        referee = InsightFaceJudge(pack)
    found, people = [], []
    for number, entry in enumerate(paired(image=image, identity=identity), 1):
        person, progress = entry["identity"], host.Progress()
        reference = referee.reference(person)
        seen = likeness.find_likeness(entry["image"], reference, detector, referee, min_score, progress)
        found += seen
        people += [person.name or f"identity {min(number, len(identity))}"] * len(seen)
    return found, referee, people if len(identity) > 1 else []


def shown_scores(
    cls: Any, images: list[Any], found: list[Any], kept: list[int] | None = None, people: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """What web/compare.js shows: each picture, its faces' similarities, best first, and whether it was kept."""
    small = choices.small_pictures(Pictures(images), LONGEST_SIDE)
    return [
        {
            "photo": ui.PreviewImage(picture, cls=cls).as_dict()["images"][0],
            "scores": [one.similarity for one in faces],
            "kept": kept is not None and number in kept,
            "person": people[number] if people else "",
        }
        for number, (picture, faces) in enumerate(zip(small, found, strict=True))
    ]


def with_notice(text: str, referee: Any) -> str:
    return f"{text}\n{referee.notice}" if referee.notice else text


class FaceCLIPSimilarity(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FaceCLIPSimilarity",
            display_name="Face Similarity",
            **shelf("likeness", "likeness", "same person", "insightface"),
            description="How much the faces of pictures look like an identity: one cosine similarity for each face.",
            is_input_list=True,
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
    def execute(
        cls, image: Any, identity: Any, detector: Any, faceclip: Any, judge: Any, min_score: Any
    ) -> io.NodeOutput:
        found, referee, people = judged(image, identity, detector, faceclip, judge, min_score)
        faces = [one for picture in found for one in picture]
        table = with_notice(likeness.likeness_table(found, referee.name, None, people), referee)
        # A black crop where there is no face at all: an empty batch would break what comes next.
        crops = torch.stack([one.crop for one in faces]) if faces else torch.zeros(1, 3, 448, 448)
        crops = crops.permute(0, 2, 3, 1)  # BCHW -> BHWC
        numbers = [one.similarity for one in faces] or [likeness.NO_FACE_RANKED]
        images = [entry["image"] for entry in paired(image=image, identity=identity)]
        shown = ui.PreviewImage(crops, cls=cls).as_dict() | {"text": (table,)}
        shown["faceclip_scores"] = shown_scores(cls, images, found, None, people)
        return io.NodeOutput(numbers, table, crops, ui=shown)


class FaceCLIPPickBest(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FaceCLIPPickBest",
            display_name="Pick Best Likeness",
            **shelf("likeness", "likeness", "best of"),
            description="The pictures of a batch that look most like an identity, best first. A picture without a face "
            "counts as the worst.",
            is_input_list=True,
            inputs=[
                *common_inputs(),
                io.Int.Input("count", default=1, min=1, max=64, tooltip="How many pictures to keep."),
                io.Latent.Input("latent", optional=True, tooltip="The pictures' latents, picked in the same order."),
            ],
            outputs=[
                io.Image.Output(
                    display_name="IMAGE",
                    is_output_list=True,
                    tooltip="The best pictures, best first: a batch of a batch, a list of a list.",
                ),
                io.Latent.Output(
                    display_name="LATENT", is_output_list=True, tooltip="Their latents, if latents are wired."
                ),
                io.Float.Output(
                    display_name="SIMILARITY", is_output_list=True, tooltip="The kept pictures' similarities."
                ),
                io.String.Output(display_name="TABLE", tooltip="All pictures' similarities, and which were kept."),
            ],
        )

    @classmethod
    @checked
    def execute(
        cls,
        image: Any,
        identity: Any,
        detector: Any,
        faceclip: Any,
        judge: Any,
        min_score: Any,
        count: Any,
        latent: Any = None,
    ) -> io.NodeOutput:
        found, referee, people = judged(image, identity, detector, faceclip, judge, min_score)
        (count,) = one_for_all(count=count)
        kept = likeness.pick_best(found, count)
        table = with_notice(likeness.likeness_table(found, referee.name, kept, people), referee)
        scores = likeness.best_per_picture(found)
        images = [entry["image"] for entry in paired(image=image, identity=identity)]
        pictures, latents = host.pick(images, latent, kept)
        shown = {"text": (table,), "faceclip_scores": shown_scores(cls, images, found, kept, people)}
        return io.NodeOutput(pictures, latents, [scores[i] for i in kept], table, ui=shown)


class FaceCLIPLikenessChart(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FaceCLIPLikenessChart",
            display_name="Likeness Chart",
            **shelf("likeness", "likeness", "sweep", "compare strength"),
            description="Likeness against a value that was swept, such as strength: give a list of values to what "
            "makes the pictures, and the same list and Face Similarity's numbers to this.",
            is_input_list=True,
            is_output_node=True,
            inputs=[
                io.Float.Input(
                    "similarity",
                    default=0.0,
                    min=-1.0,
                    max=1.0,
                    force_input=True,
                    tooltip="From Face Similarity: one number for each picture, in the order of the values.",
                ),
                io.AnyType.Input("swept", tooltip="The list of values that the pictures were made with: any type."),
                io.String.Input("label", default="strength", optional=True, tooltip="What the values are."),
            ],
            outputs=[
                io.Image.Output(display_name="CHART", tooltip="The chart as a picture, to be saved."),
                io.String.Output(display_name="TABLE", tooltip="The same in words, the best value marked."),
            ],
        )

    @classmethod
    @checked
    def execute(cls, similarity: Any, swept: Any, label: Any = ("strength",)) -> io.NodeOutput:
        (label,) = one_for_all(label=label)
        groups = chart.group_scores(swept, similarity)
        table = chart.chart_table(groups, label)
        picture = chart.draw_chart(groups, label)
        shown = ui.PreviewImage(picture, cls=cls).as_dict()
        return io.NodeOutput(picture, table, ui={**shown, "text": (table,), "faceclip_chart": shown["images"]})
