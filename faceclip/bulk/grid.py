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

    [[cases]]                                        # all of it once with each of these settings over those above
    name = "strong"
    values = {"positive.width" = 864}

JSON with the same fields does as well. Paths are relative to the file.
"""

import dataclasses
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
from .cell import UPLOADS, Cell, key_of
from .graph import Graph, Slots, read_workflow
from .photos import digest

PORTRAIT = example("portrait")
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


Side = Annotated[Whole, _between(*_SIDES)]
Seed = Annotated[Whole, _between(0, _MAX_SEED)]


@table(frozen=True, config=TABLE)
class Settings:
    """What is the same for all pictures of a file, or of one of its cases."""

    workflow: LocalFile | None = None  # the pack's portrait workflow where it is left out
    width: Side | None = None
    height: Side | None = None
    files: dict[str, Text] = dataclasses.field(default_factory=dict)
    values: dict[str, Any] = dataclasses.field(default_factory=dict)
    inputs: Slots | None = None


@table(frozen=True, config=TABLE)
class Case(Settings):
    """Settings over those of the file. name: letters and the like, as files are named after it."""

    name: Name = ""  # c1, c2 and so on by its place where it is left out


@table(frozen=True, config=TABLE)
class _File:
    identities: Annotated[tuple[GridIdentity, ...], Field(min_length=1)]
    prompts: Annotated[tuple[Annotated[GridPrompt, BeforeValidator(_prompt)], ...], Field(min_length=1)]
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1), AfterValidator(_each_once)] = (0,)
    settings: Settings = Settings()
    cases: tuple[Case, ...] = ()
    name: Text = ""  # the file's where it is left out


@dataclasses.dataclass(frozen=True)
class GridCell(Cell):
    """One picture of the grid. case: the name of its case, where there are cases."""

    identity: GridIdentity
    prompt: GridPrompt
    case: str = ""

    @property
    def label(self) -> str:
        parts = (self.identity.name, self.prompt.name, self.case, str(self.seed))
        return " / ".join(part for part in parts if part)


@dataclasses.dataclass(frozen=True)
class Grid:
    """What a benchmark file says. cells: identity by identity, prompt by prompt, case by case, seed by seed.

    graphs: the workflow of each case, "" where there are no cases.
    """

    name: str
    identities: tuple[GridIdentity, ...]
    prompts: tuple[GridPrompt, ...]
    seeds: tuple[int, ...]
    cells: tuple[GridCell, ...] = dataclasses.field(repr=False)
    graphs: dict[str, Graph] = dataclasses.field(repr=False, compare=False)


def read_grid(path: Path) -> Grid:
    """Read and check a benchmark file (.toml or .json).

    Raises InputError that names the field, the value seen and the value wanted; DependencyError where TOML cannot be
    read by this Python.
    """
    path = Path(path)
    file = check(_File, parse(path), f"{path.name}:", path.absolute().parent)
    prompts, cases = _named(file.prompts, "p"), _named(file.cases, "c")
    for field, entries in (("identities", file.identities), ("prompts", prompts), ("cases", cases)):
        _check_different([one.name for one in entries], f"{path.name}: {field}")
    graphs = {"": graph_of(file.settings, path.name, "settings")}
    if cases:
        graphs = {
            case.name: graph_of(over(file.settings, case), path.name, f"cases[{number}]")
            for number, case in enumerate(cases)
        }
    cells = tuple(_cells(graphs, file.identities, prompts, file.seeds, path))
    return Grid(file.name or path.stem, file.identities, prompts, file.seeds, cells, graphs)


def parse(path: Path) -> object:
    """What a file of jobs holds, by its ending. Raises InputError, DependencyError."""
    if path.suffix.lower() != ".json":
        return read_toml(path)
    return read_json(path)


def over(base: Settings, more: Settings) -> Settings:
    """The settings of `more`, and of `base` where it says nothing."""
    return Settings(
        workflow=more.workflow or base.workflow,
        width=more.width or base.width,
        height=more.height or base.height,
        files={**base.files, **more.files},
        values={**base.values, **more.values},
        inputs=more.inputs or base.inputs,
    )


def graph_of(settings: Settings, file: str, field: str) -> Graph:
    """The workflow with the settings put in. file, field: where they stand, for messages. Raises InputError."""
    workflow, slots = settings.workflow or PORTRAIT, settings.inputs or Slots()
    name = workflow.name
    graph = Graph(read_workflow(workflow), slots, name, field)
    classes = {node["class_type"] for node in graph.prompt.values()}
    for kind in settings.files:
        if kind not in classes:
            raise InputError(f"{file}: {field}.files.{kind}: {name} has no node of this class")
    prompt = fill_in(graph.prompt, settings.files, {})
    sizes = {side: getattr(settings, side) for side in ("width", "height")}
    changes = [(f"{field}.{side}", getattr(slots, side), size) for side, size in sizes.items() if size is not None]
    changes += [(f"{file}: {field}.values.{slot}", (slot,), value) for slot, value in settings.values.items()]
    for place, places, value in changes:
        graph.check_slots(places, place)
        for slot in places:
            node, _, key = slot.partition(".")
            prompt[node]["inputs"][key] = value
    return Graph(prompt, slots, name, field)


def _named(entries: tuple, letter: str) -> tuple:
    return tuple(
        one if one.name else dataclasses.replace(one, name=f"{letter}{number + 1}")
        for number, one in enumerate(entries)
    )


def _check_different(names: list[str], place: str) -> None:
    seen = set()
    for number, name in enumerate(names):
        if name.casefold() in seen:
            raise InputError(f"{place}[{number}].name: {name!r} given, which another one has already")
        seen.add(name.casefold())


def _cells(graphs: dict[str, Graph], identities, prompts, seeds, path: Path) -> Iterator[GridCell]:
    for number, identity in enumerate(identities):
        uploads = {f"{UPLOADS}/{digest(one)}{one.suffix.lower()}": one for one in identity.pictures}
        saved = identity.identity
        content = saved and digest(saved)
        place = f"{path.name}: identities[{number}]"
        for prompt in prompts:
            for case, graph in graphs.items():
                for seed in seeds:
                    api = graph.build(prompt.text, seed, tuple(uploads), saved and saved.name, place)
                    yield GridCell(seed, key_of(api, content), api, uploads, identity, prompt, case)
