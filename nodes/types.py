"""The types our nodes pass on, prefixed because other packs use the bare words.

Face and identity are types of their own, so that a raw photo cannot be wired into the encoder by mistake.
"""

from comfy_api.latest import io

Model = io.Custom("FACECLIP")  # host.ManagedFaceCLIP
FaceDetector = io.Custom("FACECLIP_DETECTOR")  # faceclip.faces.detect.base.Detector
AlignedFace = io.Custom("FACECLIP_FACE")  # faceclip.Face
CropPlacement = io.Custom("FACECLIP_PLACEMENT")  # faceclip.faces.detail.Placement
FaceIdentity = io.Custom("FACECLIP_IDENTITY")  # faceclip.identity.person.Person
