"""From a workflow in API form to the prompt of one picture: face, text, seed and size put where they belong.

A prompt is node id -> {class_type, inputs}. A slot is "NODE.INPUT", such as "photo.image".
"""

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field
from pydantic.dataclasses import dataclass

from ..errors import InputError
from ..files.table import TABLE, OneOrMore, Text
from ..files.toml import read_json
from .cell import LIKENESS

ENCODE, LOAD, DETECTOR = "FaceCLIPEncodeIdentity", "FaceCLIPLoadIdentity", "FaceCLIPDetectorLoader"
# Who tells the likeness: by their names on the command line, and in the nodes.
JUDGES = {"faceclip": "FaceCLIP's face encoder", "sface": "SFace", "antelopev2": "InsightFace antelopev2"}
REFERENCE_INPUTS = ("face", "face_2", "face_3", "face_4")


_Places = Annotated[tuple[Text, ...], Field(min_length=1), OneOrMore]


@dataclass(frozen=True, config=TABLE)
class Slots:
    """Where a workflow takes what changes from picture to picture; the defaults fit workflows/api/portrait.json."""

    face: _Places = ("photo.image",)
    prompt: _Places = ("positive.text",)
    seed: _Places = ("sample.noise_seed",)
    width: _Places = ("positive.width", "negative.width", "settings.width")
    height: _Places = ("positive.height", "negative.height", "settings.height")
    output: Text = "save"  # id of the node whose picture is taken
    negative: _Places = ("negative.text",)
    strength: _Places = ("positive.strength",)


