"""Face Similarity and Pick Best Likeness in a real server, on the photo itself."""

import pytest

from faceclip.demo.errors import ExecutionFailed
from faceclip.demo.run import FILES

# A batch of two: nobody, then the person of the identity.
BATCH = {
    "photo": {"class_type": "LoadImage", "inputs": {"image": "astronaut.png"}},
    "nobody": {"class_type": "EmptyImage", "inputs": {"width": 512, "height": 512, "batch_size": 1, "color": 8421504}},
    "batch": {"class_type": "ImageBatch", "inputs": {"image1": ["nobody", 0], "image2": ["photo", 0]}},
    "detector": {"class_type": "FaceCLIPDetectorLoader", "inputs": {"detector": "YuNet", "provider": "auto"}},
    "faceclip": {
        "class_type": "FaceCLIPLoader",
        "inputs": {"file": FILES["FaceCLIPLoader"], "precision": "auto"},
    },
    "align": {
        "class_type": "FaceCLIPAlignFace",
        "inputs": {
            "image": ["photo", 0],
            "detector": ["detector", 0],
            "input_faces_order": "large-small",
            "input_faces_index": 0,
            "min_score": 0.6,
            "margin": 1.0,
        },
    },
    "identity": {
        "class_type": "FaceCLIPEncodeIdentity",
        "inputs": {"faceclip": ["faceclip", 0], "face": ["align", 0]},
    },
}
COMPARED = {
    "image": ["batch", 0],
    "identity": ["identity", 0],
    "detector": ["detector", 0],
    "faceclip": ["faceclip", 0],
    "judge": "FaceCLIP's face encoder",
    "min_score": 0.6,
}


def test_the_table_and_the_crops_are_shown(client, yunet_name):
    prompt = {**BATCH, "like": {"class_type": "FaceCLIPSimilarity", "inputs": COMPARED}}
    shown = client.run(prompt).outputs["like"]
    assert "picture 1: no face found" in shown["text"][0] and "picture 2: 1.000" in shown["text"][0]
    assert "the one that conditioned the picture" in shown["text"][0]
    assert len(shown["images"]) == 1


def test_the_best_picture_and_its_latent_are_passed_on(client, yunet_name):
    prompt = {
        **BATCH,
        "vae": {"class_type": "VAELoader", "inputs": {"vae_name": FILES["VAELoader"]}},
        "latent": {"class_type": "VAEEncode", "inputs": {"pixels": ["batch", 0], "vae": ["vae", 0]}},
        "best": {"class_type": "FaceCLIPPickBest", "inputs": {**COMPARED, "count": 1, "latent": ["latent", 0]}},
        "decoded": {"class_type": "VAEDecode", "inputs": {"samples": ["best", 1], "vae": ["vae", 0]}},
        "save": {"class_type": "SaveImage", "inputs": {"images": ["best", 0], "filename_prefix": "best"}},
        "save2": {"class_type": "SaveImage", "inputs": {"images": ["decoded", 0], "filename_prefix": "best2"}},
    }
    result = client.run(prompt)
    assert len(result.images("save")) == len(result.images("save2")) == 1
    assert "picture 2: 1.000 <- kept" in result.outputs["best"]["text"][0]


def test_latents_of_another_batch_are_refused(client, yunet_name):
    prompt = {
        **BATCH,
        "latent": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 3}},
        "best": {"class_type": "FaceCLIPPickBest", "inputs": {**COMPARED, "count": 1, "latent": ["latent", 0]}},
        "show": {"class_type": "PreviewImage", "inputs": {"images": ["best", 0]}},
    }
    with pytest.raises(ExecutionFailed, match="3 latents for 2 pictures"):
        client.run(prompt)


def test_a_missing_independent_judge_names_the_folders(client, yunet_name):
    compared = {**COMPARED, "judge": "InsightFace antelopev2"}
    prompt = {**BATCH, "like": {"class_type": "FaceCLIPSimilarity", "inputs": compared}}
    with pytest.raises(ExecutionFailed, match="antelopev2 was not found"):
        client.run(prompt)
