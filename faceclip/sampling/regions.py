"""Where in the picture a person stands: named regions, boxes, and how masks share a place."""

import math
from collections.abc import Sequence

import torch

from ..errors import InputError

# name -> (x0, y0, x1, y1) as parts of the picture; "box" takes the user's own numbers.
REGIONS = {
    "left half": (0.0, 0.0, 1 / 2, 1.0),
    "right half": (1 / 2, 0.0, 1.0, 1.0),
    "left third": (0.0, 0.0, 1 / 3, 1.0),
    "middle third": (1 / 3, 0.0, 2 / 3, 1.0),
    "right third": (2 / 3, 0.0, 1.0, 1.0),
    "whole picture": (0.0, 0.0, 1.0, 1.0),
}
BOX = "box"


def region_mask(name: str, box: tuple[float, float, float, float], rows: int, columns: int) -> torch.Tensor:
    """float32 [1, rows, columns] in latent cells: the share of each cell that lies in the region.

    name: one of REGIONS, or "box" for `box` = x, y, width, height as parts of the picture (0 to 1). Raises InputError
    for an unknown name and a box that is empty or reaches beyond the picture.
    """
    if name == BOX:
        x, y, width, height = box
        x1, y1 = x + width, y + height
        if not (0 <= x < x1 <= 1 + 1e-6 and 0 <= y < y1 <= 1 + 1e-6):
            raise InputError(
                f"The box is x {x:g}, y {y:g}, width {width:g}, height {height:g}; wanted parts of the picture from 0 "
                "to 1, not empty, with x + width and y + height at most 1."
            )
        edges = (x, y, x1, y1)
    elif name in REGIONS:
        edges = REGIONS[name]
    else:
        raise InputError(f"The region is {name!r}, wanted one of {', '.join([*REGIONS, BOX])}.")
    across = _coverage(edges[0] * columns, edges[2] * columns, columns)
    down = _coverage(edges[1] * rows, edges[3] * rows, rows)
    return (down[:, None] * across[None, :])[None]


def _coverage(start: float, end: float, cells: int) -> torch.Tensor:
    """How much of each of `cells` unit cells lies between start and end."""
    left = torch.arange(cells, dtype=torch.float32)
    return (torch.clamp(left + 1, max=end) - torch.clamp(left, min=start)).clamp(0, 1)


def fit_masks(masks: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """Masks of any size as float32 [N, rows, columns], averaged per cell. masks: [N, H, W], any numbers."""
    masks = masks.detach().to(device="cpu", dtype=torch.float32)
    return torch.nn.functional.interpolate(masks[None], size=(rows, columns), mode="area")[0]


def same_number(*stacks: torch.Tensor) -> list[torch.Tensor]:
    """Stacks [N, rows, columns] of different N, repeated to a common one.

    The host gives picture i of a batch the mask i, counted round; the least common multiple keeps that for each stack.
    """
    count = math.lcm(*(len(stack) for stack in stacks))
    return [stack.repeat(count // len(stack), 1, 1) for stack in stacks]


def make_room(base: torch.Tensor, person: torch.Tensor, share: float) -> torch.Tensor:
    """The base's masks with only `share` of them left where the person is. All float32 [N, rows, columns]."""
    base, person = same_number(base, person)
    return base * (1 - person * (1 - share))


def overlap(person: torch.Tensor, scene: torch.Tensor) -> torch.Tensor:
    """The person's masks within the scene's. All float32 [N, rows, columns]."""
    person, scene = same_number(person, scene)
    return person * scene


def union(stacks: Sequence[torch.Tensor]) -> torch.Tensor:
    """Where any of the masks is; each float32 [N, rows, columns]."""
    return torch.stack(same_number(*stacks)).amax(dim=0)
