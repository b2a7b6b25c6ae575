"""The training loop: exact resume, several processes as one, complete checkpoints, errors that name the step."""

import errno
import itertools
import os
import random
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

pytest.importorskip("accelerate", reason="training's own requirements are not installed")
pytest.importorskip("webdataset", reason="training's own requirements are not installed")
pytest.importorskip("tqdm", reason="training's own requirements are not installed")

import train_runs as runs

from faceclip.errors import CheckpointError, InputError
from faceclip.train import resume
from faceclip.train.data import ArrayData
from faceclip.train.engine import TrainingError, train
from faceclip.train.examination import Examination
from faceclip.train.shard_reader import ShardData


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def shard_data(folder: Path) -> ShardData:
    return ShardData(str(folder / "*.tar"), runs.decode, workers=2)


class _Shards:
    """Makes the data in whichever process it is called."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __call__(self):
        return shard_data(self.folder)


def broken_shards(folder: Path) -> Path:
    runs.write_shards(folder, shards=5, samples=12)
    content = (folder / "0002.tar").read_bytes()
    (folder / "0002.tar").write_bytes(content[: len(content) * 2 // 3])
    return folder


def kill_in_save() -> None:
    os.replace = lambda *names: runs.kill()


@pytest.mark.parametrize("kind", ["arrays", "shards"])
def test_killed_and_resumed_is_bit_for_bit_a_run_never_killed(kind, tmp_path):
    make = runs.arrays if kind == "arrays" else _Shards(broken_shards(tmp_path / "shards"))
    changes = {"ema": 0.9, "accumulate": 2}
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    result = runs.run(whole, make, **changes)
    assert (result.step, result.stopped) == (12, False)
    for _ in range(2):
        # A checkpoint is made every 3 steps of 2 micro steps, so each try comes further than the last.
        process = runs.in_process(runs.run, cut, make, {random.randint(8, 11): runs.kill}, **changes)
        process.join(300)
        assert process.exitcode == -signal.SIGKILL
    assert resume.latest(cut / "checkpoints").name == "step-00000006"
    assert runs.run(cut, make, **changes).step == 12
    runs.assert_equal(torch.load(whole / "weights.pt"), torch.load(cut / "weights.pt"))
    runs.assert_equal(runs.stored(whole, tmp_path), runs.stored(cut, tmp_path))


def test_a_killed_save_leaves_nothing_that_looks_complete(tmp_path):
    process = runs.in_process(runs.run, tmp_path, runs.arrays, {5: kill_in_save})
    process.join(300)
    assert process.exitcode == -signal.SIGKILL
    folder = tmp_path / "checkpoints"
    assert sorted(path.name for path in folder.iterdir()) == [".step-00000006.new", "step-00000003"]
    assert resume.latest(folder).name == "step-00000003"
    assert runs.run(tmp_path, keep=2).step == 12
    assert sorted(path.name for path in folder.iterdir()) == ["step-00000009", "step-00000012"]


_decoded = itertools.count()


def _stuck_after_two_batches(sample, random) -> dict:
    if next(_decoded) >= 12:
        time.sleep(1000)
    return runs.decode(sample, random)


def _fail_beside_stuck_workers(output: Path, shards: list[str]) -> None:
    def fail():
        (output / "failed").touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    runs.run(output, lambda: ShardData(shards, _stuck_after_two_batches, workers=2), {2: fail})


def test_a_run_that_fails_ends_whatever_its_workers_do(tmp_path):
    """Python's own end waited for them for ever: they ignore the signal that stops them."""
    process = runs.in_process(_fail_beside_stuck_workers, tmp_path, runs.write_shards(tmp_path / "shards"))
    runs.wait_for((tmp_path / "failed").exists)
    process.join(30)  # a loader waits 5 s for each of its workers
    assert process.exitcode == 1


def _slowly(output: Path, make) -> None:
    slow = {4: (output / "started").touch, **dict.fromkeys(range(5, 100), lambda: time.sleep(0.2))}
    result = runs.run(output, make, at=slow, save_every=1000)
    (output / "stopped").write_text(f"{result.stopped} {result.step}")


