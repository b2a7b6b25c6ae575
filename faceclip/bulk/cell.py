"""One picture: what a server needs to make it, and what comes back."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

UPLOADS = "faceclip_eval"  # folder below the servers' input folder
LIKENESS = "faceclip_likeness"  # id of the node that tells how much a picture looks like its person
_KEY_VERSION = 1  # raise it when the same settings come to mean another picture


@dataclasses.dataclass(frozen=True)
class Cell:
    """A picture to make.

    key: 20 hex digits over all that makes the picture: the workflow as filled in, and the content of the photos or
    the identity. Names of people and prompts do not count, nor does what the servers' model files hold.
    api: the prompt to queue. uploads: the server's name of each photo it needs -> the file here, or its address.
    """

    seed: int
    key: str
    api: dict[str, Any] = dataclasses.field(repr=False, compare=False)
    uploads: Mapping[str, str | Path] = dataclasses.field(repr=False, compare=False)


@dataclasses.dataclass(frozen=True)
class Planned(Cell):
    """A picture of `make`, with its place among the others.

    name: where it goes below the output folder, without an ending. place: where it is asked for, for messages. group,
    of: the number of its row, and how many pictures that row makes. facts: what its JSON says beside what comes back.
    """

    name: str
    place: str
    group: int
    of: int
    facts: dict[str, Any] = dataclasses.field(repr=False, compare=False)


@dataclasses.dataclass(frozen=True)
class Made:
    """A picture's file, whole.

    kind: PNG, JPEG and so on. size: width and height, px. server: who made it, in so many seconds. likeness: -1 to 1,
    where that was asked.
    """

    data: bytes = dataclasses.field(repr=False)
    kind: str
    size: tuple[int, int]
    server: str = ""
    seconds: float = 0.0
    likeness: float | None = None


def key_of(api: dict[str, Any], identity: str | None) -> str:
    """The key of a cell. identity: the digest of the saved identity that the workflow names, if it does."""
    text = json.dumps([_KEY_VERSION, api, identity], sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:20]
