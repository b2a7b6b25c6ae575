"""Workflows saved yesterday run tomorrow: nodes, inputs and outputs stay where tests/data/nodes.json records them.

FACECLIP_RECORD_NODES=1 adds what is new to the record, at a release; until then it may still change.
"""

import json
import os
import warnings
from pathlib import Path

import pytest

from faceclip.comfy.server import PACK_NAME

RECORD = Path(__file__).parents[1] / "data" / "nodes.json"


@pytest.fixture(scope="module")
def nodes(client) -> dict:
    """What the host tells of our nodes, as far as a saved workflow relies on it."""
    ours = {key: info for key, info in client.object_info().items() if PACK_NAME in info["python_module"]}
    return {key: contract(info) for key, info in sorted(ours.items())}


def contract(info: dict) -> dict:
    """Inputs in the order in which a saved workflow lists their values, as [name, type]; required ones; outputs."""
    kinds = [kind for kind in ("required", "optional") if kind in info["input"]]
    inputs = [[name, type_name(spec[0])] for kind in kinds for name, spec in info["input"][kind].items()]
    outputs = [list(pair) for pair in zip(info["output_name"], info["output"], strict=True)]
    return {"inputs": inputs, "required": list(info["input"].get("required", {})), "outputs": outputs}


def type_name(kind) -> str:
    return kind if isinstance(kind, str) else "COMBO"  # older hosts give the choices in the place of the type


def breaks(old: dict, new: dict) -> list[str]:
    """What a workflow that was saved with `old` would stumble over."""
    found = [f"{part} {name} was {kind}" for part in ("inputs", "outputs") for name, kind in missing(old, new, part)]
    added = [name for name in new["required"] if name not in old["required"]]
    return found + [f"input {name} is required now" for name in added]


def missing(old: dict, new: dict, part: str) -> list[list[str]]:
    """Entries that are gone, of another type, or at another place: what is new stands behind all of them."""
    return [entry for place, entry in enumerate(old[part]) if new[part][place : place + 1] != [entry]]


def test_the_nodes_fit_the_record(nodes):
    recorded = json.loads(RECORD.read_text("utf-8"))
    assert not set(recorded) - set(nodes), "nodes are gone; ids are permanent"
    broken = {key: found for key, old in recorded.items() if (found := breaks(old, nodes[key]))}
    assert not broken
    if nodes != recorded:
        if os.environ.get("FACECLIP_RECORD_NODES"):
            lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in nodes.items()]
            RECORD.write_text("{\n" + ",\n".join(lines) + "\n}\n", "utf-8")
        else:
            new = [key for key, value in nodes.items() if recorded.get(key) != value]
            warnings.warn(f"Not recorded yet: {', '.join(new)}", stacklevel=1)


OLD = {"inputs": [["image", "IMAGE"], ["count", "INT"]], "required": ["image"], "outputs": [["IMAGE", "IMAGE"]]}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"inputs": [*OLD["inputs"], ["more", "FLOAT"]]}, []),
        ({"outputs": [*OLD["outputs"], ["MASK", "MASK"]]}, []),
        ({"inputs": OLD["inputs"][:1]}, ["inputs count was INT"]),
        ({"inputs": [["image", "IMAGE"], ["more", "INT"], ["count", "INT"]]}, ["inputs count was INT"]),
        ({"inputs": [["image", "MASK"], ["count", "INT"]]}, ["inputs image was IMAGE"]),
        ({"required": ["image", "count"]}, ["input count is required now"]),
    ],
)
def test_a_change_is_judged_as_a_saved_workflow_would_feel_it(change, told):
    assert breaks(OLD, {**OLD, **change}) == told
