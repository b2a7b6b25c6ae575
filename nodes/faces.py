"""Nodes from a picture to an aligned face."""

from typing import Any

from comfy_api.latest import io, ui

from ..faceclip.faces import choices, preview, quality
from ..faceclip.faces.detect.base import SCORE_FLOOR
from ..faceclip.faces.detect.insight import PROVIDERS, InsightFace
from ..faceclip.faces.detect.yunet import YuNet
from ..faceclip.faces.face import (
    DEFAULT_MIN_SCORE,
    FACE_ORDERS,
    ON_NO_FACE,
    align_faces,
    detect_faces,
    use_aligned,
)
from ..faceclip.faces.pictures import Pictures
from ..faceclip.install.places import INSIGHTFACE_PACKS, find_insightface, find_yunet
from . import host
from .checked import checked
from .lists import one_for_all, paired
from .shelf import SELDOM, shelf
from .types import AlignedFace, FaceDetector

YUNET = "YuNet"


class FaceCLIPDetectorLoader(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FaceCLIPDetectorLoader",
            display_name="Load Face Detector",
            **shelf("faces", "insightface", "face detection", "face analysis"),
            description="Loads a face detector: YuNet (MIT, runs on the CPU, needs no further package) or an "
            "InsightFace pack (non-commercial weights).",
            inputs=[
                io.Combo.Input(
                    "detector",
                    options=[YUNET, *(f"InsightFace {name}" for name in INSIGHTFACE_PACKS)],
                    default=YUNET,
                    tooltip="YuNet from models/face_detection, or a pack from models/insightface/models/NAME.",
                ),
                io.Combo.Input(
                    "provider",
                    **SELDOM,
                    options=list(PROVIDERS),
                    default="auto",
                    tooltip="What InsightFace runs on; the node shows what is really used. YuNet always takes the CPU.",
                ),
            ],
            outputs=[FaceDetector.Output(display_name="DETECTOR", tooltip="For Align Face.")],
        )

    @classmethod
    @checked
    def execute(cls, detector: Any, provider: Any) -> io.NodeOutput:
        if detector == YUNET:
            loaded = YuNet(find_yunet(host.folders("face_detection")))
        else:
            pack = find_insightface(host.folders("insightface"), detector.removeprefix("InsightFace "))
            loaded = InsightFace(pack, provider)
        text = loaded.notice or f"{loaded.name} runs on the {loaded.provider}."
        return io.NodeOutput(loaded, ui=ui.PreviewText(text))


class FaceCLIPAlignFace(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FaceCLIPAlignFace",
            display_name="Align Face",
            **shelf("faces", "face", "insightface", "reference photo", "face detection"),
            description="Finds the faces of each picture, takes one and aligns it as FaceCLIP was trained: eyes, nose "
            "and mouth at fixed places of 448 x 448 px. Likeness depends on it.",
            is_input_list=True,
            is_output_node=True,  # it can be run alone, to choose a face
            inputs=[
                io.Image.Input("image", tooltip="One photo, a batch or a list; one face is taken from each."),
                FaceDetector.Input("detector", tooltip="From Load Face Detector."),
                io.Combo.Input(
                    "input_faces_order",
                    options=list(FACE_ORDERS),
                    default="large-small",
                    tooltip="How the faces of a picture are counted.",
                ),
                io.Int.Input(
                    "input_faces_index",
                    default=0,
                    min=0,
                    max=100,
                    tooltip="Which face to take, from 0, in that order. Find faces shows the numbers to choose from.",
                ),
                io.Float.Input(
                    "min_score",
                    **SELDOM,
                    default=DEFAULT_MIN_SCORE,
                    min=SCORE_FLOOR,
                    max=1.0,
                    step=0.01,
                    tooltip="Faces the detector is less sure of are left out. Lower it for difficult photos.",
                ),
                io.Float.Input(
                    "margin",
                    **SELDOM,
                    default=1.0,
                    min=0.5,
                    max=2.0,
                    step=0.01,
                    tooltip="1.0 is the published alignment. Larger shows more around the face, and changes the "
                    "identity that is read.",
                ),
                io.Combo.Input(
                    "on_no_face",
                    **SELDOM,
                    options=list(ON_NO_FACE),
                    default=ON_NO_FACE[0],
                    optional=True,
                    tooltip="A picture without a face: stop with an error, go on without that picture, or use its "
                    "middle square as it is (poor likeness). 'skip image' also skips a picture that lacks the face "
                    "asked for. The node's text says what became of each picture.",
                ),
                io.String.Input(
                    "chosen_faces",
                    default="",
                    optional=True,
                    tooltip="The face of each picture, as Find faces writes it: 0, 2, 1. One number is for all "
                    "pictures. Empty: input_faces_index.",
                ),
            ],
            outputs=[
                AlignedFace.Output(display_name="FACE", tooltip="For Encode Identity."),
                io.Image.Output(display_name="CROPS", tooltip="The aligned faces as pictures, 448 x 448 px."),
                io.String.Output(
                    display_name="REPORT", tooltip="How good each reference is, and what became of each picture."
                ),
            ],
        )

    @classmethod
    @checked
    def execute(
        cls,
        image: Any,
        detector: Any,
        input_faces_order: Any,
        input_faces_index: Any,
        min_score: Any,
        margin: Any,
        on_no_face: Any = ON_NO_FACE[:1],
        chosen_faces: Any = ("",),
    ) -> io.NodeOutput:
        entries = paired(image=image, index=input_faces_index)
        detector, order, min_score, margin, on_no_face, chosen_faces = one_for_all(
            detector=detector,
            input_faces_order=input_faces_order,
            min_score=min_score,
            margin=margin,
            on_no_face=on_no_face,
            chosen_faces=chosen_faces,
        )
        pictures = Pictures([entry["image"] for entry in entries])
        by_entry = [entry["index"] for entry in entries for _ in entry["image"]]
        index = choices.parse_choice(chosen_faces, len(pictures)) or by_entry
        found = detect_faces(pictures, detector, order, min_score, host.Progress(), on_no_face)
        face = align_faces(pictures, found, index, margin, on_no_face)
        shown = preview.draw_preview(pictures, found, index, margin)
        crops = face.crops.permute(0, 2, 3, 1)  # BCHW -> BHWC
        report = quality.report(pictures, face, index, found)
        shown = ui.PreviewImage(shown, cls=cls).as_dict()
        # What the picker of web/picker.js shows.
        offered = choices.describe_choices(pictures, found, index)
        for choice, picture in zip(offered, choices.small_pictures(pictures), strict=True):
            choice["photo"] = ui.PreviewImage(picture, cls=cls).as_dict()["images"][0]
        return io.NodeOutput(face, crops, report, ui={**shown, "text": (report,), "faceclip_faces": offered})


class FaceCLIPAlignedFace(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FaceCLIPAlignedFace",
            display_name="Use Aligned Face",
            **shelf("faces", "face", "reference photo"),
            description="Takes pictures that are aligned faces already, such as the crops of Align Face saved before. "
            "An ordinary photo belongs into Align Face: unaligned faces give poor likeness.",
            inputs=[io.Image.Input("image", tooltip="Square, at least 112 px; 448 x 448 as published.")],
            outputs=[AlignedFace.Output(display_name="FACE", tooltip="For Encode Identity.")],
        )

    @classmethod
    @checked
    def execute(cls, image: Any) -> io.NodeOutput:
        return io.NodeOutput(use_aligned(image))
