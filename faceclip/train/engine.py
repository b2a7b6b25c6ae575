"""The training loop: one process, DDP or FSDP through accelerate; stopped at any moment, it goes on where it was."""

import contextlib
import logging
import math
import signal
import sys
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs, ProjectConfiguration, send_to_device, set_seed
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import MixedPrecisionPolicy
from torch.distributed.tensor import DTensor
from tqdm.contrib.logging import logging_redirect_tqdm

from .. import progress
from ..errors import FaceCLIPError, InputError
from . import optimiser, resume
from .run_file import Settings

log = logging.getLogger(__name__)

_SHAPES: dict[str, Callable[[float], float]] = {
    "cosine": lambda progress: 0.5 * (1 + math.cos(math.pi * progress)),
    "linear": lambda progress: 1 - progress,
    "constant": lambda progress: 1.0,
}


Module = TypeVar("Module", bound=torch.nn.Module)


class TrainingError(FaceCLIPError):
    """Training cannot go on: a loss or gradient that is not finite."""


@dataclass(frozen=True)
class TrainResult:
    """step: optimiser steps done in all. losses: means over the last log interval. stopped: by a signal, resumable."""

    step: int
    losses: dict[str, float]
    stopped: bool


def train(
    module: Module,
    data,
    settings: Settings,
    export: Callable[[Module, Path], None] | None = None,
    accelerator: Accelerator | None = None,
    made_of: Mapping[str, Any] | None = None,
    allowed: Collection[str] = (),
) -> TrainResult:
    """Trains what in `module` has requires_grad, from the latest checkpoint in `settings.output` if there is one.

    module(batch) -> dict of scalar tensors with the key "loss" and the parts to log, the same names each time; its
    after_step(), if it has one, is called after each step of the optimiser. data has
    `batches(rank, world, batch_size, seed, start)`, endless from micro step `start`; where it has `state_dict()` and
    `load_state_dict()` too, they are saved with each checkpoint, and where it has `skipped()`, its counts are logged.
    export(module, folder) is called at the end on the main process, with the EMA's weights if there is an EMA; the
    module keeps them. SIGTERM or SIGINT saves a checkpoint and returns with `stopped`.
    made_of: what the run is of, in JSON's types, by name; a checkpoint of a run of something else is refused
    (InputError) but for the names in `allowed`.
    Raises TrainingError at a loss or gradient that is not finite, after which nothing is saved; CheckpointError where
    the checkpoint found is of another model.
    """
    run = _Run(module, data, settings, accelerator, dict(made_of or {}))
    try:
        run.resume(allowed)
        with _signals(run):
            stopped = run.loop()
        if not stopped and export is not None:
            run.export(export)
        return TrainResult(run.step, run.means, stopped)
    finally:
        run.close()


def make_accelerator(settings: Settings) -> Accelerator:
    """An Accelerator for these settings: the launcher's environment says how many processes and which form."""
    if AcceleratorState._shared_state and AcceleratorState().mixed_precision != settings.precision:
        AcceleratorState._reset_state()  # an earlier run of this process had another precision
    accelerator = Accelerator(
        mixed_precision=settings.precision,
        gradient_accumulation_steps=settings.accumulate,
        log_with=list(settings.trackers) or None,
        project_config=ProjectConfiguration(
            project_dir=str(settings.output), logging_dir=str(settings.output / "logs")
        ),
        kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False)],
    )
    if accelerator.distributed_type == "FSDP":
        plugin = accelerator.state.fsdp_plugin
        assert plugin is not None
        if plugin.fsdp_version != 2:
            raise InputError(f"fsdp_version: {plugin.fsdp_version} given, 2 wanted (see faceclip/train/accelerate)")
        # The same numbers as under DDP: weights and inputs stay in float32, and autocast chooses what runs in bf16.
        plugin.mixed_precision_policy = MixedPrecisionPolicy(reduce_dtype=torch.float32)
    return accelerator