def test_sigterm_saves_and_stops_and_the_run_goes_on_exactly(tmp_path):
    make = _Shards(broken_shards(tmp_path / "shards"))
    runs.run(tmp_path / "whole", make)
    stopped = tmp_path / "stopped"
    stopped.mkdir()
    process = runs.in_process(_slowly, stopped, make)
    runs.wait_for((stopped / "started").exists)
    # To the whole group, the data's workers too, as a batch system does.
    os.killpg(process.pid, signal.SIGTERM)
    process.join(300)
    assert process.exitcode == 0
    was_stopped, step = (stopped / "stopped").read_text().split()
    assert was_stopped == "True" and 1 <= int(step) < 12
    assert resume.latest(stopped / "checkpoints").name == f"step-{int(step):08d}"
    assert not (stopped / "weights.pt").exists()
    runs.run(stopped, make)
    runs.assert_equal(torch.load(tmp_path / "whole" / "weights.pt"), torch.load(stopped / "weights.pt"))


def _gradients(rank: int, world: int, folder: Path, batch_size: int, fsdp: bool = False) -> None:
    """Three steps; what each gave, and the gradients of the first."""
    gradients: dict[str, torch.Tensor] = {}
    module = runs.Pairs(rank, world)
    names = [name for name, weight in module.named_parameters() if weight.requires_grad]

    def look(optimizer, args, kwargs):
        weights = sorted((weight for group in optimizer.param_groups for weight in group["params"]), key=_size)
        for number, weight in enumerate(weights):
            value = weight.grad.full_tensor() if fsdp else weight.grad
            gradients.setdefault(f"{number}", value.clone())

    hook = register_optimizer_step_pre_hook(look)
    changes = {"batch_size": batch_size, "steps": 3, "max_grad_norm": 1e9, "ema": 0.9, "warmup": 0, "log_every": 1}
    chosen = runs.settings(folder, **changes)
    accelerator = _sharding(chosen) if fsdp else None
    result = train(module, runs.arrays(), chosen, runs.keep_weights, accelerator)
    hook.remove()
    assert len(names) == len(gradients)
    torch.save({"gradients": gradients, "loss": result.losses["loss"]}, folder / f"found-{rank}.pt")


def _size(weight: torch.Tensor) -> tuple:
    return tuple(weight.shape) or (1,)


def _sharding(chosen):
    """FSDP on CPUs: accelerate itself offers it on GPUs alone."""
    from accelerate.state import AcceleratorState
    from accelerate.utils import FullyShardedDataParallelPlugin

    from faceclip.train.processes import make_accelerator

    accelerator = make_accelerator(chosen)
    plugin = FullyShardedDataParallelPlugin(fsdp_version=2, cpu_ram_efficient_loading=False)
    AcceleratorState._shared_state.update(distributed_type="FSDP", fsdp_plugin=plugin)
    return accelerator


@pytest.mark.parametrize("fsdp", [False, True], ids=["ddp", "fsdp"])
def test_two_processes_are_one_with_the_joined_batch(fsdp, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    _gradients(0, 1, one, 12)
    runs.together(_gradients, two, 6, fsdp)
    expected = torch.load(one / "found-0.pt")
    weights = torch.load(one / "weights.pt"), torch.load(two / "weights.pt")
    for rank in range(2):
        found = torch.load(two / f"found-{rank}.pt")
        assert found["loss"] == pytest.approx(expected["loss"], rel=1e-5)
        for name, value in expected["gradients"].items():
            torch.testing.assert_close(found["gradients"][name].reshape(value.shape), value, rtol=1e-5, atol=1e-6)
    assert list(weights[0]) == list(weights[1])
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, rtol=1e-3, atol=1e-4)


def _stopped_and_resumed(rank: int, world: int, folder: Path, fsdp: bool) -> None:
    """Three runs: one to its end, one that a signal to one process stops, and its rest."""
    stop = {3: lambda: os.kill(os.getpid(), signal.SIGTERM)} if rank else {}
    steps = []
    for output, at in (("whole", {}), ("cut", stop), ("cut", {})):
        module = runs.Pairs(rank, world, dropout=0.2, at=at)
        chosen = runs.settings(folder / output, ema=0.9, accumulate=2, steps=8)
        accelerator = _sharding(chosen) if fsdp else None
        steps.append(train(module, runs.arrays(), chosen, runs.keep_weights, accelerator))
    assert [result.stopped for result in steps] == [False, True, False]
    assert [result.step for result in steps] == [8, 3, 8]  # one process hears of the signal a step later


