"""The benchmark file: identities x prompts x seeds, and how ComfyUI makes a picture of each.

    prompts = ["a chef in a kitchen", {name = "beach", text = "on a beach at noon"}]
    seeds = [1, 2]

    [[identities]]
    name = "ada"
    pictures = ["ada.jpg", "ada at work.jpg"]        # or: identity = "ada.safetensors", made by Save Identity

    [settings]                                       # all of it may be left out
    workflow = "portrait.json"                       # API form; the pack's portrait workflow where left out
    width = 864
    height = 1152
    files = {FaceCLIPLoader = "faceclip.safetensors"}    # node class -> model file on the server
    values = {"settings.steps" = 30}                     # any other "node.input"
    inputs = {face = "photo.image", prompt = "positive.text", seed = "sample.noise_seed", output = "save"}

JSON with the same fields does as well. Paths are relative to the file.
"""

import dataclasses
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic.dataclasses import dataclass as table

from ..comfy.workflow import example, fill_in
from ..errors import InputError
from ..files.table import TABLE, LocalFile, OneOrMore, Text, Whole, check
from ..files.toml import read_json, read_toml
from ..identity.header import check_name
from .graph import Graph, Slots, read_workflow

PORTRAIT = example("portrait")
UPLOADS = "faceclip_eval"  # folder below the servers' input folder
_KEY_VERSION = 1  # raise it when the same settings come to mean another picture
_MAX_SEED = 2**64 - 1
_SIDES = (16, 16384)


def _name(value: str) -> str:
    try:
        return check_name(value)
    except InputError:
        wanted = "1 to 100 letters, digits, spaces or -_+().' , as files are named after it"
        raise ValueError(f"{value!r} given, {wanted} wanted") from None


def _between(low: int, high: int) -> AfterValidator:
    def inside(value: int) -> int:
        if not low <= value <= high:
            raise ValueError(f"{value} given, a whole number from {low} to {high} wanted")
        return value

    return AfterValidator(inside)


def _each_once(seeds: tuple[int, ...]) -> tuple[int, ...]:
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"{list(seeds)} given, each number once wanted")
    return seeds


def _prompt(value: Any) -> Any:
    if not isinstance(value, str | dict):
        raise ValueError(f"{value!r} given, a text or a table with name and text wanted")
    return {"text": value} if isinstance(value, str) else value


Name = Annotated[Text, AfterValidator(_name)]


@table(frozen=True, config=TABLE)
class GridIdentity:
    """A person: pictures (photos), or identity (a file made by Save Identity); the other is empty."""

    name: Name = ""  # that of the first file where it is left out
    pictures: Annotated[tuple[LocalFile, ...], Field(min_length=1), OneOrMore] = ()
    identity: LocalFile | None = None

    def __post_init__(self):
        if bool(self.pictures) == bool(self.identity):
            raise ValueError("pictures or identity: one of the two is wanted")
        if not self.name:
            try:
                name = _name((self.identity or self.pictures[0]).stem)
            except ValueError as error:
                raise ValueError(f"name: {error}") from None
            object.__setattr__(self, "name", name)


@table(frozen=True, config=TABLE)
class GridPrompt:
    text: Text
    name: Name = ""  # p1, p2 and so on by its place where it is left out


_Side = Annotated[Whole, _between(*_SIDES)]
_Seed = Annotated[Whole, _between(0, _MAX_SEED)]


@table(frozen=True, config=TABLE)
class _Settings:
    workflow: LocalFile = PORTRAIT
    width: _Side | None = None
    height: _Side | None = None
    files: dict[str, Text] = dataclasses.field(default_factory=dict)
    values: dict[str, Any] = dataclasses.field(default_factory=dict)
    inputs: Slots = Slots()


@table(frozen=True, config=TABLE)
class _File:
    identities: Annotated[tuple[GridIdentity, ...], Field(min_length=1)]
    prompts: Annotated[tuple[Annotated[GridPrompt, BeforeValidator(_prompt)], ...], Field(min_length=1)]
    seeds: Annotated[tuple[_Seed, ...], Field(min_length=1), AfterValidator(_each_once)] = (0,)
    settings: _Settings = _Settings()
    name: Text = ""  # the file's where it is left out


