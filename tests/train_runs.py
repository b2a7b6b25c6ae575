"""A tiny training run for the engine's tests, and processes that run, die and are stopped as real ones do."""

import json
import multiprocessing
import os
import signal
import socket
import sys
import tarfile
import time
from io import BytesIO
from multiprocessing import forkserver
from pathlib import Path

import numpy as np
import torch
from open_clip.loss import SigLipLoss
from torch import nn

from faceclip.train.data import ArrayData
from faceclip.train.engine import Settings, train

WIDTH, SAMPLES = 8, 60
# A server that has everything imported and forks a process in no time; made anew, so without threads of this one.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["train_runs"])


class Pairs(nn.Module):
    """Two vectors of a sample, drawn together by open_clip's sigmoid loss over the pairs of all processes."""

    def __init__(self, rank: int = 0, world: int = 1, dropout: float = 0.0, at: dict | None = None):
        super().__init__()
        torch.manual_seed(5)
        self.frozen = nn.Linear(WIDTH, WIDTH).requires_grad_(False)
        self.left = nn.Sequential(nn.Linear(WIDTH, 16), nn.GELU(), nn.Dropout(dropout), nn.Linear(16, WIDTH))
        self.right = nn.Linear(WIDTH, WIDTH)
        self.scale, self.bias = nn.Parameter(torch.tensor(2.0)), nn.Parameter(torch.tensor(-3.0))
        self.pairs = SigLipLoss(rank=rank, world_size=world)
        self.at, self.calls = at or {}, 0  # what happens at which call of forward
        self.seen: list[torch.Tensor] = []

    def forward(self, batch):
        self.calls += 1
        self.seen.append(batch["number"])
        if (action := self.at.get(self.calls)) is not None:
            action()
        left = nn.functional.normalize(self.left(self.frozen(batch["left"])), dim=-1)
        right = nn.functional.normalize(self.right(batch["right"]), dim=-1)
        loss = self.pairs(left.float(), right.float(), self.scale.exp(), self.bias)
        if self.at.get("nan") == self.calls:
            loss = loss * float("nan")
        return {"loss": loss, "scale": self.scale.detach()}


def arrays() -> ArrayData:
    generator = torch.Generator().manual_seed(9)
    left = torch.randn(SAMPLES, WIDTH, generator=generator)
    right = (left @ torch.randn(WIDTH, WIDTH, generator=generator)).numpy()
    return ArrayData({"left": left, "right": right, "number": np.arange(SAMPLES)}, transform=_jitter)


def _jitter(batch):
    # In float64 and tiny: several processes draw other numbers, but must agree to 1e-5.
    return {**batch, "left": batch["left"] + 1e-7 * torch.rand(len(batch["left"]), 1)}


def write_shards(folder: Path, shards: int = 4, samples: int = 15, suffix: str = "npy") -> list[str]:
    """Shards of numbered samples; a sample's vectors follow from its number."""
    folder.mkdir(parents=True, exist_ok=True)
    for shard in range(shards):
        with tarfile.open(folder / f"{shard:04d}.tar", "w") as tar:
            for index in range(samples):
                number = shard * samples + index
                _add(tar, f"{number:06d}.{suffix}", np.random.default_rng(number).normal(size=WIDTH).tobytes())
                _add(tar, f"{number:06d}.json", json.dumps({"number": number}).encode())
    return [str(folder / "*.tar")]


def _add(tar, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, BytesIO(content))


def decode(sample, random) -> dict:
    vector = np.frombuffer(sample["npy"], np.float64).astype(np.float32)
    if len(vector) != WIDTH:
        raise ValueError(f"{len(vector)} numbers, {WIDTH} wanted")
    right = vector[::-1] + random.normal(scale=0.1, size=WIDTH).astype(np.float32)
    return {"left": vector, "right": right, "number": json.loads(sample["json"])["number"]}


def settings(output: Path, **changes) -> Settings:
    usual = {"steps": 12, "batch_size": 6, "learning_rate": 0.01, "warmup": 3}
    usual |= {"save_every": 3, "log_every": 4, "keep": 20}
    return Settings(output, **{**usual, **changes})


def keep_weights(module: nn.Module, folder: Path) -> None:
    torch.save(module.state_dict(), folder / "weights.pt")


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def run(output: Path, make_data=arrays, at: dict | None = None, **changes):
    """One run to its end, in this process."""
    torch.set_num_threads(1)
    return train(Pairs(dropout=0.2, at=at), make_data(), settings(output, **changes), keep_weights)


def in_process(target, *args, rank: int | None = None, world: int = 1, port: int = 0, **kwargs):
    """A process that leads a group of its own, as a job does; with a rank, one of several that train together."""
    environment = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world}
    environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "ACCELERATE_USE_CPU": "true"}
    if PROCESSES.get_start_method() == "forkserver":
        _start_server()
    process = PROCESSES.Process(
        target=_start, args=(environment if rank is not None else {}, target, *args), kwargs=kwargs
    )
    process.start()
    return process


def _start_server() -> None:
    # It takes its modules from PYTHONPATH alone, and without them each process would import everything anew.
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)
    try:
        forkserver.ensure_running()
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


def _start(environment, target, *args, **kwargs) -> None:
    os.setsid()
    os.environ.update({name: str(value) for name, value in environment.items()})
    multiprocessing.set_start_method("fork", force=True)  # of the data's workers
    torch.set_num_threads(1)
    target(*args, **kwargs)


def together(target, *args, world: int = 2, **kwargs) -> None:
    """Runs target(rank, world, *args) in `world` processes and waits for all of them to succeed."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [
        in_process(target, rank, world, *args, rank=rank, world=world, port=port, **kwargs) for rank in range(world)
    ]
    try:
        for process in processes:
            process.join(300)
        assert [process.exitcode for process in processes] == [0] * world
    finally:
        for process in processes:
            process.kill()


def wait_for(condition, seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def stored(output: Path, folder: Path) -> dict:
    """Everything in a run's last checkpoint, as tensors and numbers by name."""
    from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

    from faceclip.train.resume import latest

    target = folder / f"{output.name}.pt"
    dcp_to_torch_save(latest(output / "checkpoints") / "parts", target)
    found: dict = {}
    _flatten(torch.load(target, weights_only=False), "", found)
    return found


def _flatten(value, name: str, found: dict) -> None:
    if isinstance(value, dict | list):
        entries = value.items() if isinstance(value, dict) else enumerate(value)
        for key, entry in entries:
            _flatten(entry, f"{name}/{key}", found)
    else:
        found[name] = value


def assert_equal(first: dict, second: dict) -> None:
    """The same names, and bit for bit the same tensors."""
    assert list(first) == list(second)
    for name, value in first.items():
        same = torch.equal(value, second[name]) if isinstance(value, torch.Tensor) else value == second[name]
        assert same, name