class _Run:
    def __init__(self, module, data, settings: Settings, accelerator: Accelerator | None, made_of: dict[str, Any]):
        self.settings, self.data, self.made_of = settings, data, made_of
        self.accelerator = accelerator or make_accelerator(settings)
        self.accelerator.gradient_accumulation_steps = settings.accumulate
        set_seed(settings.seed + self.accelerator.process_index)
        if settings.gradient_checkpointing:
            optimiser.enable_gradient_checkpointing(module)
        self.alone = self.accelerator.num_processes == 1
        # Sharded weights are put together again in a copy whose parameters take no memory until then.
        self.skeleton = None
        if self.accelerator.distributed_type == "FSDP":
            self.skeleton = optimiser.skeleton(module)
            optimiser.without_scalars(module)
        if settings.optimizer == "adamw8bit" and self.skeleton is not None:
            raise InputError("optimizer: adamw8bit given, but it cannot split its moments under FSDP: adamw wanted")
        optimizer, self.factors = optimiser.make(module, settings)
        if settings.compile:
            optimiser.compile_parts(module)
        self.module, self.optimizer = self.accelerator.prepare(module, optimizer)
        trained = [(name, weight) for name, weight in self.module.named_parameters() if weight.requires_grad]
        self.weights = [weight for _, weight in trained]
        ema = {name.removeprefix("module."): w.detach().clone() for name, w in trained} if settings.ema else None
        self.trained = resume.Trained(self.module, self.optimizer.optimizer, ema)
        self.folder = settings.output / "checkpoints"
        self.step = self.micro = self.saved = 0
        self.before, self.began, self.logged = 0.0, time.monotonic(), (0, time.monotonic())
        self.means: dict[str, float] = {}
        self.names: tuple[str, ...] = ()
        self.rows: list[torch.Tensor] = []  # per step: the module's values and the gradient's norm, not yet looked at
        self.asked = False  # to stop, by a signal
        self.shared: torch.Tensor | None = None

    def resume(self, allowed: Collection[str]) -> None:
        path = resume.latest(self.folder)
        if path is None:
            return
        position = resume.read_position(path)
        for line in resume.check_same(path, position["made_of"], self.made_of, allowed):
            log.warning("%s", line)
        own = resume.load(path, self.trained, self.accelerator)
        self.step = self.saved = position["step"]
        self.before, self.means = position["seconds"], position["losses"]
        together = self.settings.batch_size * self.accelerator.num_processes
        self.micro = position["samples"] // together
        exact = own is not None and position["batch"] == [self.settings.batch_size, self.accelerator.num_processes]
        if not exact:
            log.warning(
                "The checkpoint was saved with batches of %d on %d processes, this run has %d on %d: it goes on after "
                "about as many samples, not exactly where it was.",
                *position["batch"],
                self.settings.batch_size,
                self.accelerator.num_processes,
            )
        elif own is not None and "data" in own:
            self.data.load_state_dict(own["data"])
        log.info("Resumed from %s.", path)

    def save(self) -> None:
        self.check()
        if self.saved == self.step:
            return
        batch = [self.settings.batch_size, self.accelerator.num_processes]
        position = {
            "step": self.step,
            "samples": self.micro * batch[0] * batch[1],
            "batch": batch,
            "seconds": self.elapsed(),
            "losses": self.means,
            "made_of": self.made_of,
        }
        own = {"data": self.data.state_dict()} if hasattr(self.data, "state_dict") else {}
        resume.save(self.folder, self.step, self.trained, position, own, self.accelerator, self.settings.keep)
        self.saved = self.step

    def elapsed(self) -> float:
        return self.before + time.monotonic() - self.began

    def loop(self) -> bool:
        """Trains to the end or to a signal; whether it was a signal."""
        settings, accelerator = self.settings, self.accelerator
        if self.step >= settings.steps:
            return False
        if settings.trackers:
            table = {field.name: getattr(settings, field.name) for field in fields(settings)}
            plain = {name: value if isinstance(value, int | float) else str(value) for name, value in table.items()}
            accelerator.init_trackers("train", plain)
        batches = self.data.batches(
            accelerator.process_index, accelerator.num_processes, settings.batch_size, settings.seed, self.micro
        )
        self.module.train()
        self.logged = (self.step, time.monotonic())
        # Elsewhere the log's lines tell.
        on_terminal = accelerator.is_main_process and sys.stderr.isatty()
        bar = progress.bar("Training", "steps", settings.steps, self.step, disable=not on_terminal)
        with contextlib.closing(batches), bar, contextlib.nullcontext() if bar.disable else logging_redirect_tqdm():
            while True:
                stop, done = self.agree()
                if stop or done >= 1:
                    break
                self.advance(batches, done)
                bar.update()
                if self.step % settings.log_every == 0:
                    self.log(bar)
                if self.step % settings.save_every == 0:
                    self.save()
            self.log(bar)
            self.save()
        return stop

    def agree(self) -> tuple[bool, float]:
        """Whether to stop, and how far the run is, in [0, 1]; the same on every process.

        Several processes exchange both at every step, and read what they sent a step ago: nothing waits for it.
        """
        stop, seconds = self.asked, self.elapsed()
        if not self.alone:
            own = torch.tensor([float(stop), seconds if self.accelerator.is_main_process else 0.0])
            before = self.shared
            self.shared = self.reduced(own.to(self.accelerator.device), "sum")
            stop, seconds = (False, self.before) if before is None else before.tolist()
        progress = self.step / self.settings.steps
        if self.settings.minutes is not None:
            progress = max(progress, seconds / (60 * self.settings.minutes))
        return bool(stop), min(progress, 1.0)

    def reduced(self, values: torch.Tensor, how: str) -> torch.Tensor:
        """The sum or mean over all processes."""
        return cast(torch.Tensor, self.accelerator.reduce(values, how))

    def advance(self, batches, progress: float) -> None:
        """One step of the optimiser."""
        settings, accelerator = self.settings, self.accelerator
        rows = []
        for micro in range(settings.accumulate):
            last = micro == settings.accumulate - 1
            batch = send_to_device(next(batches), accelerator.device, non_blocking=True)
            with contextlib.nullcontext() if last else accelerator.no_sync(self.module):
                with accelerator.autocast():  # FSDP does not bring it
                    values = self.module(batch)
                # Before the backward pass: under FSDP a value may be a weight's, which is given away in it.
                rows.append(torch.stack([value.detach().float().reshape(()) for value in values.values()]))
                accelerator.backward(values["loss"])
            names = tuple(values)
            if names != (self.names or names):
                raise InputError(f"the module gave the values {names} after {self.names}: they must stay the same")
            self.names = names
        norm = accelerator.clip_grad_norm_(self.weights, settings.max_grad_norm)
        assert norm is not None  # only DeepSpeed gives none
        norm = (norm.full_tensor() if isinstance(norm, DTensor) else norm).detach()
        row = rows[0] if len(rows) == 1 else torch.stack(rows).mean(0)
        self.rows.append(torch.cat([row, norm.float().reshape(1)]))
        self.step += 1
        self.micro += settings.accumulate
        # On a CPU looking costs nothing, and the weights are still good. The norm is the same on every process.
        if accelerator.device.type == "cpu" and not math.isfinite((self.rows[-1].sum() if self.alone else norm).item()):
            self.check()
        warm = min(1.0, self.step / settings.warmup) if settings.warmup else 1.0
        for group, factor in zip(self.optimizer.param_groups, self.factors, strict=True):
            group["lr"] = settings.learning_rate * factor * warm * _SHAPES[settings.schedule](progress)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if (after_step := getattr(self.accelerator.unwrap_model(self.module), "after_step", None)) is not None:
            after_step()
        if self.trained.ema is not None:
            optimiser.update_average(list(self.trained.ema.values()), self.weights, settings.ema, self.step)

    def check(self) -> torch.Tensor | None:
        """What the steps since the last log gave, meant over the processes [steps, values]; TrainingError names the
        first step at which one is not finite."""
        if not self.rows:
            return None
        values = torch.stack(self.rows)
        values = (values if self.alone else self.reduced(values, "mean")).cpu()
        bad = (~values.isfinite()).any(1).nonzero()
        if len(bad):
            first = int(bad[0])
            names = (*self.names, "grad_norm")
            parts = ", ".join(f"{name} {value:.6g}" for name, value in zip(names, values[first].tolist(), strict=True))
            raise TrainingError(
                f"Step {self.step - len(self.rows) + 1 + first}: not finite ({parts}). Nothing was saved since; the "
                f"last checkpoint is of step {self.saved}. Lower learning_rate, raise warmup, or look at the data."
            )
        return values

    def log(self, bar) -> None:
        values = self.check()
        if values is None:
            return
        self.rows = []
        step, moment = self.logged
        self.logged = (self.step, time.monotonic())
        samples = (self.step - step) * self.settings.accumulate * self.settings.batch_size
        rate = samples * self.accelerator.num_processes / max(self.logged[1] - moment, 1e-9)
        *means, norm = values.double().mean(0).tolist()
        self.means = dict(zip(self.names, means, strict=True))
        skipped = self.data.skipped() if hasattr(self.data, "skipped") else {}
        record = {
            **self.means,
            "grad_norm": norm,
            "learning_rate": self.optimizer.param_groups[0]["lr"] / self.factors[0],
            "samples_per_second": rate,
            **{f"skipped_{kind}": count for kind, count in skipped.items()},
        }
        if self.accelerator.is_main_process:
            bar.set_postfix(loss=f"{self.means['loss']:.4g}", refresh=False)
            log.info("step %d: %s", self.step, ", ".join(f"{name} {value:.5g}" for name, value in record.items()))
        if self.settings.trackers:
            self.accelerator.log(record, step=self.step)

    def export(self, export: Callable[[Any, Path], None]) -> None:
        """Calls it on the main process with the whole model."""
        if self.trained.ema is not None:
            optimiser.copy_average(list(self.trained.ema.values()), self.weights)
        module = self.accelerator.unwrap_model(self.module, keep_fp32_wrapper=False)
        if self.skeleton is not None:
            options = StateDictOptions(full_state_dict=True, cpu_offload=True)
            state = get_model_state_dict(self.module, options=options)
            if self.accelerator.is_main_process:
                optimiser.fill(self.skeleton, state)
            module = self.skeleton
        if self.accelerator.is_main_process:
            module.eval()
            export(module, self.settings.output)
        self.accelerator.wait_for_everyone()

    def close(self) -> None:
        # Not end_training(), which ends the process group too: a caller may train another model after this one.
        if self.settings.trackers:
            for tracker in self.accelerator.trackers:
                tracker.finish()
        self.accelerator.unwrap_model(self.module, keep_fp32_wrapper=False)
        self.accelerator.free_memory()


@contextlib.contextmanager
def _signals(run: _Run):
    """SIGTERM and SIGINT ask the run to save and stop; a second one ends it at once. Only in the main thread."""
    before = {}

    def ask(number, frame):
        log.warning("%s: saving a checkpoint after this step, then stopping.", signal.Signals(number).name)
        run.asked = True
        signal.signal(number, before[number])

    with contextlib.suppress(ValueError):  # another thread may not set handlers
        for number in (signal.SIGTERM, signal.SIGINT):
            before[number] = signal.signal(number, ask)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
