"""Who may import whom, where pyproject's contracts do not reach (test_style.py runs those), and rooms that are maps."""

import ast
import re
import shutil
from pathlib import Path

import pytest

from faceclip.comfy.environment import PACK_ROOT

LIBRARY = PACK_ROOT / "faceclip"
ROOMS = sorted(path.parent for path in LIBRARY.rglob("__init__.py") if path.parent != LIBRARY)
# The host's modules beside those that every pack may use, comfy_api and comfyui_version.
PRIVATE = {"comfy", "execution", "folder_paths", "latent_preview", "node_helpers", "nodes", "server"}


@pytest.fixture(scope="module")
def grimp():
    return pytest.importorskip("grimp", reason="import-linter is not installed; `python -m tests` brings it")


@pytest.fixture(scope="module")
def graph(grimp, tmp_path_factory):
    """All imports of the pack, under one name as in a host: `pack.nodes.faces` imports `pack.faceclip.faces`."""
    folder = tmp_path_factory.mktemp("imports")
    for name in ("faceclip", "nodes"):
        shutil.copytree(PACK_ROOT / name, folder / "pack" / name, ignore=_all_but_python)
    (folder / "pack" / "__init__.py").touch()
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        return grimp.build_graph("pack", include_external_packages=True, cache_dir=None)


def _all_but_python(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if not (name.endswith(".py") or Path(folder, name).is_dir())]


def test_no_circle_between_nodes(graph):
    children = graph.find_children("pack.nodes")
    assert {"pack.nodes.faces", "pack.nodes.host"} <= children
    assert not graph.nominate_cycle_breakers("pack.nodes")


def test_nodes_stand_above_the_library_and_never_train_or_measure(graph):
    assert graph.find_shortest_chains("pack.nodes", "pack.faceclip.faces"), "their imports are not seen"
    for closed in ("train", "eval", "bulk", "comfy"):
        chains = graph.find_shortest_chains("pack.nodes", f"pack.faceclip.{closed}")
        assert not chains, chains
    assert not graph.find_shortest_chains("pack.faceclip", "pack.nodes")


def test_only_the_host_modules_know_the_hosts_private_ways(graph):
    for name in graph.find_children("pack.nodes"):
        if not name.startswith("pack.nodes.host"):
            outside = {
                other for other in graph.find_modules_directly_imported_by(name) if not other.startswith("pack.")
            }
            assert not outside & PRIVATE, name


def test_few_files_stand_at_the_root():
    files = [path.name for path in LIBRARY.iterdir() if path.is_file()]
    assert len(files) <= 8, files


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.relative_to(LIBRARY).as_posix())
def test_a_rooms_init_is_a_map_of_it(room):
    """Nothing but a few lines that name each module and folder, and the door to the one thing that is for programs."""
    tree = ast.parse((room / "__init__.py").read_text("utf-8"))
    text = ast.get_docstring(tree)
    assert text and len(tree.body) == 1 + (room.name == "comfy") and len(text.splitlines()) <= 20
    inside = {path.stem for path in room.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    unnamed = {name for name in inside if not name.startswith("__") and not re.search(rf"\b{name}\b", text)}
    assert not unnamed
