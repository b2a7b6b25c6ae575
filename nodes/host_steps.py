"""Which steps of the samplers behind a prompt its identity acts in, as far as the graph's plain numbers tell.

A range that is too short to hold a step makes a picture of nobody, and no node that runs before the sampler is told the
number of steps. The graph does tell it, wherever a sampler or scheduler node has it typed in.
"""

import logging
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from ..faceclip.sampling import flux_schedule, recipes
from .targets import Target

log = logging.getLogger(__name__)

Graph = dict[str, dict[str, Any]]  # an API prompt: node id -> {class_type, inputs}
TIMESTEP_RANGE = "ConditioningSetTimestepRange"
# Our own nodes that make SIGMAS, of width, height, steps and recipe.
OURS: dict[str, Callable[[int, int, int, str], torch.Tensor]] = {
    "FaceCLIPSampling": lambda width, height, steps, recipe: recipes.sigmas_of(recipe, steps),
    "FaceT5Sampling": lambda width, height, steps, recipe: flux_schedule.published_sigmas(width, height, steps),
}
# Nodes of the host that make SIGMAS of numbers alone (and of the model's noise schedule): what they would give is asked
# of themselves.
_SCHEDULERS = {
    "AlignYourStepsScheduler",
    "BasicScheduler",
    "BetaSamplingScheduler",
    "ExponentialScheduler",
    "FlipSigmas",
    "KarrasScheduler",
    "LaplaceScheduler",
    "ManualSigmas",
    "PolyexponentialScheduler",
    "SDTurboScheduler",
    "SetFirstSigma",
    "SplitSigmas",
    "SplitSigmasDenoise",
    "VPScheduler",
}
_NEAR = 1e-5  # of the sampling: what rounding may shift a step by


@dataclass(frozen=True)
class Sampler:
    """A sampler that a conditioning reaches.

    title: for people. steps: where its steps lie, as parts of the sampling, None where the graph does not tell. ranged:
    start and end that a Set Timestep Range on the way there puts in the place of the conditioning's own.
    """

    title: str
    steps: list[float] | None
    ranged: tuple[float, float] | None


def samplers_behind(graph: Graph, node_id: str, target: Target) -> list[Sampler]:
    """The samplers that what this node makes reaches, through conditioning nodes and guiders."""
    found, seen = [], {node_id}
    waiting: deque[tuple[str, tuple[float, float] | None]] = deque([(node_id, None)])
    while waiting:
        source, ranged = waiting.popleft()
        for consumer, node in graph.items():
            inputs = node.get("inputs", {})
            if consumer in seen or not any(_is_link(value) and value[0] == source for value in inputs.values()):
                continue
            seen.add(consumer)
            if "sigmas" in inputs or "steps" in inputs:
                found.append(Sampler(_title(consumer, node), _steps(graph, inputs, target), ranged))
                continue
            on = ranged
            if node.get("class_type") == TIMESTEP_RANGE:
                start, end = (_number(graph, inputs.get(name)) for name in ("start", "end"))
                on = ranged if start is None or end is None else (start, end)
            waiting.append((consumer, on))
    return found


def about_range(hidden: Any, target: Target, start: float, end: float) -> list[str]:
    """What is wrong with the range in which an identity acts, for each sampler behind a node; logged too.

    Nothing is said of a good range: the node is not asked again when only the sampler's steps change.
    hidden: the node's `prompt` and `unique_id`; None outside of a server, where nothing can be told.
    """
    graph, node_id = _seen_by(hidden)
    lines = [line for line in _about_range(graph, node_id, target, start, end) if line.startswith("! ")]
    for line in lines:
        log.warning("Range: %s", line.removeprefix("! "))
    return lines


def prompts_before(hidden: Any, target: Target) -> list[str]:
    """For a node that makes noise levels: how many of them each prompt's identity acts in."""
    graph, node_id = _seen_by(hidden)
    lines = []
    for prompt_id, node in graph.items():
        inputs = node.get("inputs", {})
        if node.get("class_type") != "FaceCLIPEncodePrompt" or "identity" not in inputs:
            continue
        start, end = _number(graph, inputs.get("start_percent", 0.0)), _number(graph, inputs.get("end_percent", 1.0))
        if start is None or end is None or not _feeds(graph, node_id, prompt_id):
            continue
        lines += [f"{line} ({_title(prompt_id, node)})" for line in _about_range(graph, prompt_id, target, start, end)]
    return lines


def _seen_by(hidden: Any) -> tuple[Graph, str]:
    return getattr(hidden, "prompt", None) or {}, str(getattr(hidden, "unique_id", None))


def _about_range(graph: Graph, node_id: str, target: Target, start: float, end: float) -> list[str]:
    lines = []
    for sampler in samplers_behind(graph, node_id, target):
        if sampler.ranged and (start, end) != (0.0, 1.0):
            first, last = sampler.ranged
            lines.append(
                f"! {sampler.title}: {TIMESTEP_RANGE} behind this node replaces its range. With and without the "
                f"identity both act from {first:.1%} to {last:.1%}, half each."
            )
        first, last = sampler.ranged or (start, end)
        if sampler.steps is not None and (first, last) != (0.0, 1.0):
            lines.append(_in_words(sampler.title, sampler.steps, first, last))
    return lines


