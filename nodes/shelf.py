"""Where a node stands in the menu and by which words it is found, as far as the running host knows such things.

In an older host an unknown keyword would drop the whole pack, so newer ones are passed only where they are known.
"""

import dataclasses
import inspect
from typing import Any

from comfy_api.latest import io

CATEGORY = "FaceCLIP"
_SCHEMA_FIELDS = {field.name for field in dataclasses.fields(io.Schema)}
_INPUT_FIELDS = set(inspect.signature(io.Combo.Input).parameters)

# What people know who come from other packs that keep a face.
OTHER_PACKS = ("PuLID", "InstantID", "IPAdapter FaceID", "PhotoMaker")
# For inputs that few people change: newer hosts fold them away.
SELDOM = {"advanced": True} if "advanced" in _INPUT_FIELDS else {}


def shelf(room: str, *words: str) -> dict[str, Any]:
    """Keywords of io.Schema: the sub-category, and words that find the node although they are not in its name."""
    found_by = {"search_aliases": list(words)} if "search_aliases" in _SCHEMA_FIELDS else {}
    return {"category": f"{CATEGORY}/{room}", **found_by}
