"""Links of our types have colours of their own, in both renderers of two front ends."""

import re

from test_browser import workflow_of

from faceclip.comfy.environment import PACK_ROOT

TYPES = re.findall(r'Custom\("(\w+)"\)', (PACK_ROOT / "nodes" / "types.py").read_text("utf-8"))


def test_each_of_our_types_has_a_colour(view):
    view.open(workflow_of("face_detail"), "colours")
    for kind in TYPES:
        link, socket = view.run(
            "return [LGraphCanvas.link_type_colors[a[0]],"
            "getComputedStyle(document.documentElement).getPropertyValue(`--color-datatype-${a[0]}`)]",
            kind,
        )
        assert link and link == socket.strip(), kind
