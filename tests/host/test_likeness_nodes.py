"""Face Similarity and Pick Best Likeness in a real server, on the photo itself."""

import io

import graphs
import inside_people
import numpy as np
import pytest
from inprocess import run_in_host
from PIL import Image

from faceclip.comfy.server_errors import ExecutionFailed
from faceclip.comfy.workflow import SMALL_FILES

# A batch of two: nobody, then the person of the identity.
BATCH = {
    "photo": {"class_type": "LoadImage", "inputs": {"image": "astronaut.png"}},
    "nobody": {"class_type": "EmptyImage", "inputs": {"width": 512, "height": 512, "batch_size": 1, "color": 8421504}},
    "batch": {"class_type": "ImageBatch", "inputs": {"image1": ["nobody", 0], "image2": ["photo", 0]}},
    "faceclip": {
        "class_type": "FaceCLIPLoader",
        "inputs": {"file": SMALL_FILES["FaceCLIPLoader"], "precision": "auto"},
    },
    **graphs.detected(),
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
        "vae": {"class_type": "VAELoader", "inputs": {"vae_name": SMALL_FILES["VAELoader"]}},
        "latent": {"class_type": "VAEEncode", "inputs": {"pixels": ["batch", 0], "vae": ["vae", 0]}},
        "best": {"class_type": "FaceCLIPPickBest", "inputs": {**COMPARED, "count": 1, "latent": ["latent", 0]}},
        "decoded": {"class_type": "VAEDecode", "inputs": {"samples": ["best", 1], "vae": ["vae", 0]}},
        "save": {"class_type": "SaveImage", "inputs": {"images": ["best", 0], "filename_prefix": "best"}},
        "save2": {"class_type": "SaveImage", "inputs": {"images": ["decoded", 0], "filename_prefix": "best2"}},
    }
    result = client.run(prompt)
    assert len(result.images("save")) == len(result.images("save2")) == 1
    assert "picture 2: 1.000 <- kept" in result.outputs["best"]["text"][0]


def pictures(client, result, node: str) -> list[np.ndarray]:
    return [np.asarray(Image.open(io.BytesIO(client.view(file))).convert("RGB")) for file in result.images(node)]


def test_pictures_latents_and_numbers_come_in_one_order_best_first(client, yunet_name):
    """A batch of the person faded, nobody, the person: their order is 3, 1, 2."""
    faded = {"image1": ["photo", 0], "image2": ["nobody", 0], "blend_factor": 0.4, "blend_mode": "normal"}
    prompt = {
        **BATCH,
        "faded": {"class_type": "ImageBlend", "inputs": faded},
        "three": {"class_type": "ImageBatch", "inputs": {"image1": ["faded", 0], "image2": ["batch", 0]}},
        "vae": {"class_type": "VAELoader", "inputs": {"vae_name": SMALL_FILES["VAELoader"]}},
        "latent": {"class_type": "VAEEncode", "inputs": {"pixels": ["three", 0], "vae": ["vae", 0]}},
        "best": {
            "class_type": "FaceCLIPPickBest",
            "inputs": {**COMPARED, "image": ["three", 0], "count": 3, "latent": ["latent", 0]},
        },
        "numbers": {"class_type": "PreviewAny", "inputs": {"source": ["best", 2]}},
    }
    for name, source in {"all": "latent", "picked": "best"}.items():
        samples = {"samples": [source, int(source == "best")], "vae": ["vae", 0]}
        prompt[f"decode {name}"] = {"class_type": "VAEDecode", "inputs": samples}
        prompt[f"decoded {name}"] = {"class_type": "PreviewImage", "inputs": {"images": [f"decode {name}", 0]}}
        images = ["three" if name == "all" else "best", 0]
        prompt[f"images {name}"] = {"class_type": "PreviewImage", "inputs": {"images": images}}
    result = client.run(prompt)
    numbers = [float(text) for text in result.outputs["numbers"]["text"]]
    assert numbers == sorted(numbers, reverse=True) and numbers[0] == pytest.approx(1, abs=1e-4) and numbers[2] == -1
    for kind in ("images", "decoded"):
        before, after = (pictures(client, result, f"{kind} {name}") for name in ("all", "picked"))
        assert len(after) == 3
        for place, came_from in enumerate((2, 0, 1)):
            assert np.abs(after[place].astype(int) - before[came_from]).max() <= 1, (kind, place)


