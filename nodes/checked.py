"""What arrives at a node, checked in one place before the node works with it.

The host checks only values that are typed in: what comes through a link may be None (switches, bypassed and muted
nodes), out of range, or another type by way of a node that hands on anything.
"""

import math
from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from comfy_api.latest import io

from ..faceclip.errors import InputError

# type -> (what is missing, where it comes from)
_WANTED = {
    "FACECLIP": ("FaceCLIP model", "Load FaceCLIP"),
    "FACECLIP_DETECTOR": ("face detector", "Load Face Detector"),
    "FACECLIP_FACE": ("aligned face", "Align Face or Use Aligned Face"),
    "FACECLIP_IDENTITY": ("identity", "Encode Identity or Load Identity"),
    "FACECLIP_PLACEMENT": ("placement", "Crop Face"),
    "IMAGE": ("picture", "Load Image, or whatever makes the picture"),
    "MASK": ("mask", "a node that makes one, such as Load Image (as Mask)"),
    "CONDITIONING": ("conditioning", "FaceCLIP Text Prompt or FaceCLIP Prompt"),
    "MODEL": ("model", "Load FaceCLIP Diffusion Model, or Load Checkpoint for another one"),
    "LATENT": ("latent", "the sampler or VAE Encode"),
}
# What makes a value one of these types. By what it can do, not by its class: a pack that reloads others makes new ones.
_PARTS = {
    "FACECLIP": ("encode_identity", "encode_prompt"),
    "FACECLIP_DETECTOR": ("detect",),
    "FACECLIP_FACE": ("crops", "details"),
    "FACECLIP_IDENTITY": ("identity", "shares"),
    "FACECLIP_PLACEMENT": ("places", "pictures"),
    "MODEL": ("model", "clone"),
}


def checked(execute: Callable[..., io.NodeOutput]) -> Callable[..., io.NodeOutput]:
    """For a node's execute: refuses, in words, what a link brought and the node cannot work with.

    Raises InputError naming the input, what arrived and what to wire. What is not wired is not there, and passes.
    """

    @wraps(execute)
    def run(cls: Any, **given: Any) -> io.NodeOutput:
        schema = cls.define_schema()
        for item in schema.inputs:
            if item.id not in given:
                continue
            if schema.is_input_list:
                values = given[item.id] or [None]
                given[item.id] = [_checked(item, value) for value in values]
            else:
                given[item.id] = _checked(item, given[item.id])
        return execute(cls, **given)

    return run


def _checked(item: io.Input, value: Any) -> Any:
    kind = item.get_io_type()
    if value is None:
        raise InputError(_nothing(item, kind))
    if isinstance(item, io.Combo.Input):
        # A file's name is looked up in the host's folders, whose error lists them.
        if item.id != "file" and value not in item.options:
            raise InputError(f"{item.id} is {value!r}; wanted one of: {', '.join(map(str, item.options))}.")
    elif isinstance(item, (io.Int.Input, io.Float.Input)):
        return _number(item, value)
    elif isinstance(item, io.String.Input):
        if not isinstance(value, str):
            raise InputError(f"{item.id} is a {type(value).__name__} ({value!r:.60}), wanted text.")
    elif kind in _WANTED and not _fits(kind, value):
        what, source = _WANTED[kind]
        raise InputError(f"What arrives at {item.id} is a {type(value).__name__} and no {what}. Wire {source}.")
    return value


def _nothing(item: io.Input, kind: str) -> str:
    cause = "What is wired to it gives nothing, as a switch does, or a bypassed or muted node before it."
    unplug = " or unplug the input" if item.optional else ""
    if kind not in _WANTED:
        return f"Nothing arrives at the input {item.id}. {cause} Type a value{unplug}."
    what, source = _WANTED[kind]
    return f"No {what} arrives at the input {item.id}. {cause} Wire {source}{unplug}."


def _number(item: io.Int.Input | io.Float.Input, value: Any) -> int | float:
    whole = isinstance(item, io.Int.Input)
    wanted = f"wanted a {'whole ' if whole else ''}number from {item.min:g} to {item.max:g}"
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    fits = not isinstance(value, (str, bool)) and item.min <= number <= item.max  # not so for NaN
    if not fits or (whole and number != int(number)):
        raise InputError(f"{item.id} is {value!r:.60}, {wanted}.")
    return int(value) if whole else number


def _fits(kind: str, value: Any) -> bool:
    if kind == "CONDITIONING":
        return isinstance(value, list) and len(value) > 0
    if kind == "LATENT":
        return isinstance(value, dict) and isinstance(value.get("samples"), torch.Tensor)
    if kind in ("IMAGE", "MASK"):
        return isinstance(value, torch.Tensor)
    return all(hasattr(value, part) for part in _PARTS[kind])
