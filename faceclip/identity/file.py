"""Identities on disk: one portable .safetensors with features, thumbnails and what made them; no pickle."""

import json
import os
from pathlib import Path

import torch

from .. import __version__
from ..errors import CheckpointError, InputError, NameTakenError, shown
from ..files.state_dict import read_state_dict, write_safetensors
from ..model.config import FACE_GRID
from ..model.encoder import Identity
from ..model.face_encoder import FaceFeatures
from .header import KIND, SUFFIX, VERSION, check_header, check_name
from .person import Person

_LARGEST_THUMBNAIL = 1024  # px; ours have 112
EXISTING = ("add a counter", "replace")


def save_person(person: Person, folder: str | os.PathLike[str], name: str, existing: str = EXISTING[0]) -> Path:
    """Write FOLDER/NAME.safetensors whole or not at all, and return its path.

    existing: what happens where the name is taken, one of EXISTING; a counter gives `NAME (2)` and so on.
    """
    if existing not in EXISTING:
        raise InputError(f"existing is {existing!r}, wanted one of {', '.join(EXISTING)}.")
    if not person.encoder:
        raise InputError("The identity does not say which encoder read it, so it cannot be kept.")
    name = check_name(name)
    metadata = {
        "kind": KIND,
        "version": str(VERSION),
        "name": name,
        "references": str(len(person)),
        "shares": json.dumps(person.shares),
        "encoder": person.encoder,
        "created_by": f"ComfyUI-FaceCLIP {__version__}",
    }
    state, counter = _tensors(person), 1
    while True:
        path = Path(folder) / (f"{name} ({counter}){SUFFIX}" if counter > 1 else name + SUFFIX)
        try:
            write_safetensors(state, path, metadata, force=existing == EXISTING[1])
            return path
        except NameTakenError:  # before, or by another process while this one was writing
            counter += 1


def load_person(path: str | os.PathLike[str], encoder: str | None = None) -> Person:
    """Read an identity; encoder: the hash it must have been read by, None for any.

    Raises CheckpointError for a file that is missing, damaged, of another kind or a newer version, and InputError
    where another encoder made it.
    """
    name = shown(Path(path).name)
    state, metadata = read_state_dict(path)
    shares = check_header(name, metadata)
    try:
        person = _person(state, metadata, shares)
    except (KeyError, ValueError, TypeError) as error:
        raise CheckpointError(f"{name} is damaged ({shown(error)}). Save the identity again.") from error
    check_encoder(person, encoder, name)
    return person


def check_encoder(person: Person, encoder: str | None, name: str) -> None:
    """Raise InputError where a saved identity was read by another face encoder than the one in use."""
    if encoder and person.encoder != encoder:
        raise InputError(
            f"The identity {name} was read by another face encoder ({shown(person.encoder[:12])}..., the loaded "
            f"FaceCLIP has {encoder[:12]}...). Its numbers mean nothing to this one. Load the FaceCLIP it "
            "was made with, or encode the photos again."
        )


def _tensors(person: Person) -> dict[str, torch.Tensor]:
    identity = person.identity.to("cpu")
    branches = {"l": identity.l} if identity.l is identity.g else {"l": identity.l, "g": identity.g}
    state = {"thumbnails": person.thumbnails}
    for branch, features in branches.items():
        state[f"{branch}.class_token"] = features.class_token
        state[f"{branch}.patch_tokens"] = features.patch_tokens
    return state


def _size_of_thumbnails(state: dict[str, torch.Tensor], count: int) -> bool:
    seen = state["thumbnails"]
    return (
        seen.dtype == torch.uint8
        and seen.ndim == 4
        and tuple(seen.shape[:2]) == (count, 3)
        and seen.shape[2] == seen.shape[3]
        and 0 < seen.shape[2] <= _LARGEST_THUMBNAIL
    )


def _person(state: dict[str, torch.Tensor], metadata: dict[str, str], shares: tuple[float, ...]) -> Person:
    count = len(shares)
    features = {}
    for branch in ("l", "g") if "g.class_token" in state else ("l",):
        token, patches = state[f"{branch}.class_token"], state[f"{branch}.patch_tokens"]
        fits = token.ndim == 2 and patches.ndim == 3 and len(token) == len(patches) == count
        if not fits or patches.shape[1] != FACE_GRID**2 or 0 in (token.shape[1], patches.shape[2]):
            raise ValueError(f"{branch} has shapes {list(token.shape)} and {list(patches.shape)} for {count} faces")
        if not (token.is_floating_point() and patches.is_floating_point()):
            raise ValueError(f"{branch} holds {token.dtype} and {patches.dtype}")
        if not (torch.isfinite(token).all() and torch.isfinite(patches).all()):
            raise ValueError(f"{branch} holds NaN or infinite values")
        features[branch] = FaceFeatures(*(value.to(torch.float32, copy=True) for value in (token, patches)))
    if not _size_of_thumbnails(state, count):
        raise ValueError(f"thumbnails have shape {list(state['thumbnails'].shape)}")
    # Copies all: what happens to the file later concerns no identity that was read before.
    identity = Identity(features["l"], features.get("g", features["l"]))
    return Person(identity, shares, state["thumbnails"].clone(), metadata["encoder"], shown(metadata.get("name", "")))
