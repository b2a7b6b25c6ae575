"""The pack's nodes, in the order of a graph. Ids are permanent."""

import logging

from comfy_api.latest import ComfyExtension

from ..faceclip.install import onnx_runtime
from . import (
    doctor,
    face_detail,
    faces,
    host,
    host_routes,
    identities,
    likeness,
    loaders,
    merging,
    people,
    prompt,
    sampling,
)

NODES = [
    loaders.FaceCLIPLoader,
    loaders.FaceCLIPUNETLoader,
    merging.FaceCLIPStyleMerge,
    faces.FaceCLIPDetectorLoader,
    faces.FaceCLIPAlignFace,
    faces.FaceCLIPAlignedFace,
    identities.FaceCLIPEncodeIdentity,
    identities.FaceCLIPBlendIdentities,
    identities.FaceCLIPSaveIdentity,
    identities.FaceCLIPLoadIdentity,
    prompt.FaceCLIPEncodePrompt,
    prompt.FaceCLIPEncodeText,
    prompt.FaceCLIPAsClip,
    people.FaceCLIPAddPerson,
    sampling.FaceCLIPSampling,
    sampling.FaceT5Sampling,
    likeness.FaceCLIPSimilarity,
    likeness.FaceCLIPPickBest,
    likeness.FaceCLIPLikenessChart,
    face_detail.FaceCLIPCropFace,
    face_detail.FaceCLIPPasteFace,
    doctor.FaceCLIPDoctor,
]

# At import: the oldest host supported never calls on_load.
host.register_folders()
host.furnish()
host_routes.add_routes()
if notice := onnx_runtime.startup_notice():
    logging.getLogger(__name__).warning("FaceCLIP: %s", notice)


class FaceCLIPExtension(ComfyExtension):
    async def get_node_list(self):
        return NODES
