"""FaceCLIP: one encoder for a face and a prompt, giving SDXL's or FLUX's conditioning (arXiv 2504.14202).

    import faceclip
    model = faceclip.load("faceclip.safetensors")
    identity = model.encode_identity(faces)                       # faces: float [B, 3, H, W], RGB, [0, 1], aligned
    joint = model.encode_prompt(["a chef in a kitchen"], identity)
    joint.embeddings, joint.pooled                                # [B, 77, 2048], [B, 1280]

`load` tells from a file which family it is: a FaceCLIP, or a FaceT5, whose results are [B, 512, 4096] and [B, 768].
Importing the package imports neither torch nor anything else that is heavy: names are resolved when first used.
"""

from importlib import import_module

__version__ = "0.1.0"

_EXPORTS = {
    "load": "model.checkpoint",
    "save": "model.checkpoint",
    "FaceCLIP": "model.faceclip",
    "FaceT5": "model.facet5",
    "Identity": "model.encoder",
    "JointConditioning": "model.encoder",
    "FaceCLIPConfig": "model.config",
    "FaceT5Config": "model.config",
    "PUBLISHED": "model.config",
    "Face": "faces.face",
    "find_faces": "faces.face",
    "FaceCLIPError": "errors",
    "CheckpointError": "errors",
    "InputError": "errors",
    "NoFaceError": "errors",
    "ModelNotFoundError": "errors",
    "DependencyError": "errors",
    "DownloadError": "errors",
    "NameTakenError": "errors",
}

__all__ = ["__version__", *_EXPORTS]  # pyright: ignore[reportUnsupportedDunderAll] - names come when they are used


def __getattr__(name: str):
    module = _EXPORTS.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{module}", __name__), name)


def __dir__():
    return sorted(__all__)