class Graph:
    """A workflow with its slots. name: how errors name it. Raises InputError, here and in every method."""

    def __init__(self, prompt: Any, slots: Slots, name: str, field: str = "settings"):
        is_prompt = isinstance(prompt, dict) and all(
            isinstance(node, dict) and isinstance(node.get("inputs"), dict) and isinstance(node.get("class_type"), str)
            for node in prompt.values()
        )
        if not is_prompt or not prompt:
            raise InputError(
                f"{name} is no workflow in API form: node id -> class_type and inputs. "
                "Save it in ComfyUI with Export (API)."
            )
        self.prompt: dict[str, dict[str, Any]] = prompt
        self.slots, self.name = slots, name
        if slots.output not in self.prompt:
            known = ", ".join(self.prompt)
            raise InputError(
                f"{field}.inputs.output is {slots.output!r}, but {name} has no such node. It has: {known}."
            )
        for one in ("face", "prompt", "seed"):
            self.check_slots(getattr(slots, one), f"{field}.inputs.{one}")

    def check_slots(self, slots: Sequence[str], field: str) -> None:
        """Raise InputError where one of the slots is not in the workflow; field: who wants it."""
        for slot in slots:
            node, _, name = slot.partition(".")
            if node not in self.prompt:
                raise InputError(
                    f"{field} is {slot!r}, but {self.name} has no node {node!r}: {', '.join(self.prompt)}."
                )
            inputs = self.prompt[node]["inputs"]
            if name not in inputs:
                raise InputError(f"{field} is {slot!r}, but node {node!r} of {self.name} has: {', '.join(inputs)}.")

    def build(
        self,
        text: str,
        seed: int,
        pictures: Sequence[str] = (),
        identity: str | None = None,
        place: str = "identity",
        changes: Mapping[str, object] | None = None,
    ) -> dict:
        """The prompt of one picture, with nothing in it that the output does not need.

        pictures: the server's names of the person's photos; or identity: the server's name of a saved identity.
        place: how errors name the identity. changes: slot -> value, of any other input.
        """
        prompt = copy.deepcopy(self.prompt)
        for node in prompt.values():
            node.pop("_meta", None)
        _put(prompt, self.slots.prompt, text)
        _put(prompt, self.slots.seed, seed)
        for slot, value in (changes or {}).items():
            _put(prompt, [slot], value)
        if identity is not None:
            self._put_identity(prompt, identity, place)
        else:
            self._put_pictures(prompt, pictures, place)
        output = prompt[self.slots.output]
        if output["class_type"] == "SaveImage":  # a preview leaves nothing in the server's output folder
            images = output["inputs"].get("images")
            prompt[self.slots.output] = {"class_type": "PreviewImage", "inputs": {"images": images}}
        return {node: prompt[node] for node in sorted(_needed(prompt, [self.slots.output]))}

    def with_seed(self, api: dict, seed: int) -> dict:
        """What `build` gave, with another seed; what is the same in both is shared."""
        other = dict(api)
        for slot in self.slots.seed:
            node, _, name = slot.partition(".")
            if node in other:
                other[node] = {**other[node], "inputs": {**other[node]["inputs"], name: seed}}
        return other

    def with_likeness(self, api: dict, judge: str, place: str) -> dict:
        """What `build` gave, with a node that tells how much the picture looks like the person of the face's slot."""
        people = [node for node in api if api[node]["class_type"] in (ENCODE, LOAD)]
        photo = self.slots.face[0].partition(".")[0]
        ours = [node for node in people if node in _fed_by(api, photo)] or people
        users = [
            (node, api[user]["inputs"]["faceclip"])
            for node in ours[:1]
            for user in api
            if {"identity", "faceclip"} <= api[user]["inputs"].keys() and api[user]["inputs"]["identity"][:1] == [node]
        ]
        picture = api[self.slots.output]["inputs"].get("images")
        if not users or not _is_link(picture, api):
            raise InputError(
                f"{place}: {self.name} has no person whom a prompt with an input `identity` takes, so no likeness "
                "can be told. Leave --likeness and --best out."
            )
        node, faceclip = users[0]
        detector = next((one for one in api if api[one]["class_type"] == DETECTOR), LIKENESS + "_detector")
        finder = {"class_type": DETECTOR, "inputs": {"detector": "YuNet", "provider": "auto"}}
        inputs = {"image": picture, "identity": [node, 0], "detector": [detector, 0], "faceclip": faceclip}
        told = {"class_type": "FaceCLIPSimilarity", "inputs": {**inputs, "judge": judge, "min_score": 0.6}}
        return {detector: finder, **api, LIKENESS: told}

    def _put_pictures(self, prompt: dict, pictures: Sequence[str], place: str) -> None:
        photo, _, name = self.slots.face[0].partition(".")
        _put(prompt, self.slots.face, pictures[0])
        encoders = self._encoders(prompt)
        for encoder in encoders:
            for more in REFERENCE_INPUTS[1:]:
                prompt[encoder]["inputs"].pop(more, None)
        if len(pictures) == 1:
            return
        if len(encoders) != 1 or len(pictures) > len(REFERENCE_INPUTS):
            raise InputError(
                f"{place}.pictures has {len(pictures)} pictures. {self.name} has {len(encoders)} {ENCODE} nodes behind "
                f"{photo!r}; one is wanted, which takes up to {len(REFERENCE_INPUTS)}. Name fewer pictures, or an "
                "identity saved by Save Identity."
            )
        inputs = prompt[encoders[0]]["inputs"]
        path = _needed(prompt, [encoders[0]]) & _fed_by(prompt, photo) - {encoders[0]}
        link = inputs[REFERENCE_INPUTS[0]]
        for number, (more, picture) in enumerate(zip(REFERENCE_INPUTS[1:], pictures[1:], strict=False), 2):
            names = {node: f"{node}_{number}" for node in path}
            for node, copied in names.items():
                prompt[copied] = copy.deepcopy(prompt[node])
                for key, value in prompt[copied]["inputs"].items():
                    if _is_link(value, prompt) and value[0] in names:
                        prompt[copied]["inputs"][key] = [names[value[0]], value[1]]
            prompt[names[photo]]["inputs"][name] = picture
            inputs[more] = [names[link[0]], link[1]]

    def _put_identity(self, prompt: dict, identity: str, place: str) -> None:
        node = self.slots.face[0].partition(".")[0]
        if prompt[node]["class_type"] == LOAD:
            _put(prompt, self.slots.face, identity)
            return
        encoders = self._encoders(prompt)
        if not encoders:
            raise InputError(
                f"{place}.identity is a saved identity, but {self.name} has no {ENCODE} node behind {node!r} that a "
                f"{LOAD} node could take the place of. Name pictures, or let settings.inputs.face be that of a {LOAD}."
            )
        for encoder in encoders:
            prompt[encoder] = {"class_type": LOAD, "inputs": {"file": identity}}

    def _encoders(self, prompt: dict) -> list[str]:
        fed = _fed_by(prompt, self.slots.face[0].partition(".")[0])
        return [node for node in prompt if node in fed and prompt[node]["class_type"] == ENCODE]


def read_workflow(path: Path) -> object:
    """The JSON of a workflow file; raises InputError."""
    try:
        return read_json(path)
    except InputError as error:
        raise InputError(f"{error}. It is no readable JSON; save the workflow in ComfyUI with Export (API).") from error


def _put(prompt: dict, slots: Sequence[str], value: object) -> None:
    for slot in slots:
        node, _, name = slot.partition(".")
        prompt[node]["inputs"][name] = value


def _is_link(value: object, prompt: dict) -> bool:
    return isinstance(value, list) and len(value) == 2 and value[0] in prompt


def _links(prompt: dict, node: str) -> list[str]:
    return [value[0] for value in prompt[node]["inputs"].values() if _is_link(value, prompt)]


def _needed(prompt: dict, nodes: list[str]) -> set[str]:
    """The nodes, and all whose results they need."""
    found, todo = set(), list(nodes)
    while todo:
        node = todo.pop()
        if node not in found:
            found.add(node)
            todo.extend(_links(prompt, node))
    return found


def _fed_by(prompt: dict, node: str) -> set[str]:
    """A node, and all that need its result."""
    found = {node}
    while more := {other for other in prompt if other not in found and found.intersection(_links(prompt, other))}:
        found |= more
    return found
