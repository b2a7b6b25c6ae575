"""Likeness against a value that was swept, as a chart: which strength, step count or seed keeps the person best."""

import math
from collections.abc import Sequence

import numpy as np
import torch

from ..errors import InputError

SIZE = (768, 512)  # px
_INK, _GRID, _PAPER, _LINE, _DOT = (40, 40, 40), (215, 215, 215), (255, 255, 255), (40, 120, 200), (150, 190, 230)
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 24, 40, 72  # px around the plot
_LONGEST_LABEL = 12
_MOST_LABELS = 12


def group_scores(values: Sequence[object], scores: Sequence[float]) -> list[tuple[object, list[float]]]:
    """Each value with its scores, numbers in rising order, other values as they came; equal values are put together.

    Of n values and k * n scores the first k belong to the first value. Raises InputError for other counts.
    """
    if not values or not scores or len(scores) % len(values):
        raise InputError(
            f"{len(scores)} scores came in for {len(values)} swept values; wanted the same number for each value. Wire "
            "the list that was swept, and let each picture show one face."
        )
    each = len(scores) // len(values)
    groups: dict[object, list[float]] = {}
    for number, value in enumerate(values):
        groups.setdefault(_key(value), []).extend(float(one) for one in scores[number * each : (number + 1) * each])
    found = list(groups.items())
    return sorted(found) if are_numbers([value for value, _ in found]) else found


def are_numbers(values: Sequence[object]) -> bool:
    """Whether all are numbers with a place on an axis."""
    return all(isinstance(value, (int, float)) and math.isfinite(value) for value in values)


def chart_table(groups: Sequence[tuple[object, Sequence[float]]], label: str) -> str:
    """The chart in words, the best value marked."""
    best = max(range(len(groups)), key=lambda i: np.mean(groups[i][1]))
    lines = [f"Likeness by {label}; 1 is the same face."]
    for number, (value, scores) in enumerate(groups):
        spread = f" ({min(scores):.3f} to {max(scores):.3f} of {len(scores)})" if len(scores) > 1 else ""
        lines.append(f"{_text(value)}: {np.mean(scores):.3f}{spread}{' <- best' if number == best else ''}")
    return "\n".join(lines)


def draw_chart(groups: Sequence[tuple[object, Sequence[float]]], label: str) -> torch.Tensor:
    """float32 [1, H, W, 3]: a line through each value's mean score, a dot for each score."""
    from PIL import Image, ImageDraw, ImageFont

    picture = Image.new("RGB", SIZE, _PAPER)
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(14)
    scores = [score for _, many in groups for score in many]
    low, high = _range(scores)
    xs = _places([value for value, _ in groups])

    def y_of(score: float) -> float:
        return _TOP + (high - score) / (high - low) * (SIZE[1] - _TOP - _BOTTOM)

    for step in range(5):
        score = low + (high - low) * step / 4
        draw.line([(_LEFT, y_of(score)), (SIZE[0] - _RIGHT, y_of(score))], fill=_GRID)
        draw.text((_LEFT - 8, y_of(score)), f"{score:.2f}", fill=_INK, font=font, anchor="rm")
    every = math.ceil(len(groups) / _MOST_LABELS)
    for x, (value, _) in list(zip(xs, groups, strict=True))[::every]:
        draw.text((x, SIZE[1] - _BOTTOM + 10), _text(value), fill=_INK, font=font, anchor="ma")
    draw.text((SIZE[0] / 2, SIZE[1] - 24), label, fill=_INK, font=font, anchor="ma")
    draw.text((_LEFT, 12), "likeness", fill=_INK, font=font)
    means = [(x, y_of(float(np.mean(many)))) for x, (_, many) in zip(xs, groups, strict=True)]
    draw.line(means, fill=_LINE, width=3, joint="curve")
    for x, (_, many) in zip(xs, groups, strict=True):
        for score in many:
            draw.ellipse([x - 4, y_of(score) - 4, x + 4, y_of(score) + 4], fill=_DOT)
    for x, y in means:
        draw.ellipse([x - 6, y - 6, x + 6, y + 6], fill=_LINE)
    return torch.from_numpy(np.asarray(picture).copy()).float()[None] / 255


def _key(value: object) -> object:
    return value if isinstance(value, (int, float, str)) else str(value)


def _text(value: object) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text if len(text) <= _LONGEST_LABEL else text[: _LONGEST_LABEL - 1] + "…"


def _range(scores: Sequence[float]) -> tuple[float, float]:
    """Ends of the axis: the scores with some room, on tenths."""
    low, high = math.floor(min(scores) * 10) / 10, math.ceil(max(scores) * 10) / 10
    return (low, high) if high > low else (low - 0.1, high + 0.1)


def _places(values: Sequence[object]) -> list[float]:
    """Where each value stands, in px from the left: to scale for numbers, else side by side."""
    left, right = _LEFT + 24, SIZE[0] - _RIGHT - 24
    numbers = [float(value) for value in values] if are_numbers(values) else list(range(len(values)))  # type: ignore
    low, high = min(numbers), max(numbers)
    return [left + (right - left) * ((one - low) / (high - low) if high > low else 0.5) for one in numbers]
