"""A pack beside ours in the test server: what other packs' nodes hand on, and the host's own cannot be made to."""

import torch


class _Anything(str):
    """A type that the host lets into every input."""

    def __ne__(self, _other):
        return False


ANYTHING = _Anything("*")


class _Node:
    CATEGORY = "test"
    FUNCTION = "run"
    RETURN_TYPES = (ANYTHING,)


class GiveNothing(_Node):
    """A switch whose inputs are all off."""

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {}}

    def run(self):
        return (None,)


class HandOn(_Node):
    """A reroute of any type."""

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"value": (ANYTHING, {})}}

    def run(self, value):
        return (value,)


class Rescale(_Node):
    """A picture or mask with other values: factor * value + offset."""

    @classmethod
    def INPUT_TYPES(cls):
        number = ("FLOAT", {"default": 1.0, "min": -1e9, "max": 1e9})
        return {"required": {"value": (ANYTHING, {}), "factor": number, "offset": number}}

    def run(self, value, factor, offset):
        return (value * factor + offset,)


class Reshape(_Node):
    """A mask or picture of another shape, such as "1, 1, 64, 64": ones, from the first column to the part `filled`."""

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"shape": ("STRING", {}), "filled": ("FLOAT", {"default": 1.0})}}

    def run(self, shape, filled):
        made = torch.zeros([int(side) for side in shape.split(",")])
        made[..., : round(filled * made.shape[-1])] = 1
        return (made,)


class MakeList(_Node):
    """Two values as a list, as packs make them for pictures of different sizes."""

    OUTPUT_IS_LIST = (True,)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"first": (ANYTHING, {}), "second": (ANYTHING, {})}}

    def run(self, first, second):
        return ([first, second],)


NODE_CLASS_MAPPINGS = {f"Test{one.__name__}": one for one in (GiveNothing, HandOn, Rescale, Reshape, MakeList)}
