"""The saved identities of a folder, as a person sees them: who is there, and their picture; renamed, brought in."""

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ..errors import CheckpointError, NameTakenError, shown
from ..files.header import Damage, read_header
from ..files.state_dict import read_state_dict, write_safetensors
from .file import load_person, save_person
from .header import SUFFIX, check_header, check_name


def describe(path: str | os.PathLike[str]) -> dict[str, object]:
    """What the header of a saved identity says: {"name", "references", "encoder" (its hash), "problem" ("" for none)}.

    A file that cannot be used is described too, by what is wrong with it.
    """
    path = Path(path)
    try:
        metadata = read_header(path).metadata
        references, problem = len(check_header(shown(path.name), metadata)), ""
    except (CheckpointError, Damage, OSError) as error:
        metadata, references, problem = {}, 0, str(error)
    return {
        "name": path.stem,
        "references": references,
        "encoder": metadata.get("encoder", ""),
        "problem": problem,
    }


def picture(path: str | os.PathLike[str], reference: int = 0) -> bytes:
    """The small picture of one reference of a saved identity, as the bytes of a PNG. Raises CheckpointError."""
    import cv2

    person = load_person(path)
    thumbnail = person.thumbnails[min(max(reference, 0), len(person) - 1)].permute(1, 2, 0)  # CHW -> HWC
    return cv2.imencode(".png", np.ascontiguousarray(thumbnail.numpy()[..., ::-1]))[1].tobytes()


def rename(path: str | os.PathLike[str], name: str) -> Path:
    """Give a saved identity another name, in its file too; returns its new path.

    Raises InputError for a name that cannot be used, NameTakenError where it is taken, CheckpointError for a file that
    is no saved identity. Then nothing has changed.
    """
    path, name = Path(path), check_name(name)
    state, metadata = read_state_dict(path)
    check_header(shown(path.name), metadata)
    new = path.with_name(name + SUFFIX)
    try:
        write_safetensors(state, new, _named(metadata, name))
    except NameTakenError as error:
        raise NameTakenError(f"There is a saved identity {name!r} already. Choose another name.") from error
    path.unlink()
    return new


def bring_in(path: str | os.PathLike[str], folder: str | os.PathLike[str], name: str) -> Path:
    """Keep a copy of an identity that was saved elsewhere in `folder`; a counter is added where the name is taken.

    The file is read whole and checked before, so that nothing else gets in. Raises as `load_person` and `check_name`.
    """
    return save_person(load_person(path), folder, name)


def _named(metadata: Mapping[str, str], name: str) -> dict[str, str]:
    return {**metadata, "name": name}