@pytest.mark.parametrize("fsdp", [False, True], ids=["ddp", "fsdp"])
def test_a_signal_to_one_process_stops_all_and_they_go_on_exactly(fsdp, tmp_path):
    runs.together(_stopped_and_resumed, tmp_path, fsdp)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    runs.assert_equal(torch.load(whole / "weights.pt"), torch.load(cut / "weights.pt"))
    runs.assert_equal(runs.stored(whole, tmp_path), runs.stored(cut, tmp_path))
    random_states = [torch.load(run / "checkpoints/step-00000008/rank-1.pt")["random"]["torch"] for run in (whole, cut)]
    assert torch.equal(*random_states)


@pytest.mark.parametrize("looked_at_once", [True, False], ids=["cpu", "as on a gpu"])
def test_a_loss_that_is_not_finite_stops_with_the_step_named(looked_at_once, tmp_path, monkeypatch):
    if not looked_at_once:
        monkeypatch.setattr("faceclip.train.engine.math.isfinite", lambda value: True)
    with pytest.raises(
        TrainingError, match=r"^Step 5: not finite \(loss nan, scale [12]\.\d+, grad_norm nan\).*of step 3"
    ):
        runs.run(tmp_path, at={"nan": 5})
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000003"]


def test_a_batch_is_over_fitted(tmp_path):
    data = runs.arrays()
    one_batch = ArrayData({name: values[:6] for name, values in data.arrays.items()})
    losses = []
    module = runs.Pairs()
    module.register_forward_hook(lambda module, batch, values: losses.append(float(values["loss"].detach())))
    train(module, one_batch, runs.settings(tmp_path, steps=300, learning_rate=0.02, save_every=1000))
    assert losses[-1] < 0.02 < 0.5 < losses[0]


def test_an_average_of_the_weights_is_exported_and_stays_in_the_module(tmp_path):
    plain, averaged = runs.Pairs(), runs.Pairs()
    train(plain, runs.arrays(), runs.settings(tmp_path / "plain"))
    train(averaged, runs.arrays(), runs.settings(tmp_path / "averaged", ema=0.5), runs.keep_weights)
    found = torch.load(tmp_path / "averaged" / "weights.pt")
    runs.assert_equal(found, averaged.state_dict())
    assert not torch.equal(found["right.weight"], plain.right.weight)
    # Half of it is the last step's.
    torch.testing.assert_close(found["right.weight"], plain.right.weight.detach(), atol=0.03, rtol=0)


