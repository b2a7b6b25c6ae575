"""Changes to API prompts: other files, other sizes, no detector. A prompt is node id -> {class_type, inputs}."""

import copy
import json
from collections.abc import Mapping
from pathlib import Path

from ..small import models as small

# The pack's examples in API form; in a package that pip installed, the copy it carries.
_HERE = Path(__file__).resolve().parent
_EXAMPLES = (_HERE.parents[1] / "workflows" / "api", _HERE / "workflows")
SMALL_FILES = {
    "FaceCLIPLoader": small.ENCODER_FILE,
    "FaceCLIPUNETLoader": small.UNET_FILE,
    "VAELoader": small.VAE_FILE,
}
SMALL_SETTINGS = {"width": small.SIZE, "height": small.SIZE, "steps": 25, "cfg": 3.0}
_FILE_SUFFIXES = (".safetensors", ".pt", ".pth", ".png", ".jpg", ".jpeg", ".webp")


def example(name: str) -> Path:
    """The file of one of the pack's examples, an API prompt."""
    checkout, installed = (folder / f"{name}.json" for folder in _EXAMPLES)
    return installed if installed.is_file() else checkout


def fill_in(prompt: dict, files: Mapping[str, str], settings: Mapping[str, float]) -> dict:
    """A copy of a prompt with file names put in by class of node, and numbers by name of input.

    files: class_type -> the file name for its inputs that hold one. settings: input name -> value, for plain numbers.
    """
    prompt = copy.deepcopy(prompt)
    for node in prompt.values():
        inputs = node["inputs"]
        for name, value in inputs.items():
            is_file = isinstance(value, str) and value.lower().endswith(_FILE_SUFFIXES)
            if is_file and node["class_type"] in files:
                inputs[name] = files[node["class_type"]]
            elif name in settings and isinstance(value, (int, float)):
                inputs[name] = settings[name]
    return prompt


def small_variants() -> dict[str, dict[str, dict]]:
    """Example -> node id -> inputs, for the examples that the small model can draw; it has no FaceT5."""
    return json.loads((small.FOLDER / "variants.json").read_text("utf-8"))


def for_small_model(name: str, prompt: dict, **settings: float) -> dict:
    """A copy of the example `name` for the model that comes with the pack: its files, size and words, cartoon people.

    settings: other numbers, by name of input. The photos it names are `faceclip.small.pictures.cartoons()`.
    """
    prompt = fill_in(prompt, SMALL_FILES, SMALL_SETTINGS)
    prompt["negative"]["inputs"]["text"] = ""  # the only negative it was trained with
    for node_id, inputs in small_variants()[name].items():
        prompt[node_id]["inputs"].update(inputs)
    return fill_in(prompt, {}, settings)


def use_aligned_face(prompt: dict, picture: str) -> dict:
    """A copy of a prompt in which a ready-made crop takes the place of detection and alignment.

    Nodes that then feed nothing (the detector, the loader of the photo) go, those that show a result stay.
    """
    prompt = copy.deepcopy(prompt)
    aligners = [node_id for node_id, node in prompt.items() if node["class_type"] == "FaceCLIPAlignFace"]
    for node_id in aligners:
        before = set(_linked(prompt))
        loader = f"{node_id}_crop"
        prompt[loader] = {"class_type": "LoadImage", "inputs": {"image": picture}}
        prompt[node_id] = {"class_type": "FaceCLIPAlignedFace", "inputs": {"image": [loader, 0]}}
        for node in prompt.values():
            for name, value in node["inputs"].items():
                if value == [node_id, 1]:  # the crops, which the new node does not give
                    node["inputs"][name] = [loader, 0]
        for lost in before - set(_linked(prompt)):
            del prompt[lost]
    return prompt


def _linked(prompt: dict) -> list[str]:
    """Ids of the nodes whose results others use."""
    values = (value for node in prompt.values() for value in node["inputs"].values())
    return [value[0] for value in values if isinstance(value, list) and len(value) == 2 and value[0] in prompt]
