"""Checkpoints of a training run: complete or absent, exact, alike for one process, DDP and FSDP.

A checkpoint is the folder `step-00001000`. It is written as `.step-00001000.new`, flushed to the disk and then renamed,
so a run killed at any moment leaves no folder that looks complete and is not. All ranks write into it, so on several
machines `output` must lie on storage they share.
"""

import contextlib
import json
import logging
import random
import re
import shutil
import warnings
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.distributed.checkpoint import FileSystemWriter
from torch.distributed.checkpoint import load as load_parts
from torch.distributed.checkpoint import save as save_parts
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)

from ..errors import CheckpointError, InputError, shown
from ..files import whole
from ..files.torch_file import read_torch
from .checkpoint_index import Planner, Reader

log = logging.getLogger(__name__)

_NAME = re.compile(r"step-(\d{8,})")
_OPTIONS = StateDictOptions(ignore_frozen_params=True, strict=False)


@dataclass
class Trained:
    """What a checkpoint holds beside the run's position: everything that training changes.

    ema: name -> tensor, placed over the processes as the parameters are, or None.
    """

    module: torch.nn.Module
    optimizer: torch.optim.Optimizer
    ema: dict[str, torch.Tensor] | None

    def parts(self) -> dict:
        """Tensors by name, still on their devices; under FSDP each process holds its own part. Frozen weights, which
        the caller builds anew, stay out."""
        parts = {
            "module": get_model_state_dict(self.module, options=_OPTIONS),
            "optimizer": get_optimizer_state_dict(self.module, self.optimizer, options=_OPTIONS),
        }
        return parts if self.ema is None else {**parts, "ema": self.ema}

    def restore(self, parts: dict) -> None:
        """Puts the parts in place; the EMA's tensors are filled where they lie."""
        set_model_state_dict(self.module, parts["module"], options=_OPTIONS)
        set_optimizer_state_dict(self.module, self.optimizer, parts["optimizer"], options=_OPTIONS)


def latest(folder: Path) -> Path | None:
    """The complete checkpoint of the highest step in `folder`, None where there is none."""
    return max(_complete(folder), default=(0, None))[1]


def save(folder: Path, step: int, trained: Trained, position: dict, own: dict, accelerator, keep: int) -> Path:
    """Writes one checkpoint and removes all but the newest `keep`; every process must call it.

    position: JSON, the same on every process. own: what torch.save takes, of this process alone (its random numbers,
    its place in the data).
    """
    target = folder / f"step-{step:08d}"
    new = folder / f".{target.name}.new"
    if accelerator.is_main_process:
        folder.mkdir(parents=True, exist_ok=True)
        whole.clear(folder)
        for left_over in folder.glob(".step-*"):
            shutil.rmtree(left_over)
        new.mkdir()
    accelerator.wait_for_everyone()
    alone = accelerator.num_processes == 1
    # The writer flushes its files to the disk itself.
    writer = FileSystemWriter(new / "parts", single_file_per_rank=True)
    with _without_warning():
        save_parts(trained.parts(), storage_writer=writer, no_dist=alone)
    with open(new / f"rank-{accelerator.process_index}.pt", "wb") as file:
        torch.save({**own, "random": random_state(accelerator.device)}, file)
        whole.settle(file)
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        with open(new / "position.json", "wb") as file:
            file.write(json.dumps(position, indent=1).encode())
            whole.settle(file)
        whole.settle_folder(new / "parts")
        whole.move_folder(new, target)
        for _, old in sorted(_complete(folder))[: -max(keep, 1)]:
            whole.remove_folder(old)
    accelerator.wait_for_everyone()
    return target


