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

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path

from ..comfy.workflow import example, fill_in
from ..errors import InputError
from ..files.toml import read_toml
from .fields import Fields
from .graph import Graph, Slots, read_workflow

PORTRAIT = example("portrait")
UPLOADS = "faceclip_eval"  # folder below the servers' input folder
_KEY_VERSION = 1  # raise it when the same settings come to mean another picture
_MAX_SEED = 2**64 - 1
_SIDES = (16, 16384)


@dataclass(frozen=True)
class GridIdentity:
    """A person: pictures (photos), or identity (a file made by Save Identity); the other is empty."""

    name: str
    pictures: tuple[Path, ...] = ()
    identity: Path | None = None


@dataclass(frozen=True)
class GridPrompt:
    name: str
    text: str


@dataclass(frozen=True)
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
    api: dict = field(repr=False, compare=False)
    uploads: dict[str, Path] = field(repr=False, compare=False)

    @property
    def label(self) -> str:
        return f"{self.identity.name} / {self.prompt.name} / {self.seed}"


@dataclass(frozen=True)
class Grid:
    """What a benchmark file says. cells: identity by identity, prompt by prompt, seed by seed."""

    name: str
    identities: tuple[GridIdentity, ...]
    prompts: tuple[GridPrompt, ...]
    seeds: tuple[int, ...]
    cells: tuple[Cell, ...] = field(repr=False)


def read_grid(path: Path) -> Grid:
    """Read and check a benchmark file (.toml or .json).

    Raises InputError that names the field, the value seen and the value wanted; DependencyError where TOML cannot be
    read by this Python.
    """
    path = Path(path)
    top = Fields(_parse(path), path, "", ("name", "identities", "prompts", "seeds", "settings"))
    identities = tuple(_identity(top, number, item) for number, item in enumerate(top.items("identities")))
    prompts = tuple(_prompt(top, number, item) for number, item in enumerate(top.items("prompts")))
    seeds = top.numbers("seeds", 0, _MAX_SEED) if "seeds" in top else (0,)
    _check_different(top, "identities", [one.name for one in identities])
    _check_different(top, "prompts", [one.name for one in prompts])
    graph = _graph(Fields(top.table.get("settings", {}), path, "settings", _SETTINGS))
    cells = tuple(_cells(graph, identities, prompts, seeds, path))
    return Grid(top.text("name", path.stem), identities, prompts, seeds, cells)


def _parse(path: Path) -> object:
    if path.suffix.lower() != ".json":
        return read_toml(path)
    try:
        return json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
    except ValueError as error:
        raise InputError(f"{path}: not a JSON file ({error})") from error


def _identity(top: Fields, number: int, item: object) -> GridIdentity:
    table = Fields(item, top.file, f"identities[{number}]", ("name", "pictures", "identity"))
    if ("pictures" in table) == ("identity" in table):
        raise InputError(f"{table.name('pictures')} or .identity: one of the two is wanted.")
    if "pictures" in table:
        pictures = table.paths("pictures")
        return GridIdentity(_name(table, pictures[0].stem), pictures)
    saved = table.path("identity")
    return GridIdentity(_name(table, saved.stem), (), saved)


def _prompt(top: Fields, number: int, item: object) -> GridPrompt:
    place, default = f"prompts[{number}]", f"p{number + 1}"
    if isinstance(item, dict):
        table = Fields(item, top.file, place, ("name", "text"))
        return GridPrompt(_name(table, default), table.text("text"))
    if not isinstance(item, str) or not item.strip():
        raise InputError(f"{top.name(place)} is {item!r}, wanted a text or a table with name and text.")
    return GridPrompt(default, item)


def _name(table: Fields, default: str) -> str:
    from ..identity.file import check_name  # imports torch, which whoever only makes pictures need not have

    name = table.text("name", default)
    try:
        return check_name(name)
    except InputError:
        wanted = "1 to 100 letters, digits, spaces or -_+().' , as files are named after it"
        raise table.wrong("name", wanted, name) from None


def _check_different(top: Fields, field_name: str, names: list[str]) -> None:
    seen = set()
    for number, name in enumerate(names):
        if name.casefold() in seen:
            raise InputError(f"{top.name(f'{field_name}[{number}].name')} is {name!r}, which another one has already.")
        seen.add(name.casefold())


_SETTINGS = ("workflow", "width", "height", "files", "values", "inputs")


def _graph(settings: Fields) -> Graph:
    path = settings.path("workflow", PORTRAIT)
    inputs = Fields(settings.table.get("inputs", {}), settings.file, "settings.inputs", [f.name for f in fields(Slots)])
    given = {name: inputs.texts(name) for name in inputs.table if name != "output"}
    slots = Slots(**given, **({"output": inputs.text("output")} if "output" in inputs else {}))
    files = Fields(settings.table.get("files", {}), settings.file, "settings.files")
    graph = Graph(read_workflow(path), slots, path.name)
    for name in files.table:
        files.text(name)
        if name not in {node["class_type"] for node in graph.prompt.values()}:
            raise InputError(f"{files.name(name)}: {path.name} has no node of this class.")
    prompt = fill_in(graph.prompt, files.table, {})
    values = Fields(settings.table.get("values", {}), settings.file, "settings.values")
    sizes = {name: settings.number(name, *_SIDES) for name in ("width", "height")}
    changes = [(f"settings.{name}", getattr(slots, name), size) for name, size in sizes.items() if size is not None]
    changes += [(values.name(slot), (slot,), value) for slot, value in values.table.items()]
    for name, places, value in changes:
        graph.check_slots(places, name)
        for slot in places:
            node, _, key = slot.partition(".")
            prompt[node]["inputs"][key] = value
    return Graph(prompt, slots, path.name)


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
