"""Where in the picture a person stands: named regions, boxes, and how masks share a place."""

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


def fit_mask(mask: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """A mask of any size as float32 [1, rows, columns], averaged per cell; raises InputError unless it is one mask.

    mask: float [H, W] or [1, H, W], 0 to 1.
    """
    if mask.ndim == 2:
        mask = mask[None]
    if mask.ndim != 3 or len(mask) != 1 or 0 in mask.shape:
        raise InputError(f"The mask has shape {list(mask.shape)}, wanted one mask [1, height, width].")
    mask = mask.float()
    if not (float(mask.min()) >= -1e-3 and float(mask.max()) <= 1 + 1e-3):
        raise InputError("The mask's values are not within 0 to 1.")
    if float(mask.max()) <= 0:
        raise InputError("The mask is empty: no place is marked for this person. Paint the place white.")
    return torch.nn.functional.interpolate(mask[None], size=(rows, columns), mode="area")[0].clamp(0, 1)


def make_room(base: torch.Tensor, person: torch.Tensor, share: float) -> torch.Tensor:
    """The base's mask with only `share` of it left where the person is. All float32 [1, rows, columns]."""
    return base * (1 - person * (1 - share))