class _Wide(torch.nn.Module):
    """One matrix, as large as what bitsandbytes keeps the moments of in bytes."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = torch.nn.Linear(64, 64), torch.nn.Linear(64, 64)

    def forward(self, batch):
        return {"loss": (self.second(self.first(batch["given"])) - batch["wanted"]).square().mean()}


def _wide() -> ArrayData:
    generator = torch.Generator().manual_seed(1)
    return ArrayData({name: torch.randn(48, 64, generator=generator) for name in ("given", "wanted")})


@pytest.mark.parametrize("name", ["adafactor", "adamw8bit"])
def test_other_optimisers_learn_and_go_on_exactly(name, tmp_path):
    losses = {}
    for output, steps in (("whole", (12,)), ("cut", (6, 12))):
        for step in steps:
            changes = {"steps": step, "optimizer": name, "schedule": "constant", "weight_decay": 0.0, "log_every": 1}
            result = train(_Wide(), _wide(), runs.settings(tmp_path / output, **changes), runs.keep_weights)
            losses[output, step] = result.losses["loss"]
    assert losses["whole", 12] < losses["cut", 6] < 1.5
    runs.assert_equal(*(torch.load(tmp_path / output / "weights.pt") for output in ("whole", "cut")))


def test_a_part_may_have_a_learning_rate_of_its_own(tmp_path):
    plain, slow = _Wide(), _Wide()
    before = plain.first.weight.detach().clone()
    train(plain, _wide(), runs.settings(tmp_path / "plain", steps=1, warmup=0))
    train(slow, _wide(), runs.settings(tmp_path / "slow", steps=1, warmup=0, rates={"first": 0.1, "first.bias": 5.0}))
    assert torch.equal(plain.second.weight, slow.second.weight)
    moved = [(module.first.weight - before).abs().mean().item() for module in (plain, slow)]
    assert moved[1] == pytest.approx(0.1 * moved[0], rel=1e-3)
    with pytest.raises(
        InputError, match="rates: third given, but no trained weight has such a name; one is first.weight"
    ):
        train(_Wide(), _wide(), runs.settings(tmp_path / "wrong", rates={"third": 2.0}))


def test_a_compiled_run_gives_the_same(tmp_path, monkeypatch):
    """Traced by torch's own compiler, but with no C++ compiler behind it."""
    real = torch.nn.Module.compile
    asked = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: asked.append(self) or real(self, backend="eager"))
    found = [_Wide(), _Wide()]
    for module, compiled in zip(found, (False, True), strict=True):
        train(module, _wide(), runs.settings(tmp_path / str(compiled), steps=2, compile=compiled), runs.keep_weights)
    assert asked == [found[1]]
    torch.testing.assert_close(found[0].state_dict(), found[1].state_dict())


def test_a_run_that_is_at_its_end_only_exports_again(tmp_path):
    first = runs.run(tmp_path)
    (tmp_path / "weights.pt").unlink()
    assert runs.run(tmp_path, at={1: runs.kill}) == first
    assert (tmp_path / "weights.pt").exists()


def test_time_ends_a_run_and_takes_the_learning_rate_to_zero(tmp_path, monkeypatch):
    rates = []
    seconds = itertools.count()
    monkeypatch.setattr("faceclip.train.engine.time", SimpleNamespace(monotonic=lambda: next(seconds)))
    hook = register_optimizer_step_pre_hook(
        lambda optimizer, args, kwargs: rates.append(optimizer.param_groups[0]["lr"])
    )
    result = train(runs.Pairs(), runs.arrays(), runs.settings(tmp_path, steps=10**6, minutes=0.5, schedule="linear"))
    hook.remove()
    assert 15 < result.step < 30 and not result.stopped
    assert max(rates) < 0.01 and rates[-1] < 0.1 * max(rates)


def test_gradient_checkpointing_is_asked_of_the_module(tmp_path):
    module = runs.Pairs()
    with pytest.raises(InputError, match="gradient_checkpointing: true given"):
        train(module, runs.arrays(), runs.settings(tmp_path, gradient_checkpointing=True))
    asked = []
    module.enable_gradient_checkpointing = lambda: asked.append(True)
    train(module, runs.arrays(), runs.settings(tmp_path, steps=1, gradient_checkpointing=True))
    assert asked == [True]


def test_bf16_is_autocast_and_another_precision_may_follow_in_one_process(tmp_path):
    dtypes = []
    for precision in ("bf16", "no"):
        module = runs.Pairs()
        module.right.register_forward_hook(lambda module, values, result: dtypes.append(result.dtype))
        train(module, runs.arrays(), runs.settings(tmp_path / precision, steps=1, precision=precision))
    assert dtypes == [torch.bfloat16, torch.float32]
    assert module.right.weight.dtype == torch.float32


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    runs.run(tmp_path)
    other = runs.Pairs()
    other.right = torch.nn.Linear(runs.WIDTH, runs.WIDTH, bias=False)
    other.extra = torch.nn.Linear(3, 3)
    with pytest.raises(CheckpointError, match="step-00000012: does not fit this run"):
        train(other, runs.arrays(), runs.settings(tmp_path, steps=20))
    with pytest.raises(CheckpointError, match="does not fit this run"):
        runs.run(tmp_path, ema=0.9, steps=20)


def test_another_batch_size_goes_on_after_as_many_samples(tmp_path, caplog):
    runs.run(tmp_path)
    module = runs.Pairs()
    train(module, runs.arrays(), runs.settings(tmp_path, steps=13, batch_size=12))
    assert "has 12 on 1: it goes on after about as many samples" in caplog.text
    expected = next(runs.arrays().batches(0, 1, 12, 0, 6))["number"]
    assert torch.equal(module.seen[0], expected)