def read_position(path: Path) -> dict:
    """The position saved with a checkpoint. Raises CheckpointError where it cannot be read."""
    try:
        position = json.loads((path / "position.json").read_text(encoding="utf-8"))
        counts = [position["step"], position["samples"], *position["batch"]]
        if len(counts) != 4 or not all(type(count) is int and 0 <= count < 2**53 for count in counts):
            raise ValueError(f"steps, samples and batches of {shown(counts)}")
        if type(position["seconds"]) not in (int, float):
            raise ValueError(f"{shown(position['seconds'])} seconds")
        if type(position.setdefault("best", None)) not in (int, float, type(None)):
            raise ValueError(f"{shown(position['best'])} as the best value")
        if not isinstance(position["losses"], dict):
            raise ValueError("no table of losses")
        if not isinstance(position.setdefault("made_of", {}), dict):
            raise ValueError("no table of what the run was of")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else shown(error)
        raise CheckpointError(f"{path}: not a training checkpoint ({reason}). Remove the folder to go on.") from error
    return position


def check_same(path: Path, before: Mapping[str, Any], now: Mapping[str, Any], allowed: Collection[str]) -> list[str]:
    """Whether a run of this goes on from a checkpoint of that; by name, in JSON's types.

    A line for each change that `allowed` names. InputError for others, and for an allowed name that there is not; a
    checkpoint that says nothing of itself is taken as it is.
    """
    unknown = sorted(set(allowed) - set(now))
    if unknown:
        raise InputError(f"--allow-change {unknown[0]}: there is no such field; known are {', '.join(sorted(now))}")
    plain = json.loads(json.dumps(dict(now)))
    changed = {name: (before.get(name), plain.get(name)) for name in sorted({*before, *plain}) if before}
    lines = {name: f"{name} was {_short(was)}, is {_short(new)}" for name, (was, new) in changed.items() if was != new}
    refused = [line for name, line in lines.items() if name not in allowed]
    if refused:
        options = " ".join(f"--allow-change {name}" for name in lines if name not in allowed)
        raise InputError(
            f"{path} is a checkpoint of another run: {'; '.join(refused)}. Set it back, name another output, or go on "
            f"from there with the change: {options}"
        )
    return [f"Going on with a change: {line}." for line in lines.values()]


def _short(value: Any) -> str:
    return "not there" if value is None else shown(json.dumps(value), 120)


def load(path: Path, trained: Trained, accelerator) -> dict | None:
    """Restores what training changes and this process's random numbers; returns its `own`.

    None, and fresh random numbers, for a process the checkpoint knows nothing of: the run now has more of them.
    Raises CheckpointError for a checkpoint of another model or settings.
    """
    parts, reader = trained.parts(), Reader(path / "parts")
    reader.read_metadata()  # raises by itself where it is damaged
    try:
        with _without_warning():
            alone = accelerator.num_processes == 1
            load_parts(parts, storage_reader=reader, planner=Planner(), no_dist=alone)
    except (Exception, CheckpointException) as error:
        reason = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
        raise CheckpointError(
            f"{path}: does not fit this run ({reason}). It was saved with another model, other trained layers or "
            "another `ema`: give a new `output`, or remove the folder to begin anew."
        ) from error
    trained.restore(parts)
    own = path / f"rank-{accelerator.process_index}.pt"
    if not own.exists():
        return None
    try:
        state: Any = read_torch(own, own.read_bytes())
        set_random_state(state.pop("random"), accelerator.device)
    except CheckpointError:
        raise
    except Exception as error:  # values of any kind may stand in a damaged one
        raise CheckpointError(f"{own} is damaged ({shown(error)}). Remove the folder {path} to go on.") from error
    return state


def _complete(folder: Path) -> list[tuple[int, Path]]:
    if not folder.is_dir():
        return []
    return [(int(match[1]), path) for path in folder.iterdir() if (match := _NAME.fullmatch(path.name))]


@contextlib.contextmanager
def _without_warning():
    """Without being told at each checkpoint that one process is one process."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")
        yield


def random_state(device: torch.device) -> dict:
    """Of all that draws random numbers in this process, on this device."""
    kind, keys, place, has_gauss, gauss = np.random.get_state(legacy=True)
    assert isinstance(keys, np.ndarray)  # as legacy=True gives it
    state = {
        "torch": torch.get_rng_state(),
        "python": random.getstate(),
        "numpy": [kind, torch.from_numpy(keys.astype(np.int64)), place, has_gauss, gauss],
    }
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def set_random_state(state: dict, device: torch.device) -> None:
    """Back to what `random_state` gave."""
    torch.set_rng_state(state["torch"])
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)
