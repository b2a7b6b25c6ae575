"""The inputs and outputs of a node class, as a host's /object_info tells them and its frontend orders them."""

from dataclasses import dataclass

WIDGET_TYPES = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")
UPLOADS = ("image_upload", "video_upload", "animated_image_upload")


@dataclass(frozen=True)
class Input:
    """One input of a node class, as /object_info describes it."""

    name: str
    type: str
    options: dict
    optional: bool
    choices: tuple | None = None

    @property
    def is_widget(self) -> bool:
        return self.type in WIDGET_TYPES and not self.options.get("forceInput")

    @property
    def has_control(self) -> bool:
        """Whether the frontend puts `control after generate` under it."""
        by_name = self.type == "INT" and self.name in ("seed", "noise_seed")
        return bool(self.options.get("control_after_generate", by_name))

    @property
    def default(self):
        """What the widget shows while a link gives the value."""
        return self.options.get("default", {"INT": 0, "FLOAT": 0.0, "BOOLEAN": False}.get(self.type, ""))


def inputs_of(info: dict) -> list[Input]:
    """Inputs of a node class in the frontend's order: required ones first."""
    found = []
    for kind in ("required", "optional"):
        given = info["input"].get(kind, {})
        for name in info.get("input_order", {}).get(kind, list(given)):
            type_, options = given[name][0], (given[name][1:] or [{}])[0]
            choices = type_ if isinstance(type_, list) else options.get("options") if type_ == "COMBO" else None
            type_ = "COMBO" if isinstance(type_, list) else type_
            found.append(Input(name, type_, options, kind == "optional", None if choices is None else tuple(choices)))
    return found


def output_types(info: dict) -> list[str]:
    return ["COMBO" if isinstance(type_, list) else type_ for type_ in info["output"]]


def sockets_of(info: dict) -> list[Input]:
    """Inputs in the order of their sockets: plain ones, then those of the widgets."""
    inputs = inputs_of(info)
    shown = [item for item in inputs if item.is_widget and not item.options.get("socketless")]
    return [item for item in inputs if not item.is_widget] + shown


def uploads(inputs: list[Input]) -> bool:
    return any(item.options.get(key) for item in inputs for key in UPLOADS)
