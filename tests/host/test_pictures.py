"""Pictures as other nodes leave them: their memory layout, and values outside 0 to 1."""

import json

import graphs
import inside_pictures
import pytest
from graphs import node
from inprocess import run_in_host

from faceclip.comfy.server import PACK_ROOT
from faceclip.comfy.workflow import SMALL_FILES, for_small_model
from faceclip.pixels import OVERSHOOT

PHOTO = {"photo": node("LoadImage", image="cartoon_ada.png")}
PORTRAIT = json.loads((PACK_ROOT / "workflows" / "api" / "portrait.json").read_text("utf-8"))
# Words that make the small model draw a face large enough for YuNet.
FORWARD = (
    "A smiling person wearing a red hoodie, with no accessories, in a forest, facing forward, in daylight, "
    "a flat cartoon."
)


def scaled(image: str, method: str, factor: float = 2.0) -> dict:
    return node("ImageScaleBy", image=[image, 0], upscale_method=method, scale_by=factor)


ENCODED = {
    "vae": node("VAELoader", vae_name=SMALL_FILES["VAELoader"]),
    "latent": node("VAEEncode", pixels=["photo", 0], vae=["vae", 0]),
}
TILES = {"tile_size": 64, "overlap": 32, "temporal_size": 64, "temporal_overlap": 8}
SOURCES = {
    "VAEDecode": {**ENCODED, "made": node("VAEDecode", samples=["latent", 0], vae=["vae", 0])},
    "VAEDecodeTiled": {**ENCODED, "made": node("VAEDecodeTiled", samples=["latent", 0], vae=["vae", 0], **TILES)},
    "lanczos": {"made": scaled("photo", "lanczos")},
    "bicubic": {"made": scaled("photo", "bicubic")},
    "bicubic twice": {"once": scaled("photo", "bicubic", 1.5), "made": scaled("once", "bicubic", 1.5)},
    "rotated and flipped": {
        "turned": node("ImageRotate", image=["photo", 0], rotation="180 degrees"),
        "made": node("ImageFlip", image=["turned", 0], flip_method="x-axis: vertically"),
    },
    "cropped": {"made": node("ImageCrop", image=["photo", 0], width=120, height=120, x=4, y=4)},
}


@pytest.mark.parametrize("name", SOURCES)
def test_a_face_is_cut_from_what_other_nodes_make(client, yunet_name, name):
    prompt = {**PHOTO, **SOURCES[name], **graphs.detected("made", min_score=0.3)}
    prompt["crops"] = node("PreviewImage", images=["align", 1])
    result = client.run(prompt, timeout=120)
    assert len(result.images("crops")) == len(result.images("align")) == 1


def test_a_generated_picture_becomes_an_identity_and_the_next_picture(client, yunet_name):
    prompt = for_small_model("portrait", PORTRAIT, steps=8, noise_seed=7)
    prompt["positive"]["inputs"]["text"] = FORWARD
    again = {
        "align 2": {**prompt["align"], "inputs": {**prompt["align"]["inputs"], "image": ["decode", 0]}},
        "identity 2": node("FaceCLIPEncodeIdentity", faceclip=["faceclip", 0], face=["align 2", 0]),
        "likeness": node(
            "FaceCLIPSimilarity",
            image=["decode", 0],
            identity=["identity", 0],
            detector=["detector", 0],
            faceclip=["faceclip", 0],
            judge="FaceCLIP's face encoder",
            min_score=0.3,
        ),
    }
    for name, source in {"positive": "identity 2", "sample": "positive 2", "decode": "sample 2"}.items():
        (link,) = {"identity", "positive", "samples"} & prompt[name]["inputs"].keys()
        again[f"{name} 2"] = {**prompt[name], "inputs": {**prompt[name]["inputs"], link: [source, 0]}}
    again["save 2"] = node("SaveImage", images=["decode 2", 0], filename_prefix="again")
    result = client.run(prompt | again, timeout=300)
    assert len(result.images("save 2")) == 1
    assert "One reference" in result.outputs["identity 2"]["text"][0]
    assert "picture 1: 0." in result.outputs["likeness"]["text"][0]


def test_likeness_is_told_of_a_picture_after_bicubic(client, yunet_name):
    prompt = {**PHOTO, "made": scaled("photo", "bicubic"), **graphs.detected("photo", min_score=0.3)}
    prompt["faceclip"] = node("FaceCLIPLoader", file=SMALL_FILES["FaceCLIPLoader"], precision="auto")
    prompt["identity"] = node("FaceCLIPEncodeIdentity", faceclip=["faceclip", 0], face=["align", 0])
    compared = {name: [name, 0] for name in ("identity", "detector", "faceclip")}
    compared |= {"image": ["made", 0], "judge": "FaceCLIP's face encoder", "min_score": 0.3}
    prompt["like"] = node("FaceCLIPSimilarity", **compared)
    prompt["best"] = node("FaceCLIPPickBest", **compared, count=1)
    prompt["show"] = node("PreviewImage", images=["best", 0])
    result = client.run(prompt, timeout=120)
    assert "picture 1: 0.9" in result.outputs["like"]["text"][0]
    assert len(result.images("show")) == 1


def test_the_limit_holds_what_the_hosts_own_resize_nodes_leave(comfyui, base_directory, tmp_path):
    """The figures in faceclip/pixels.py."""
    photos = [base_directory / "input" / name for name in ("astronaut.png", "cartoon_ada.png")]
    found = run_in_host(inside_pictures.overshoot, [str(path) for path in photos], comfyui=comfyui, base=tmp_path)
    worst = {name: max(sides) for name, sides in found.items()}
    assert 0.2 < max(value for name, value in worst.items() if "dots" not in name) < OVERSHOOT
    assert 0.4 < worst["dots bicubic"] < OVERSHOOT, "the filter's bound, on the worst picture"
    assert all(value < 1e-5 for name, value in worst.items() if "bicubic" not in name)
