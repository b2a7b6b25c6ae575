"""What the engine does with a model's weights: AdamW, their moving average, and what splitting them needs."""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch.distributed.tensor import DTensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from ..errors import InputError
from .run_file import Settings


def adamw(module: torch.nn.Module, settings: Settings) -> torch.optim.Optimizer:
    """AdamW for what has requires_grad; embeddings, biases, scales and norms do not decay."""
    tables = {id(part.weight) for part in module.modules() if isinstance(part, torch.nn.Embedding)}
    groups: dict[bool, list] = {True: [], False: []}
    for name, weight in module.named_parameters():
        if weight.requires_grad:
            groups[weight.ndim >= 2 and id(weight) not in tables and "embedding" not in name].append(weight)
    if not any(groups.values()):
        raise InputError("nothing to train: no parameter of the module has requires_grad")
    return torch.optim.AdamW(
        [
            {"params": weights, "weight_decay": settings.weight_decay if decays else 0.0}
            for decays, weights in groups.items()
            if weights
        ],
        lr=settings.learning_rate,
        betas=(0.9, settings.beta2),
        fused=True,
    )


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
