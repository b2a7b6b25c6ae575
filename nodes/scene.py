"""What a scene's CONDITIONING carries: room in it for people, and what acts on it taken over by them.

A scene is every entry that no Add Person made. What the host's nodes put on an entry (a ControlNet, hooks, a part of
the sampling, an area, a mask) stands in its dict, beside the text's own vectors and the picture's size.
"""

from typing import Any

import torch

from ..faceclip.errors import InputError
from ..faceclip.pixels import stack_of_masks
from ..faceclip.sampling import regions
from .conditioning import ACTS

Entry = list  # of CONDITIONING: [embeddings, dict]

PERSON = "faceclip_person"  # marks an entry that belongs to a person; the host passes it over
_ROOM = "faceclip_room"  # [the scene's own masks or None, the masks we made of them]
_BOUNDS = "set_area_to_bounds"  # the host's: the UNet sees the smallest box around the mask, and nothing else
_MARGIN = 4  # latent cells
_COVERED = "faceclip_covered"  # marks a scene's entry of which no mask is left: nobody takes its _BOUNDS over
_WHOLE = {"area", "control"}  # made for the whole picture: an area has a box, a ControlNet's picture would be squeezed
_TEXT = {"pooled_output", "attention_mask", "width", "height", "crop_w", "crop_h", "target_width", "target_height"}
# "default" makes an entry fill what no other covers: that is the scene's, a person has a place.
_OWN = _TEXT | {"mask", "default", PERSON, _ROOM, _COVERED, ACTS}


def is_person(entry: Entry) -> bool:
    return bool(entry[1].get(PERSON))


def make_room(conditioning: list[Entry], place: torch.Tensor, share: float) -> list[Entry]:
    """Copies of the entries, those of the scene pushed back to `share` where the person is; people are left alone.

    place: float32 [N, rows, columns]. Raises InputError for a scene's mask that is none.
    """
    entries = []
    for number, entry in enumerate(conditioning, 1):
        embeddings, extra = entry
        if not is_person(entry):
            own, base = _own_masks(extra), extra.get("mask")
            base = torch.ones_like(place[:1]) if base is None else _fitted(base, place, number, len(conditioning))
            room = regions.make_room(base, place, share)
            extra = {"mask_strength": 1.0, **extra, "mask": room, _ROOM: [own, room]}
        entries.append([embeddings, extra])
    return entries


def taken_over(conditioning: list[Entry], place: torch.Tensor) -> list[dict[str, Any]]:
    """What acts on the scene, for a person at `place`: one dict of further keys for each way in which it acts.

    Entries of the scene that carry the same are one way, in the place of all their masks together. The person's own
    mask lies within the scene's; where they do not meet there is nothing. Raises InputError where that is everywhere.
    """
    ways: list[tuple[dict[str, Any], list[Any]]] = []
    for number, entry in enumerate(conditioning, 1):
        if is_person(entry):
            continue
        carried = {key: value for key, value in entry[1].items() if key not in _OWN}
        carried.setdefault("mask_strength", 1.0)
        if entry[1].get(_COVERED):
            carried.pop(_BOUNDS, None)
        mask = _own_masks(entry[1])
        mask = torch.ones_like(place[:1]) if mask is None else _fitted(mask, place, number, len(conditioning))
        known = next((masks for other, masks in ways if _equal(other, carried)), None)
        if known is None:
            ways.append((carried, [mask]))
        else:
            known.append(mask)
    if not ways:
        return [{"mask": place, "mask_strength": 1.0}]
    made = [{**carried, "mask": regions.overlap(place, regions.union(masks))} for carried, masks in ways]
    made = [extra for extra in made if float(extra["mask"].max()) > 0]
    if not made:
        raise InputError(
            "The person's place lies outside of the scene's mask, so the person would be nowhere. Move the person into "
            "it, take the mask off the scene, or set follow_scene to false."
        )
    return made


