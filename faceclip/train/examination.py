"""How the engine looks at held-out samples: when, with which weights, and without a trace in the training."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from accelerate import Accelerator
from accelerate.utils import send_to_device

from . import optimiser, resume
from .validation import Examiner, Values


@dataclass(frozen=True)
class Examination:
    """every: steps. batches: makes the same held-out batches each time. examiner: what is asked of the module."""

    every: int
    batches: Callable[[], Iterator[Mapping[str, Any]]]
    examiner: Examiner


def examine(
    examination: Examination, accelerator: Accelerator, module: torch.nn.Module, trained: resume.Trained, step: int
) -> Values:
    """The values, meant over the processes; with the weights' average where there is one, which is what is exported.

    Random numbers go on afterwards as if nothing had been. Every process must call it.
    """
    # Split weights are put together by calling the module itself.
    sharded = accelerator.distributed_type == "FSDP"
    own = module if sharded else accelerator.unwrap_model(module, keep_fp32_wrapper=False)
    state = resume.random_state(accelerator.device)
    own.eval()
    try:
        with _averaged(module, trained), torch.no_grad(), accelerator.autocast():
            given = (send_to_device(batch, accelerator.device) for batch in examination.batches())
            found = examination.examiner(own, given, step, accelerator.is_main_process)
    finally:
        own.train()
        resume.set_random_state(state, accelerator.device)
    if accelerator.num_processes > 1:
        values = torch.tensor(list(found.values()), dtype=torch.float32, device=accelerator.device)
        found = dict(zip(found, cast(torch.Tensor, accelerator.reduce(values, "mean")).tolist(), strict=True))
    return found


@contextlib.contextmanager
def _averaged(module: torch.nn.Module, trained: resume.Trained) -> Iterator[None]:
    if trained.ema is None:
        yield
        return
    pairs = [
        (weight, trained.ema[name.removeprefix("module.")])
        for name, weight in module.named_parameters()
        if weight.requires_grad
    ]
    _swap(pairs)
    try:
        yield
    finally:
        _swap(pairs)


@torch.no_grad()
def _swap(pairs: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> None:
    for weight, average in pairs:
        mine, other = optimiser.local(weight), optimiser.local(average)
        before = mine.clone()
        mine.copy_(other)
        other.copy_(before)