def test_tensorboard_is_written(tmp_path):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    runs.run(tmp_path, trackers=("tensorboard",))
    folder = next((tmp_path / "logs").rglob("events*")).parent
    found = events.EventAccumulator(str(tmp_path / "logs" / "train"))
    found.Reload()
    assert {"loss", "scale", "grad_norm", "learning_rate", "samples_per_second"} <= set(found.Tags()["scalars"]), folder
    assert [event.step for event in found.Scalars("loss")] == [4, 8, 12]


def test_arrays_are_split_over_ranks_and_begin_anywhere():
    data = runs.arrays()
    whole, parts = data.batches(0, 1, 12, 3, 0), [data.batches(rank, 2, 6, 3, 0) for rank in range(2)]
    epoch = [next(whole)["number"] for _ in range(5)]
    for batch in epoch:
        assert torch.equal(batch, torch.cat([next(part)["number"] for part in parts]))
    assert torch.cat(epoch).sort().values.tolist() == list(range(60))
    second = next(whole)["number"]
    assert not torch.equal(second, epoch[0])
    assert torch.equal(next(data.batches(0, 1, 12, 3, 5))["number"], second)
    assert not torch.equal(next(data.batches(0, 1, 12, 4, 0))["number"], epoch[0])


def test_arrays_take_tensors_arrays_and_lists_of_one_length():
    data = ArrayData({"text": ["a", "b"], "number": torch.arange(2)}, lambda batch: {**batch, "more": 1})
    batch = next(data.batches(0, 1, 2, 0))
    assert [batch["text"][int(number)] for number in batch["number"].argsort()] == ["a", "b"] and batch["more"] == 1
    with pytest.raises(InputError, match="2 samples do not fill one batch of 4 "):
        next(data.batches(0, 2, 2, 0))
    with pytest.raises(InputError, match="of one length"):
        ArrayData({"text": ["a"], "number": torch.arange(2)})


class _Look:
    """Keeps the weights that it is shown, and likes the second time best."""

    score = "far"

    def __init__(self):
        self.seen, self.values = [], iter((3.0, 1.0, 2.0, 2.0))

    def __call__(self, module, batches, step, main):
        torch.rand(7)  # which the training must not notice
        self.seen.append((step, module.right.weight.detach().clone(), [batch["number"] for batch in batches]))
        return {"far": next(self.values)}


def test_held_out_samples_are_seen_with_the_average_and_leave_no_trace(tmp_path):
    plain = runs.run(tmp_path / "plain", schedule="constant")
    look, batches = _Look(), [{"number": torch.arange(3)}]
    module = runs.Pairs(dropout=0.2)
    settings = runs.settings(tmp_path / "looked", ema=0.5, schedule="constant")
    result = train(module, runs.arrays(), settings, examination=Examination(3, lambda: iter(batches), look))
    assert result.losses == plain.losses
    whole = runs.stored(tmp_path / "plain", tmp_path)
    assert [step for step, *_ in look.seen] == [3, 6, 9, 12] and look.seen[0][2][0].tolist() == [0, 1, 2]
    # The last look is at what is then exported; in between, training went on with its own weights.
    parts = runs.stored(tmp_path / "looked", tmp_path)
    assert torch.equal(parts["/module/right.weight"], whole["/module/right.weight"])
    assert torch.equal(look.seen[-1][1], parts["/ema/right.weight"])
    assert not torch.equal(look.seen[-1][1], parts["/module/right.weight"])
    best = resume.latest(tmp_path / "looked" / "best")
    assert best.name == "step-00000006" and resume.read_position(best)["best"] == 1.0
    assert [path.name for path in best.parent.iterdir()] == ["step-00000006"]


def test_a_tracker_that_is_not_installed_is_told_before_the_first_step(tmp_path):
    with pytest.raises(InputError, match="trackers: aim given, but it is not installed"):
        runs.run(tmp_path, at={1: runs.kill}, trackers=("aim",))
