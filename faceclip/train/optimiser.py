"""What the engine does with a model's weights: the optimiser, their moving average, and what splitting them needs."""

import copy
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.distributed.tensor import DTensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from ..errors import DependencyError, InputError
from ..install import extras
from .run_file import Settings

_SHAPES: dict[str, Callable[[float], float]] = {
    "cosine": lambda progress: 0.5 * (1 + math.cos(math.pi * progress)),
    "linear": lambda progress: 1 - progress,
    "constant": lambda progress: 1.0,
}


def make(module: torch.nn.Module, settings: Settings) -> tuple[torch.optim.Optimizer, list[float]]:
    """The optimiser that the settings name, for what has requires_grad, and by what each of its groups' learning rate
    is multiplied. Embeddings, biases, scales and norms do not decay. InputError, and DependencyError for a missing
    bitsandbytes."""
    tables = {id(part.weight) for part in module.modules() if isinstance(part, torch.nn.Embedding)}
    trained = {name: weight for name, weight in module.named_parameters() if weight.requires_grad}
    if not trained:
        raise InputError("nothing to train: no parameter of the module has requires_grad")
    groups: dict[tuple[float, bool], list] = {}
    for name, factor in _factors(list(trained), settings.rates).items():
        weight = trained[name]
        decays = weight.ndim >= 2 and id(weight) not in tables and "embedding" not in name
        groups.setdefault((factor, not decays), []).append(weight)
    made = [
        {"params": weights, "weight_decay": 0.0 if bare else settings.weight_decay}
        for (_, bare), weights in sorted(groups.items(), key=lambda one: one[0])
    ]
    return _optimizer(made, settings), [factor for factor, _ in sorted(groups)]


def _factors(names: list[str], rates: Mapping[str, float]) -> dict[str, float]:
    """By what each weight's learning rate is multiplied: by the longest of the names in `rates` that is part of its."""
    found, used = {}, set()
    for name in names:
        fitting = [part for part in rates if f".{part}." in f".{name}."]
        chosen = max(fitting, key=len, default=None)
        used.update(fitting)
        found[name] = 1.0 if chosen is None else rates[chosen]
    if unknown := sorted(set(rates) - used):
        raise InputError(f"rates: {unknown[0]} given, but no trained weight has such a name; one is {names[0]}")
    return found


def _optimizer(groups: list[dict[str, Any]], settings: Settings) -> torch.optim.Optimizer:
    rate, betas = settings.learning_rate, (0.9, settings.beta2)
    if settings.optimizer == "adafactor":
        return torch.optim.Adafactor(groups, lr=rate)
    if settings.optimizer == "adamw8bit":
        try:
            from bitsandbytes.optim import AdamW8bit
        except ImportError as error:
            raise DependencyError(
                f'adamw8bit needs bitsandbytes ({error}), which the extra "train" brings: '
                f"{extras.install_line('train')}"
            ) from error
        return AdamW8bit(groups, lr=rate, betas=betas)
    return torch.optim.AdamW(groups, lr=rate, betas=betas, fused=True)


def set_rates(
    optimizer: torch.optim.Optimizer, factors: list[float], settings: Settings, step: int, progress: float
) -> None:
    """The learning rate of each group for a step, from 1; progress: how far the run is, 0 to 1."""
    warm = min(1.0, step / settings.warmup) if settings.warmup else 1.0
    for group, factor in zip(optimizer.param_groups, factors, strict=True):
        group["lr"] = settings.learning_rate * factor * warm * _SHAPES[settings.schedule](progress)


def compile_parts(module: torch.nn.Module) -> None:
    """torch.compile, in place, for what the module names as `compiled`; else for the whole of it."""
    for part in getattr(module, "compiled", lambda: [module])():
        part.compile()


def enable_gradient_checkpointing(module: torch.nn.Module) -> None:
    """Asks the module for it; InputError where it cannot."""
    enable = getattr(module, "enable_gradient_checkpointing", None)
    if not callable(enable):
        raise InputError("gradient_checkpointing: true given, but this stage's model cannot do it: set it to false")
    enable()


def update_average(averages: list[torch.Tensor], weights: list[torch.Tensor], decay: float, step: int) -> None:
    """Moves each average towards its weight, in place; step: of the optimiser, from 1."""
    # Early weights are soon forgotten: the average is at first over a tenth of the steps done.
    decay = min(decay, step / (step + 9))
    get_ema_multi_avg_fn(decay)([local(value) for value in averages], [local(w.detach()) for w in weights], step)


@torch.no_grad()
def copy_average(averages: list[torch.Tensor], weights: list[torch.Tensor]) -> None:
    """The averages become the weights."""
    for weight, average in zip(weights, averages, strict=True):
        local(weight).copy_(local(average))


def skeleton(module: torch.nn.Module) -> torch.nn.Module:
    """A copy whose parameters take no memory, to put weights together in that are split over processes."""
    shapes = {id(w): torch.nn.Parameter(w.detach().to("meta"), w.requires_grad) for w in module.parameters()}
    return copy.deepcopy(module, shapes)


def fill(module: torch.nn.Module, state: Mapping[str, Any]) -> None:
    """Whole weights into a skeleton."""
    shapes = {name: value.shape for name, value in module.state_dict().items()}
    module.load_state_dict({name: value.reshape(shapes[name]) for name, value in state.items()}, assign=True)


def without_scalars(module: torch.nn.Module) -> None:
    """FSDP cannot split a parameter without dimensions; one of a single element counts the same."""
    for part in module.modules():
        for name, weight in list(part.named_parameters(recurse=False)):
            if not weight.ndim:
                setattr(part, name, torch.nn.Parameter(weight.detach().reshape(1), weight.requires_grad))


def local(tensor: torch.Tensor) -> torch.Tensor:
    """This process's part of a tensor that is split over processes."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
