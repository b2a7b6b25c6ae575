"""Pictures that were made elsewhere, taken for a grid's."""

from pathlib import Path

from ..bulk.grid import Grid
from ..bulk.store import SUFFIXES, Store
from ..errors import InputError


def take_ready(grid: Grid, folder: Path, store: Store) -> dict[str, str]:
    """Copy a folder of ready pictures into the store; returns key -> what is wrong, for those that are missing.

    A picture is folder/KEY.png or folder/IDENTITY/PROMPT/SEED.png, or .jpg, .jpeg, .webp.
    """
    if not folder.is_dir():
        raise InputError(f"The folder of ready pictures, {folder}, is not there.")
    problems = {}
    for cell in grid.cells:
        places = [folder / cell.key, folder / cell.identity.name / cell.prompt.name / str(cell.seed)]
        files = [place.with_name(place.name + suffix) for place in places for suffix in SUFFIXES]
        found = next((file for file in files if file.is_file()), None)
        if found is None:
            problems[cell.key] = f"no picture {cell.key} or {places[1].relative_to(folder).as_posix()} in the folder"
            continue
        try:
            store.put(cell.key, found.read_bytes())
        except InputError as error:
            problems[cell.key] = f"{found}: {error}"
    if len(problems) == len({cell.key for cell in grid.cells}):
        raise InputError(
            f"{folder} holds none of the grid's pictures. They are looked for by their keys, such as "
            f"{grid.cells[0].key}.png, and by identity, prompt and seed, such as {grid.cells[0].identity.name}/"
            f"{grid.cells[0].prompt.name}/{grid.cells[0].seed}.png."
        )
    return problems
