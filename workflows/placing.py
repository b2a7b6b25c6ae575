"""Where the nodes of an example stand: their sizes, and the columns and groups of a layout."""

from dataclasses import dataclass

from .node_classes import inputs_of, uploads

# Nodes that show a picture or a line of text once they have run; /object_info does not tell.
SHOW_PICTURES = (
    "SaveImage",
    "PreviewImage",
    "FaceCLIPAlignFace",
    "FaceCLIPLoadIdentity",
    "FaceCLIPSimilarity",
    "FaceCLIPPickBest",
    "FaceCLIPLikenessChart",
    "FaceCLIPCropFace",
)
SHOW_TEXT = (
    "FaceCLIPDetectorLoader",
    "FaceCLIPAlignFace",
    "FaceCLIPEncodeIdentity",
    "FaceCLIPEncodePrompt",
    "FaceCLIPEncodeText",
    "FaceCLIPAsClip",
    "FaceCLIPSampling",
    "FaceCLIPAddPerson",
    "FaceCLIPSaveIdentity",
    "FaceCLIPPickBest",
    "FaceCLIPSimilarity",
    "FaceCLIPLikenessChart",
    "FaceCLIPCropFace",
    "FaceCLIPDoctor",
)
# What our own JavaScript shows in a node from the start, in px.
ELEMENTS = {"FaceCLIPAddPerson": 200, "FaceCLIPLoadIdentity": 230, "FaceCLIPAlignFace": 34}
# What the frontend draws, in px of the canvas.
WIDTH, TITLE, SLOT, WIDGET, EDGE, WIDGETS_EDGE = 320, 30, 20, 24, 6, 8
TEXT_HEIGHT, PICTURE_HEIGHT, REPORT_HEIGHT = 120, 240, 60
# Nodes 2.0 draws a node taller by the pack's name, and by a bar where a file is missing, so the gap below one is wide.
GAP, COLUMN_GAP, GROUP_EDGE, GROUP_TITLE, GROUP_GAP = 76, 50, 20, 50, 40


class WorkflowError(Exception):
    """A prompt or a layout that does not fit together or does not fit the host; says which node and what to do."""


@dataclass
class Box:
    """A rectangle of the canvas, the title bar of a node not counted."""

    x: float = 0
    y: float = 0
    width: float = 0
    height: float = 0


def size_of(info: dict) -> tuple[int, int]:
    """Width and height of a node, in px, with room for what it shows once it has run."""
    height = least_height(info)
    height += PICTURE_HEIGHT if uploads(inputs_of(info)) or info["name"] in SHOW_PICTURES else 0
    return WIDTH, height + (REPORT_HEIGHT if info["name"] in SHOW_TEXT else 0)


def least_height(info: dict) -> int:
    """What the frontend needs for a node's sockets and widgets, in px."""
    inputs = inputs_of(info)
    widgets = [item for item in inputs if item.is_widget]
    texts = sum(bool(item.options.get("multiline")) for item in widgets)
    rows = len(widgets) - texts + sum(item.has_control for item in widgets) + uploads(inputs)
    height = EDGE + SLOT * max(len(inputs) - len(widgets), len(info["output"]))
    height += ELEMENTS.get(info["name"], 0)
    return height + rows * WIDGET + texts * TEXT_HEIGHT + (WIDGETS_EDGE if widgets else 0)


def arrange(prompt: dict, infos: dict, layout: dict) -> tuple[dict[str, Box], list[dict]]:
    """Boxes of all nodes and notes, and the groups around them."""
    placed = [item for row in layout["rows"] for group in row for column in group["columns"] for item in column]
    wanted = [*prompt, *layout.get("notes", {})]
    if sorted(placed) != sorted(wanted):
        wrong = {item for item in {*placed, *wanted} if placed.count(item) != wanted.count(item)}
        raise WorkflowError(f"The layout must place each node and note once; look at {', '.join(sorted(wrong))}.")
    sizes = {item: size_of(infos[item]) for item in prompt} | dict.fromkeys(layout.get("notes", {}), (WIDTH, 200))
    for item, size in layout.get("sizes", {}).items():
        if item not in sizes:
            raise WorkflowError(f"The layout gives a size to {item!r}, which is neither node nor note.")
        sizes[item] = (size[0], max(size[1], least_height(infos[item]) if item in infos else 0))
    boxes, groups, top = {}, [], 0
    for row in layout["rows"]:
        left, bottom, first = 0, top, len(groups)
        for group in row:
            start = left
            for column in group["columns"]:
                x = left + GROUP_EDGE
                y = top + GROUP_TITLE + TITLE
                width = max(sizes[item][0] for item in column)
                for item in column:
                    boxes[item] = Box(x, y, width, sizes[item][1])
                    y += sizes[item][1] + GAP + TITLE
                bottom = max(bottom, y - GAP - TITLE + GROUP_EDGE)
                left = x + width + COLUMN_GAP - GROUP_EDGE
            right = left - COLUMN_GAP + 2 * GROUP_EDGE
            groups.append({"title": group["title"], "bounding": [start, top, right - start, 0]})
            groups[-1] |= {"color": group["color"], "font_size": 24, "flags": {}}
            left = right + GROUP_GAP
        for group in groups[first:]:
            group["bounding"][3] = bottom - top
        top = bottom + GROUP_GAP
    return boxes, [{"id": number, **group} for number, group in enumerate(groups, 1)]
