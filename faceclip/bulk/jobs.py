"""The file that says what to make: a grid, or a table of rows, or a few settings and the name of such a table."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Protocol

from pydantic import BeforeValidator, ValidationInfo
from pydantic.dataclasses import dataclass as table

from ..errors import FaceCLIPError, InputError
from ..files import remote
from ..files.table import TABLE, Text, check
from . import rows
from .cell import Planned
from .grid import GridCell, Settings, parse, read_grid
from .names import Taken, check_template, fill
from .problems import Problems

TEMPLATES = {False: "{identity}/{prompt}_{seed}", True: "{case}/{identity}/{prompt}_{seed}"}  # a grid's; with cases
# Class of node -> its input that names a file, and the host's folder of such files.
MODEL_FILES = {
    "FaceCLIPLoader": ("file", "faceclip"),
    "FaceCLIPUNETLoader": ("file", "diffusion_models"),
    "FaceCLIPLoadIdentity": ("file", "faceclip_identities"),
    "UNETLoader": ("unet_name", "diffusion_models"),
    "VAELoader": ("vae_name", "vae"),
    "CheckpointLoaderSimple": ("ckpt_name", "checkpoints"),
    "CLIPLoader": ("clip_name", "text_encoders"),
    "ControlNetLoader": ("control_net_name", "controlnet"),
    "LoraLoader": ("lora_name", "loras"),
    "LoraLoaderModelOnly": ("lora_name", "loras"),
}


class _Source(Protocol):
    """Where pictures come from; `planned` can be gone through again and again."""

    name: str

    def planned(self, problem: Problems) -> Iterator[Planned]: ...


@dataclasses.dataclass(frozen=True)
class Plan:
    """What all jobs come to. files: the model files they need, as (the host's folder, name)."""

    total: int
    rows: int
    repeated: int
    files: frozenset[tuple[str, str]]


class Jobs:
    """What is to be made."""

    def __init__(self, source: _Source):
        self._source, self.name = source, source.name

    def check(self) -> Plan:
        """Goes through all of it. Raises InputError with the first 20 things that are wrong, and their number."""
        problems, files = Problems(), set[tuple[str, str]]()
        total, numbers, last, repeated = 0, 0, None, [0]
        for one in self._different(problems, repeated):
            total += 1
            numbers, last = numbers + (one.group != last), one.group
            files.update(_files(one.api))
        problems.check()
        if not total:
            raise InputError(f"{self.name} has no rows: nothing is to be made.")
        return Plan(total, numbers, repeated[0], frozenset(files))

    def planned(self) -> Iterator[Planned]:
        """Each picture once, in order. Raises InputError where a file changed since it was checked, for the worse."""
        problems = Problems()
        for one in self._different(problems, [0]):
            problems.check()
            yield one
        problems.check()

    def _different(self, problems: Problems, repeated: list[int]) -> Iterator[Planned]:
        taken = Taken()
        for one in self._source.planned(problems):
            try:
                if taken.take(one.name, one.key):
                    yield one
                else:
                    repeated[0] += 1
            except InputError as error:
                problems(f"{one.place}: {error}")


def read_jobs(path: str | Path, template: str | None = None, judge: str | None = None) -> Jobs:
    """Jobs from a file, or its address where it is a table. template: names of the pictures. judge: who tells likeness.

    Raises InputError where the file as a whole cannot be used; what is in it is looked at by `Jobs.check`.
    """
    path = remote.place(path)
    if template is not None:
        check_template(template)
    if remote.suffix(path) in rows.SUFFIXES:
        return Jobs(rows.Rows(path, Settings(), template or rows.TEMPLATE, judge))
    if not isinstance(path, Path):
        raise InputError(f"{path} is an address: jobs from there are tables ({', '.join(rows.SUFFIXES)}).")
    found = parse(path)
    if isinstance(found, dict) and "rows" in found:
        named = check(_TableFile, found, f"{path.name}:", path.absolute().parent)
        return Jobs(rows.Rows(named.rows, named.settings, template or rows.TEMPLATE, judge))
    return Jobs(_GridSource(path, template, judge))


def _table_place(value: object, info: ValidationInfo) -> object:
    base = (info.context or {}).get("base", Path())
    if not isinstance(value, str) or remote.suffix(value) not in rows.SUFFIXES:
        raise ValueError(f"{value!r} given, a table ({', '.join(rows.SUFFIXES)}) wanted")
    return remote.place(value, base)


@table(frozen=True, config=TABLE)
class _TableFile:
    rows: Annotated[Path | str, BeforeValidator(_table_place)]
    settings: Settings = Settings()
    name: Text = ""


class _GridSource:
    """A grid's cells as pictures of `make`: a row is an identity with a prompt, its seeds are those of the grid."""

    def __init__(self, path: Path, template: str | None, judge: str | None):
        self._path, self._judge = path, judge
        self._grid = read_grid(path)
        self._template = template or TEMPLATES["" not in self._grid.graphs]
        self.name = self._grid.name

    def planned(self, problem: Problems) -> Iterator[Planned]:
        many = len(self._grid.seeds)
        for number, cell in enumerate(self._grid.cells):
            place = f"{self._path.name}: {cell.label}"
            try:
                api = self._with_likeness(cell, place)
            except FaceCLIPError as error:
                problem(str(error))
                continue
            yield self._planned(cell, api, place, number // many, many)

    def _planned(self, cell: GridCell, api: dict, place: str, group: int, many: int) -> Planned:
        identity = cell.identity
        files = (identity.identity,) if identity.identity else identity.pictures
        facts = {
            "prompt": cell.prompt.text,
            "negative": None,
            "identity": {"name": identity.name, "from": [one.name for one in files if one]},
            "case": cell.case,
            "jobs": self._path.name,
            "seed": cell.seed,
        }
        values = {"name": cell.key, "row": group + 1, "seed": cell.seed, "identity": identity.name}
        values |= {"prompt": cell.prompt.name, "case": cell.case, "key": cell.key}
        name = fill(self._template, values)
        return Planned(cell.seed, cell.key, api, cell.uploads, name, place, group, many, facts)

    def _with_likeness(self, cell: GridCell, place: str) -> dict:
        return self._grid.graphs[cell.case].with_likeness(cell.api, self._judge, place) if self._judge else cell.api


def _files(api: dict) -> Iterator[tuple[str, str]]:
    for node in api.values():
        name, folder = MODEL_FILES.get(node["class_type"], ("", ""))
        if isinstance(file := node["inputs"].get(name), str):
            yield folder, file
