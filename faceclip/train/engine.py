"""The training loop: one process, DDP or FSDP through accelerate; stopped at any moment, it goes on where it was."""

import contextlib
import logging
import math
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from accelerate import Accelerator
from accelerate.utils import send_to_device, set_seed
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.tensor import DTensor
from torch.utils.flop_counter import FlopCounterMode
from tqdm.contrib.logging import logging_redirect_tqdm

from .. import progress
from ..errors import FaceCLIPError, InputError
from . import optimiser, resume
from .examination import Examination, examine
from .processes import make_accelerator, signals
from .run_file import Settings

log = logging.getLogger(__name__)

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
    examination: Examination | None = None,
) -> TrainResult:
    """Trains what in `module` has requires_grad, from the latest checkpoint in `settings.output` if there is one.

    module(batch) -> dict of scalar tensors with the key "loss" and the parts to log, the same names each time; its
    after_step(), if it has one, is called after each step of the optimiser. data has
    `batches(rank, world, batch_size, seed, start)`, endless from micro step `start`; where it has `state_dict()` and
    `load_state_dict()` too, they are saved with each checkpoint, and where it has `skipped()`, its counts are logged.
    export(module, folder) is called at the end on the main process, with the EMA's weights if there is an EMA; the
    module keeps them. SIGTERM or SIGINT saves a checkpoint and returns with `stopped`.
    made_of: what the run is of, in JSON's types, by name; a checkpoint of a run of something else is refused
    (InputError) but for the names in `allowed`. examination: of held-out samples now and then; its values are logged as
    `val_...`, and the checkpoint of the best one stays in `settings.output`/best.
    Raises TrainingError at a loss or gradient that is not finite, after which nothing is saved; CheckpointError where
    the checkpoint found is of another model.
    """
    run = _Run(module, data, settings, accelerator, dict(made_of or {}), examination)
    try:
        run.resume(allowed)
        with signals(run.ask):
            stopped = run.loop()
        if not stopped and export is not None:
            run.export(export)
        return TrainResult(run.step, run.means, stopped)
    finally:
        run.close()


class _Run:
    def __init__(
        self,
        module,
        data,
        settings: Settings,
        accelerator: Accelerator | None,
        made_of: dict[str, Any],
        examination: Examination | None,
    ):
        self.settings, self.data, self.made_of, self.examination = settings, data, made_of, examination
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
        self.best: float | None = None
        self.flops: float | None = None  # of a sample, counted at the first step
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
        self.before, self.means, self.best = position["seconds"], position["losses"], position["best"]
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
        if self.saved != self.step:
            self.write(self.folder, self.settings.keep)
            self.saved = self.step

    def write(self, folder: Path, keep: int) -> None:
        batch = [self.settings.batch_size, self.accelerator.num_processes]
        position = {
            "step": self.step,
            "samples": self.micro * batch[0] * batch[1],
            "batch": batch,
            "seconds": self.elapsed(),
            "losses": self.means,
            "made_of": self.made_of,
            "best": self.best,
        }
        own = {"data": self.data.state_dict()} if hasattr(self.data, "state_dict") else {}
        resume.save(folder, self.step, self.trained, position, own, self.accelerator, keep)

    def examine(self, examination: Examination) -> None:
        """Looks at the held-out samples, tells, and keeps the checkpoint where it is the best so far."""
        before = time.monotonic()
        values = examine(examination, self.accelerator, self.module, self.trained, self.step)
        record = {f"val_{name}": value for name, value in values.items()}
        log.info("step %d: %s", self.step, ", ".join(f"{name} {value:.5g}" for name, value in record.items()))
        if self.settings.trackers:
            self.accelerator.log(record, step=self.step)
        score = values[examination.examiner.score]
        if self.best is None or score < self.best:
            self.check()
            self.best = score
            self.write(self.settings.output / "best", keep=1)
        # What this took does not count in samples per second.
        self.logged = (self.logged[0], self.logged[1] + time.monotonic() - before)

    def ask(self) -> None:
        """To stop after the step in hand."""
        self.asked = True

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
                if self.examination and (self.step % self.examination.every == 0 or self.step == settings.steps):
                    self.examine(self.examination)
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
            with contextlib.nullcontext() if last else accelerator.no_sync(self.module), self.counted():
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
        optimiser.set_rates(self.optimizer, self.factors, settings, self.step, progress)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if (after_step := getattr(self.accelerator.unwrap_model(self.module), "after_step", None)) is not None:
            after_step()
        if self.trained.ema is not None:
            optimiser.update_average(list(self.trained.ema.values()), self.weights, settings.ema, self.step)

    @contextlib.contextmanager
    def counted(self) -> Iterator[None]:
        """Counts the work on one sample, at the first step of a run that wants to know."""
        if self.settings.peak_tflops is None or self.flops is not None:
            yield
            return
        with FlopCounterMode(display=False) as counter, torch.compiler.set_stance("force_eager"):
            yield
        self.flops = counter.get_total_flops() / self.settings.batch_size

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
            **self.utilisation(rate / self.accelerator.num_processes),
            **{f"skipped_{kind}": count for kind, count in skipped.items()},
        }
        if self.accelerator.is_main_process:
            bar.set_postfix(loss=f"{self.means['loss']:.4g}", refresh=False)
            log.info("step %d: %s", self.step, ", ".join(f"{name} {value:.5g}" for name, value in record.items()))
        if self.settings.trackers:
            self.accelerator.log(record, step=self.step)

    def utilisation(self, rate: float) -> dict[str, float]:
        """The share of the GPU's peak that `rate` samples a second come to; nothing where it was not asked for."""
        if self.flops is None or self.settings.peak_tflops is None:
            return {}
        return {"mfu": rate * self.flops / (self.settings.peak_tflops * 1e12)}

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