def within_region(extras: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A person's entries, sampled in a box around the mask alone, but for those with what fits the whole picture.

    The box is a little larger than the mask: what the UNet draws at an edge of what it sees is not to be seen.
    """
    return [extra if extra.keys() & _WHOLE else {**extra, "area": _box_around(extra["mask"])} for extra in extras]


def _box_around(mask: torch.Tensor) -> tuple[Any, ...]:
    """The host's area, as parts of the picture: height, width, top, left. mask: float32 [N, rows, columns]."""
    sides = []
    for cells, where in zip(mask.shape[1:], (mask.amax((0, 2)), mask.amax((0, 1))), strict=True):
        inside = where.nonzero().flatten().tolist()
        start, end = max(inside[0] - _MARGIN, 0), min(inside[-1] + 1 + _MARGIN, cells)
        sides.append(((end - start) / cells, start / cells))
    (height, top), (width, left) = sides
    return "percentage", height, width, top, left


def about_region(carried: list[dict[str, Any]]) -> str:
    """What `within_region` makes of what a person carries, in words."""
    if not any(extra.keys() & _WHOLE for extra in carried):
        return "The diffusion model sees this person's region alone."
    return "Not its region alone: the scene's ControlNet or area fits the whole picture. Set follow_scene to false."


def without_covered(entries: list[Entry]) -> list[Entry]:
    """Entries of the scene of which people left nothing take no time: the host samples the smallest box it knows."""
    return [
        [embeddings, {**extra, _BOUNDS: True, _COVERED: True}]
        if not is_person([embeddings, extra]) and not extra.keys() & _WHOLE and float(extra["mask"].max()) == 0
        else [embeddings, extra]
        for embeddings, extra in entries
    ]


def names_taken_over(extras: list[dict[str, Any]], told_anyway: dict[str, Any]) -> list[str]:
    """In the words of the nodes that put them there: what a person took over. extras: of `taken_over`.

    told_anyway: what an entry of the person says by itself, such as FLUX's guidance.
    """
    words = {"control": "ControlNet", "hooks": "hooks", "area": "area", "gligen": "GLIGEN"}
    ranges = {"start_percent", "end_percent", "clip_start_percent", "clip_end_percent"}
    found = []
    for extra in extras:
        keys = extra.keys() - {"mask", "control_apply_to_uncond", "set_area_to_bounds"}
        keys = {key for key in keys if not (key.endswith("strength") and extra[key] == 1.0)}
        keys = {key for key in keys if not _same(extra[key], told_anyway.get(key))}
        found += ["a part of the sampling" if key in ranges else words.get(key, key) for key in sorted(keys)]
    return list(dict.fromkeys(found))


def ranges(extras: list[dict[str, Any]]) -> list[tuple[float, float]]:
    """The parts of the sampling that entries act in, where they are not all of it."""
    spans = [(extra.get("start_percent", 0.0), extra.get("end_percent", 1.0)) for extra in extras]
    return [span for span in dict.fromkeys(spans) if span != (0.0, 1.0)]


def _own_masks(extra: dict[str, Any]) -> torch.Tensor | None:
    """The scene's own mask: not the one left over from the room made for earlier people, unless it was set since."""
    own, room = extra.get(_ROOM, [None, None])
    mask = extra.get("mask")
    return own if mask is room else mask


def _fitted(mask: Any, place: torch.Tensor, number: int, count: int) -> torch.Tensor:
    """The scene's masks in latent cells, whatever their values: what the host samples is not refused."""
    whose = "the scene's mask" if count == 1 else f"the scene's mask (entry {number} of {count} of the conditioning)"
    if not isinstance(mask, torch.Tensor):
        raise InputError(f"{whose[0].upper()}{whose[1:]} is a {type(mask).__name__}; a mask is wanted.")
    return regions.fit_masks(stack_of_masks(mask, whose), *place.shape[1:])


def _equal(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)


def _same(one: Any, other: Any) -> bool:
    """Equal without asking objects of the host or tensors, whose == may be anything."""
    if isinstance(one, (list, tuple)) and type(one) is type(other):
        return len(one) == len(other) and all(map(_same, one, other))
    return one is other or (isinstance(one, (bool, int, float, str)) and type(one) is type(other) and one == other)