def test_all_that_belongs_to_a_latent_is_picked_with_it(comfyui, tmp_path):
    assert run_in_host(inside_people.pick_latents, comfyui=comfyui, base=tmp_path) == {
        "samples": [2, 0],
        "mask": [2, 0],
        "index": [7, 5],
        "rest": "x",
        "one mask for all": [0],
    }


def test_each_face_has_its_number_and_no_face_at_all_the_lowest(client, yunet_name):
    def numbers(image: str) -> list[float]:
        like = {"class_type": "FaceCLIPSimilarity", "inputs": {**COMPARED, "image": [image, 0]}}
        shown = {"class_type": "PreviewAny", "inputs": {"source": ["like", 0]}}
        return [float(text) for text in client.run({**BATCH, "like": like, "shown": shown}).outputs["shown"]["text"]]

    assert numbers("batch") == [pytest.approx(1, abs=1e-4)]
    assert numbers("nobody") == [-1]


def test_latents_of_another_batch_are_refused(client, yunet_name):
    prompt = {
        **BATCH,
        "latent": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 3}},
        "best": {"class_type": "FaceCLIPPickBest", "inputs": {**COMPARED, "count": 1, "latent": ["latent", 0]}},
        "show": {"class_type": "PreviewImage", "inputs": {"images": ["best", 0]}},
    }
    with pytest.raises(ExecutionFailed, match="3 latents for 2 pictures"):
        client.run(prompt)


@pytest.mark.parametrize(
    ("judge", "words"),
    [("InsightFace antelopev2", "antelopev2 was not found"), ("SFace", "SFace face recogniser was not found")],
)
def test_a_missing_independent_judge_names_the_folders(client, yunet_name, judge, words):
    prompt = {**BATCH, "like": {"class_type": "FaceCLIPSimilarity", "inputs": {**COMPARED, "judge": judge}}}
    with pytest.raises(ExecutionFailed, match=words):
        client.run(prompt)


def test_each_picture_is_shown_with_its_score(client, yunet_name):
    prompt = {
        **BATCH,
        "like": {"class_type": "FaceCLIPSimilarity", "inputs": COMPARED},
        "best": {"class_type": "FaceCLIPPickBest", "inputs": {**COMPARED, "count": 1}},
        "save": {"class_type": "PreviewImage", "inputs": {"images": ["best", 0]}},
    }
    outputs = client.run(prompt).outputs
    for node, kept in (("like", [False, False]), ("best", [False, True])):
        nobody, person = outputs[node]["faceclip_scores"]
        assert nobody["scores"] == [] and person["scores"][0] == pytest.approx(1, abs=1e-3)
        assert [nobody["kept"], person["kept"]] == kept
        assert client.view(person["photo"])[:4] == b"\x89PNG"


def test_a_swept_value_is_drawn_against_the_scores(client, yunet_name):
    """The person faded by a list of factors: the more of a grey picture, the less likeness."""
    factors = {"a": {"class_type": "TestHandOn", "inputs": {"value": 0.0}}}
    factors["b"] = {"class_type": "TestHandOn", "inputs": {"value": 0.4}}
    factors["list"] = {"class_type": "TestMakeList", "inputs": {"first": ["a", 0], "second": ["b", 0]}}
    faded = {"image1": ["photo", 0], "image2": ["nobody", 0], "blend_factor": ["list", 0], "blend_mode": "normal"}
    prompt = {
        **BATCH,
        **factors,
        "faded": {"class_type": "ImageBlend", "inputs": faded},
        "like": {"class_type": "FaceCLIPSimilarity", "inputs": {**COMPARED, "image": ["faded", 0]}},
        "chart": {
            "class_type": "FaceCLIPLikenessChart",
            "inputs": {"similarity": ["like", 0], "swept": ["list", 0], "label": "grey"},
        },
    }
    result = client.run(prompt)
    head, whole, grey = result.outputs["chart"]["text"][0].splitlines()
    assert head.startswith("Likeness by grey") and whole.startswith("0: 1.000 <- best") and grey.startswith("0.4: 0.")
    (picture,) = pictures(client, result, "chart")
    assert picture.shape == (512, 768, 3)
    prompt["chart"]["inputs"]["swept"] = ["a", 0]
    prompt["like"]["inputs"]["image"] = ["batch", 0]
    with pytest.raises(ExecutionFailed, match="grey|scores came in"):
        prompt["chart"]["inputs"]["similarity"] = ["like", 0]
        prompt["chart"]["inputs"]["swept"] = ["three", 0]
        prompt["three"] = {"class_type": "TestMakeList", "inputs": {"first": ["a", 0], "second": ["b", 0]}}
        client.run(prompt)
