"""Reads graphs as the host and its frontend do, apart from the code that writes them, and finds what is wrong."""

from faceclip.comfy.workflow import SMALL_FILES, fill_in

WIDGETS = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")
PYTHON_TYPES = {"INT": int, "FLOAT": (int, float), "STRING": str, "BOOLEAN": bool}


def specs(info: dict) -> dict[str, tuple[str, dict, list | None, bool]]:
    """Input name -> (type, options, choices of a combo, required), in the frontend's order."""
    found = {}
    for kind in ("required", "optional"):
        for name, (type_, *rest) in info["input"].get(kind, {}).items():
            options = rest[0] if rest else {}
            choices = type_ if isinstance(type_, list) else options.get("options")
            shown = "COMBO" if isinstance(type_, list) else type_
            found[name] = (shown, options, choices, kind == "required")
    return found


def output_type(info: dict, number: int) -> str:
    type_ = info["output"][number]
    return "COMBO" if isinstance(type_, list) else type_


def fits(given: str, wanted: str) -> bool:
    return "*" in (given, wanted) or bool(set(given.split(",")) & set(wanted.split(",")))


def problems(prompt: dict, object_info: dict) -> list[str]:
    """Everything the host would refuse in an API prompt, as text; empty for a good one."""
    found = []
    for node_id, node in prompt.items():
        info = object_info.get(node["class_type"])
        if info is None:
            found.append(f"{node_id}: no class {node['class_type']}")
            continue
        wanted = specs(info)
        found += [f"{node_id}: no input {name}" for name in node["inputs"].keys() - wanted.keys()]
        for name, spec in wanted.items():
            where = f"{node_id}.{name}"
            if name in node["inputs"]:
                found += [
                    f"{where}: {text}" for text in _value_problems(node["inputs"][name], spec, prompt, object_info)
                ]
            elif spec[3]:
                found.append(f"{where}: required, not given")
    return found


def _value_problems(value, spec: tuple, prompt: dict, object_info: dict) -> list[str]:
    type_, options, choices, _ = spec
    if isinstance(value, list):
        source, number = value
        outputs = object_info.get(prompt.get(source, {}).get("class_type"), {}).get("output", [])
        if number not in range(len(outputs)):
            return [f"linked to {value}, which is nothing"]
        given = output_type(object_info[prompt[source]["class_type"]], number)
        return [] if fits(given, type_) else [f"a {given} goes into a {type_}"]
    if type_ not in WIDGETS:
        return [f"{value!r} where a link to a {type_} belongs"]
    if type_ == "COMBO":
        return [] if choices is None or value in choices else [f"{value!r} is none of {choices[:8]}"]
    if not isinstance(value, PYTHON_TYPES[type_]) or (isinstance(value, bool) and type_ != "BOOLEAN"):
        return [f"{value!r} is no {type_}"]
    low, high = options.get("min", value), options.get("max", value)
    if type_ in ("INT", "FLOAT") and not low <= value <= high:
        return [f"{value} is not in {low} to {high}"]
    return []


def prompt_of(workflow: dict, object_info: dict) -> dict:
    """The API prompt in a UI-form graph: sockets and links where there are any, else the widgets' values in order."""
    links = {row[0]: row for row in workflow["links"]}
    prompt = {}
    for node in workflow["nodes"]:
        if node["type"] in ("Note", "MarkdownNote"):
            continue
        sockets = {socket["name"]: socket["link"] for socket in node["inputs"]}
        values = iter(node["widgets_values"])
        inputs = {}
        for name, (type_, options, *_) in specs(object_info[node["type"]]).items():
            if type_ in WIDGETS and not options.get("forceInput"):
                inputs[name] = next(values)
                if options.get("control_after_generate"):
                    assert next(values) in ("fixed", "randomize", "increment", "decrement")
            if sockets.get(name) is not None:
                _, source, number, *_ = links[sockets[name]]
                inputs[name] = [str(source), number]
        prompt[str(node["id"])] = {"class_type": node["type"], "inputs": inputs}
    return prompt


def link_problems(workflow: dict) -> list[str]:
    """Where links, sockets and their types in a UI-form graph contradict one another."""
    nodes = {node["id"]: node for node in workflow["nodes"]}
    found, used = [], set()
    for number, source, output, target, slot, type_ in workflow["links"]:
        socket, origin = nodes[target]["inputs"][slot], nodes[source]["outputs"][output]
        used.add((target, slot))
        if socket["link"] != number or number not in (origin["links"] or []):
            found.append(f"link {number} is not known at both ends")
        if type_ != origin["type"] or not fits(type_, socket["type"]):
            found.append(f"link {number} of type {type_} joins {origin['type']} and {socket['type']}")
    for node_id, node in nodes.items():
        for slot, socket in enumerate(node["inputs"]):
            if socket["link"] is not None and (node_id, slot) not in used:
                found.append(f"{socket['name']} of node {node_id} names link {socket['link']}, which is none")
    return found


def renumbered(prompt: dict) -> dict:
    """A prompt with 1, 2, ... for ids, in its own order, and without titles: what two forms of a graph share."""
    numbers = {node_id: str(number) for number, node_id in enumerate(prompt, 1)}

    def follow(value):
        return [numbers[value[0]], value[1]] if isinstance(value, list) else value

    return {
        numbers[node_id]: {
            "class_type": node["class_type"],
            "inputs": {name: follow(value) for name, value in node["inputs"].items()},
        }
        for node_id, node in prompt.items()
    }


def with_small_model(prompt: dict, **settings: int) -> dict:
    """The prompt with files that the test server has."""

    return fill_in(prompt, {**SMALL_FILES, "LoadImage": "astronaut.png"}, settings)


def detected(image: str = "photo", provider: str = "auto", **inputs) -> dict:
    """YuNet and Align Face on the picture of the node `image`; inputs: of Align Face, other than an example's."""
    usual = {"input_faces_order": "large-small", "input_faces_index": 0, "min_score": 0.6, "margin": 1.0}
    links = {"image": [image, 0], "detector": ["detector", 0]}
    return {
        "detector": {"class_type": "FaceCLIPDetectorLoader", "inputs": {"detector": "YuNet", "provider": provider}},
        "align": {"class_type": "FaceCLIPAlignFace", "inputs": links | usual | inputs},
    }


def node(class_type: str, **inputs) -> dict:
    """One node of an API prompt."""
    return {"class_type": class_type, "inputs": inputs}