@dataclasses.dataclass(frozen=True)
class Cell:
    """One picture of the grid.

    key: 20 hex digits over all that makes the picture: the workflow as filled in, and the content of the photos or
    the identity. Names of people and prompts do not count, nor does what the servers' model files hold.
    api: the prompt to queue. uploads: the server's name of each photo it needs -> the file here.
    """

    identity: GridIdentity
    prompt: GridPrompt
    seed: int
    key: str
    api: dict = dataclasses.field(repr=False, compare=False)
    uploads: dict[str, Path] = dataclasses.field(repr=False, compare=False)

    @property
    def label(self) -> str:
        return f"{self.identity.name} / {self.prompt.name} / {self.seed}"


@dataclasses.dataclass(frozen=True)
class Grid:
    """What a benchmark file says. cells: identity by identity, prompt by prompt, seed by seed."""

    name: str
    identities: tuple[GridIdentity, ...]
    prompts: tuple[GridPrompt, ...]
    seeds: tuple[int, ...]
    cells: tuple[Cell, ...] = dataclasses.field(repr=False)


def read_grid(path: Path) -> Grid:
    """Read and check a benchmark file (.toml or .json).

    Raises InputError that names the field, the value seen and the value wanted; DependencyError where TOML cannot be
    read by this Python.
    """
    path = Path(path)
    file = check(_File, _parse(path), f"{path.name}:", path.absolute().parent)
    prompts = tuple(
        one if one.name else dataclasses.replace(one, name=f"p{number + 1}") for number, one in enumerate(file.prompts)
    )
    _check_different([one.name for one in file.identities], f"{path.name}: identities")
    _check_different([one.name for one in prompts], f"{path.name}: prompts")
    graph = _graph(file.settings, path.name)
    cells = tuple(_cells(graph, file.identities, prompts, file.seeds, path))
    return Grid(file.name or path.stem, file.identities, prompts, file.seeds, cells)


def _parse(path: Path) -> object:
    if path.suffix.lower() != ".json":
        return read_toml(path)
    return read_json(path)


def _check_different(names: list[str], place: str) -> None:
    seen = set()
    for number, name in enumerate(names):
        if name.casefold() in seen:
            raise InputError(f"{place}[{number}].name: {name!r} given, which another one has already")
        seen.add(name.casefold())


def _graph(settings: _Settings, file: str) -> Graph:
    slots, name = settings.inputs, settings.workflow.name
    graph = Graph(read_workflow(settings.workflow), slots, name)
    classes = {node["class_type"] for node in graph.prompt.values()}
    for kind in settings.files:
        if kind not in classes:
            raise InputError(f"{file}: settings.files.{kind}: {name} has no node of this class")
    prompt = fill_in(graph.prompt, settings.files, {})
    sizes = {side: getattr(settings, side) for side in ("width", "height")}
    changes = [(f"settings.{side}", getattr(slots, side), size) for side, size in sizes.items() if size is not None]
    changes += [(f"{file}: settings.values.{slot}", (slot,), value) for slot, value in settings.values.items()]
    for field, places, value in changes:
        graph.check_slots(places, field)
        for slot in places:
            node, _, key = slot.partition(".")
            prompt[node]["inputs"][key] = value
    return Graph(prompt, slots, name)


def _cells(graph: Graph, identities, prompts, seeds, path: Path) -> Iterator[Cell]:
    for number, identity in enumerate(identities):
        uploads = {f"{UPLOADS}/{_digest(one)}{one.suffix.lower()}": one for one in identity.pictures}
        saved = identity.identity
        content = saved and _digest(saved)
        place = f"{path.name}: identities[{number}]"
        for prompt in prompts:
            for seed in seeds:
                api = graph.build(prompt.text, seed, tuple(uploads), saved and saved.name, place)
                made_of = [_KEY_VERSION, api, content]
                text = json.dumps(made_of, sort_keys=True, ensure_ascii=True)
                yield Cell(identity, prompt, seed, hashlib.sha256(text.encode()).hexdigest()[:20], api, uploads)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:20]
