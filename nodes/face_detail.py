"""Nodes that paint a face anew: cut it out, and put it back."""

from typing import Any

from comfy_api.latest import io, ui

from ..faceclip.faces import detail
from ..faceclip.faces.detect.base import SCORE_FLOOR
from ..faceclip.faces.face import DEFAULT_MIN_SCORE, FACE_ORDERS, detect_faces
from ..faceclip.faces.pictures import Pictures
from . import host
from .checked import checked
from .shelf import SELDOM, shelf
from .types import CropPlacement, FaceDetector


class FaceCLIPCropFace(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        low, high = detail.MARGIN_RANGE
        return io.Schema(
            node_id="FaceCLIPCropFace",
            display_name="Crop Face",
            **shelf("detail", "face swap", "face detailer", "face"),
            description="Finds a face in a finished picture and cuts it out upright, enlarged to the size the model "
            "paints best, with a soft mask. Paint the crop anew, then put it back with Paste Face.",
            inputs=[
                io.Image.Input("image", tooltip="The picture to repair, or a batch of them."),
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
                    min=detail.ALL_FACES,
                    max=100,
                    tooltip="Which face to cut out of each picture, from 0, in that order. -1 cuts out all of them.",
                ),
                io.Float.Input(
                    "margin",
                    default=2.0,
                    min=low,
                    max=high,
                    step=0.1,
                    tooltip="Side of the crop over that of the face: 2 shows the hair and some of what is around.",
                ),
                io.Int.Input(
                    "size",
                    default=1024,
                    min=detail.SMALLEST_CROP,
                    max=4096,
                    step=8,
                    tooltip="Side of the crop in px after it was enlarged. 1024 suits SDXL. Give the prompts the same.",
                ),
                io.Float.Input(
                    "feather",
                    **SELDOM,
                    default=0.15,
                    min=0.0,
                    max=detail.MOST_FEATHER,
                    step=0.01,
                    optional=True,
                    tooltip="Width of the mask's soft edge, as a part of the crop's side.",
                ),
                io.Boolean.Input(
                    "upright",
                    **SELDOM,
                    default=True,
                    optional=True,
                    tooltip="Turn the crop so that the eyes are level. Paste Face turns it back.",
                ),
                io.Float.Input(
                    "min_score",
                    **SELDOM,
                    default=DEFAULT_MIN_SCORE,
                    min=SCORE_FLOOR,
                    max=1.0,
                    step=0.01,
                    optional=True,
                    tooltip="Faces the detector is less sure of are left out.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="CROP", tooltip="For VAE Encode."),
                io.Mask.Output(display_name="MASK", tooltip="What to paint anew, for Set Latent Noise Mask."),
                CropPlacement.Output(display_name="PLACEMENT", tooltip="For Paste Face."),
                io.String.Output(display_name="REPORT", tooltip="The text that the node shows."),
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
        margin: Any,
        size: Any,
        feather: Any = 0.15,
        upright: Any = True,
        min_score: Any = DEFAULT_MIN_SCORE,
    ) -> io.NodeOutput:
        pictures = Pictures(image)
        found = detect_faces(pictures, detector, input_faces_order, min_score, host.Progress())
        crops, masks, placement = detail.crop_faces(pictures, found, input_faces_index, margin, size, feather, upright)
        report = detail.report(placement)
        shown = ui.PreviewImage(crops, cls=cls).as_dict()
        return io.NodeOutput(crops, masks, placement, report, ui={**shown, "text": (report,)})


class FaceCLIPPasteFace(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FaceCLIPPasteFace",
            display_name="Paste Face",
            **shelf("detail", "face swap", "face detailer", "face"),
            description="Puts a crop of Crop Face back where it was cut out, with a soft edge. Everything outside the "
            "mask stays exactly as it was.",
            inputs=[
                io.Image.Input("image", tooltip="The picture that was given to Crop Face."),
                io.Image.Input("crop", tooltip="The crop, painted anew; any size."),
                CropPlacement.Input("placement", tooltip="From Crop Face."),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="Which part of the crop to paste, white; any size. Empty: all of it, with the soft edge "
                    "that Crop Face gave it.",
                ),
                io.Boolean.Input(
                    "keep_colour",
                    **SELDOM,
                    default=True,
                    optional=True,
                    tooltip="Bring the crop's colours to those of the picture, measured in the soft edge.",
                ),
            ],
            outputs=[io.Image.Output(tooltip="The picture with the painted face.")],
        )

    @classmethod
    @checked
    def execute(cls, image: Any, crop: Any, placement: Any, mask: Any = None, keep_colour: Any = True) -> io.NodeOutput:
        return io.NodeOutput(detail.paste_faces(image, crop, placement, mask, keep_colour))