def _in_words(title: str, steps: list[float], start: float, end: float) -> str:
    inside = [step for step in steps if start - _NEAR <= step <= end + _NEAR]
    if inside or not steps:
        return f"{title}: acts in {len(inside)} of {len(steps)} steps."
    shown = ", ".join(f"{step:.1%}" for step in (steps if len(steps) <= 8 else [*steps[:7], steps[-1]]))
    later, earlier = [s for s in steps if s > end], [s for s in steps if s < start]
    ways = []
    if later:
        ways.append(f"an end_percent of {math.ceil(min(later) * 1000) / 1000:g} or more")
    if earlier:
        ways.append(f"a start_percent of {math.floor(max(earlier) * 1000) / 1000:g} or less")
    return (
        f"! {title}: none of its {len(steps)} steps lies between {start:.1%} and {end:.1%}, so the identity does "
        f"nothing. They lie at {shown}; {' or '.join(ways)} takes one in."
    )


def _steps(graph: Graph, inputs: dict[str, Any], target: Target) -> list[float] | None:
    model = _Model(target.noise)
    try:
        sigmas = _sigmas(graph, inputs["sigmas"], model) if "sigmas" in inputs else _of_ksampler(graph, inputs, model)
    except Exception:  # numbers no sampler would take: it says so itself
        return None
    return None if sigmas is None else target.parts_of_sampling(sigmas[:-1])


def _of_ksampler(graph: Graph, inputs: dict[str, Any], model: "_Model") -> torch.Tensor | None:
    """The noise levels of KSampler, KSampler (Advanced), and nodes of other packs with the same inputs."""
    import comfy.samplers

    steps, denoise = _number(graph, inputs.get("steps")), _number(graph, inputs.get("denoise", 1.0))
    if steps is None or denoise is None:
        return None
    scheduler = inputs.get("scheduler") if inputs.get("scheduler") in comfy.samplers.KSampler.SCHEDULERS else "normal"
    name = inputs.get("sampler_name") if inputs.get("sampler_name") in comfy.samplers.KSampler.SAMPLERS else "euler"
    stock = comfy.samplers.KSampler(model, int(steps), torch.device("cpu"), name, scheduler, denoise, {})
    start, end = _number(graph, inputs.get("start_at_step", 0)), _number(graph, inputs.get("end_at_step", steps))
    return None if start is None or end is None else stock.sigmas[int(start) : min(int(end), int(steps)) + 1]


def _sigmas(graph: Graph, link: Any, model: "_Model") -> torch.Tensor | None:
    """What the node behind this link would give as SIGMAS; None where it takes more than numbers."""
    if not _is_link(link) or link[0] not in graph:
        return None
    node = graph[link[0]]
    kind, inputs = node.get("class_type"), node.get("inputs", {})
    if kind in OURS and link[1] == 0:
        numbers = [_number(graph, inputs.get(name)) for name in ("width", "height", "steps")]
        known = [int(number) for number in numbers if number is not None]
        recipe = inputs.get("recipe", recipes.PUBLISHED)
        typed_in = len(known) == len(numbers) and isinstance(recipe, str)
        return OURS[kind](known[0], known[1], known[2], recipe) if typed_in else None
    if kind not in _SCHEDULERS:
        return None
    given = {name: _value(graph, name, value, model) for name, value in inputs.items()}
    if any(value is None for value in given.values()):
        return None
    import nodes  # the host's, which the checker takes for ours

    known = nodes.NODE_CLASS_MAPPINGS  # pyright: ignore[reportAttributeAccessIssue]
    return known[kind].execute(**given).result[link[1]]


def _value(graph: Graph, name: str, value: Any, model: "_Model") -> Any:
    if name == "model":
        return model
    if name == "sigmas":
        return _sigmas(graph, value, model)
    return _number(graph, value) if _is_link(value) else value


class _Model:
    """As much of a MODEL as schedulers ask for: the noise schedule of its kind, `noise` in comfy.model_sampling."""

    load_device = torch.device("cpu")

    def __init__(self, noise: str):
        self._noise = noise

    def get_model_object(self, name: str) -> torch.nn.Module:
        import comfy.model_sampling

        return getattr(comfy.model_sampling, self._noise)()


def _number(graph: Graph, value: Any) -> float | None:
    """A typed-in number, also one that a node with nothing but this number gives (a primitive)."""
    if _is_link(value):
        values = list(graph.get(value[0], {}).get("inputs", {}).values())
        value = values[0] if len(values) == 1 else None
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _feeds(graph: Graph, source: str, prompt_id: str) -> bool:
    """Whether a sampler behind the prompt has its noise levels from `source`, also by way of other nodes."""
    behind = {prompt_id}
    for _ in graph:
        more = {k for k, node in graph.items() if any(_is_link(v) and v[0] in behind for v in node["inputs"].values())}
        if more <= behind:
            break
        behind |= more
    links = [graph[key]["inputs"].get("sigmas") for key in behind]
    seen = set()
    while links:
        link = links.pop()
        if _is_link(link) and link[0] in graph and link[0] not in seen:
            seen.add(link[0])
            links.append(graph[link[0]]["inputs"].get("sigmas"))
    return source in seen


def _title(node_id: str, node: dict[str, Any]) -> str:
    return node.get("_meta", {}).get("title") or node.get("class_type") or node_id


def _is_link(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str)
