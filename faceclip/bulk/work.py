"""Making the missing pictures: a worker takes the next one when it is free, work of a lost worker goes to the others.

So a server that is slower gets less. Each has as many threads as `slots`, which keep its queue from running empty.
"""

import collections
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from ..comfy.server_errors import ServerError
from ..errors import FaceCLIPError
from .cell import Cell, Made

TRIES = 3  # how often one picture is begun, where workers are lost over it
_FIRST_FAILURES = 5  # failures in a row at the start, after which something is wrong with the whole, or with a worker
_TROUBLED = 3  # pictures in a row over which a worker was in trouble, after which it is given up
_STOP_SECONDS = 15.0
_POLL = 0.2


class Worker(Protocol):
    """Who makes pictures: a ComfyUI server, near or through an actor."""

    name: str
    slots: int  # how many pictures it takes at once: those after the first wait in its server's queue

    def make(self, cell: Cell) -> Made:
        """The picture. ServerError: the worker is lost or troubled; other FaceCLIPErrors: the cell's fault."""
        ...

    def revive(self, wanted: Callable[[], bool]) -> bool:
        """After a ServerError: True once it works again; gives up at some time, or when it is not `wanted`.

        ServerError: what answers there now is another one, which must make no picture.
        """
        ...

    def cancel(self) -> None:
        """Stop the pictures that it makes now; never raises."""
        ...


@dataclass
class Outcome:
    """made: how many pictures were made. failed: key -> why there is none. lost: workers that were given up, why."""

    made: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    lost: dict[str, str] = field(default_factory=dict)


@dataclass
class _Task:
    """A cell to make. tries: how often it was begun where the worker was in trouble; tried: by which workers."""

    cell: Cell
    tries: int = 1
    tried: set[int] = field(default_factory=set)


@dataclass
class _Record:
    """How a worker did so far. troubled: pictures over which it was in trouble since it last made one."""

    made: int = 0
    refused: int = 0
    troubled: set[str] = field(default_factory=set)


class _Work:
    """What the threads share."""

    def __init__(self, cells: Iterator[Cell], total: int, hooks: "Hooks", workers: int):
        self.source: Iterator[Cell] | None = cells
        self.todo: collections.deque[_Task] = collections.deque()  # what was given back
        self.alive = set(range(workers))
        self.records = [_Record() for _ in range(workers)]
        self.total, self.running = total, 0
        self.hooks = hooks
        self.outcome = Outcome()
        self.failures = 0
        self.stop = threading.Event()
        self.changed = threading.Condition()
        self.error: BaseException | None = None

    def take(self, worker: int) -> _Task | None:
        """The next cell for a worker; None at the end. Waits while others may still give theirs back.

        What failed on one worker is another one's turn, as long as there is one that has not tried it.
        """
        with self.changed:
            while not self.stop.is_set() and worker in self.alive:
                task = self._given_back(worker) or self._fresh()
                if task is not None:
                    self.running += 1
                    return task
                if not self.todo and not self.running:
                    return None
                self.changed.wait(_POLL)
        return None

    def _given_back(self, worker: int) -> _Task | None:
        for task in self.todo:
            if worker not in task.tried or self.alive <= task.tried:
                self.todo.remove(task)
                return task
        return None

    def _fresh(self) -> _Task | None:
        if self.source is None:
            return None
        try:
            return _Task(next(self.source))
        except StopIteration:
            self.source = None
        except BaseException as error:  # a file of jobs that cannot be read further, or a store: for the main thread
            self.fail(error)
        return None

    def left(self) -> int:
        """How many pictures are neither made nor failed."""
        return self.total - self.outcome.made - self.failures

    def wanted(self) -> bool:
        return not self.stop.is_set() and bool(self.todo or self.running or self.source is not None)

    def done(self, cell: Cell, failure: str | None = None) -> None:
        with self.changed:
            self.running -= 1
            if failure is None:
                self.outcome.made += 1
            else:
                self.failures += 1
                if self.hooks.failed is None:
                    self.outcome.failed[cell.key] = failure
                else:
                    self.hooks.failed(cell, failure)
            failures = self.failures
            if not self.outcome.made and failures >= min(_FIRST_FAILURES, self.total) and failures > 1:
                self.fail(
                    FaceCLIPError(f"The first {failures} pictures all failed, so this was stopped. The last: {failure}")
                )
            if self.hooks.progress and not self.stop.is_set():
                self.hooks.progress(self.outcome.made + failures, self.total)
            self.changed.notify_all()

    def give_back(self, task: _Task, worker: int, problem: str) -> None:
        """The worker is in trouble; the cell is tried again, but not for ever."""
        if task.tries >= TRIES:
            self.done(task.cell, f"tried {task.tries} times, the last: {problem}")
            return
        task.tries += 1
        self._put_back(task, worker)

    def refuse(self, task: _Task, worker: int, made: int, problem: str) -> bool:
        """The worker says that the cell is at fault; whether that counts against the worker.

        One that never made a picture may be wrong about it (an old version, a missing model): others are asked first.
        """
        with self.changed:
            others = self.alive - task.tried - {worker}
        if made or not others:
            self.done(task.cell, problem)
            return False
        self._put_back(task, worker)
        return True

    def _put_back(self, task: _Task, worker: int) -> None:
        with self.changed:
            task.tried.add(worker)
            self.running -= 1
            self.todo.appendleft(task)
            self.changed.notify_all()

    def lose(self, worker: int, name: str, reason: str) -> None:
        with self.changed:
            self.alive.discard(worker)
            self.outcome.lost[name] = reason
            self.changed.notify_all()

    def regain(self, worker: int, name: str) -> None:
        with self.changed:
            if worker not in self.alive:
                self.alive.add(worker)
                self.outcome.lost.pop(name, None)
                self.records[worker] = _Record(self.records[worker].made)
            self.changed.notify_all()

    def fail(self, error: BaseException) -> None:
        self.error = self.error or error
        self.stop.set()


@dataclass(frozen=True)
class Hooks:
    """What is called as pictures come, from any thread.

    keep(cell, made) stores a picture, several at a time. progress(done, total) is called after each, one at a time, and
    so is failed(cell, why), in whose place the outcome keeps the reasons where there is none.
    """

    keep: Callable[[Any, Made], None]
    progress: Callable[[int, int], None] | None = None
    failed: Callable[[Any, str], None] | None = None


def make_all(
    cells: Iterable[Cell],
    workers: Sequence[Worker],
    keep: Callable[[Any, Made], None],
    progress: Callable[[int, int], None] | None = None,
    failed: Callable[[Any, str], None] | None = None,
    total: int | None = None,
) -> Outcome:
    """Make every cell once, on whichever worker is free.

    cells: a sequence, or with `total` anything that gives them one by one; they are taken as they are needed.
    keep, progress, failed: as `Hooks` says. A cell that fails by itself is reported and the others go on. Raises
    FaceCLIPError where no worker is left or all of the first pictures fail. KeyboardInterrupt stops what runs on the
    workers and goes on up; what was kept stays.
    """
    if total is None:
        cells = list(cells)
        total = len(cells)
    if not total:
        return Outcome()
    work = _Work(iter(cells), total, Hooks(keep, progress, failed), len(workers))
    threads = [
        (worker, threading.Thread(target=_run, args=(number, worker, work), daemon=True))
        for number, worker in enumerate(workers)
        for _ in range(worker.slots)
    ]
    for _, thread in threads:
        thread.start()
    try:
        for _, thread in threads:
            while thread.is_alive() and not work.stop.is_set():
                thread.join(_POLL)
    finally:
        work.stop.set()
        _wind_up(threads)
    if work.error is not None:
        raise work.error
    if work.todo or work.source is not None:
        reasons = "\n".join(f"  {name}: {reason}" for name, reason in work.outcome.lost.items())
        raise ServerError(
            f"No server is left, {work.left()} of {work.total} pictures are missing.\n{reasons}\n"
            "Start ComfyUI again and repeat the command; what is done stays."
        )
    return work.outcome


def _wind_up(threads: Sequence[tuple[Worker, threading.Thread]]) -> None:
    """Cancel what still runs, and wait for the threads; one that does not come back is left, it keeps nothing."""
    deadline = time.monotonic() + _STOP_SECONDS
    for worker in {id(worker): worker for worker, thread in threads if thread.is_alive()}.values():
        worker.cancel()
    for _, thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))


def _is_back(number: int, worker: Worker, work: _Work, reason: str) -> bool:
    """Whether a worker in trouble works again. While there are others, one that is given up is still waited for."""
    try:
        while not worker.revive(work.wanted):
            if not work.wanted():
                return False
            work.lose(number, worker.name, reason)
            if not work.alive:
                return False
            work.stop.wait(_POLL)
    except ServerError as error:
        work.lose(number, worker.name, str(error))
        return False
    work.regain(number, worker.name)
    return True


def _run(number: int, worker: Worker, work: _Work) -> None:
    """One of a worker's threads."""
    while (task := work.take(number)) is not None:
        cell, record = task.cell, work.records[number]
        try:
            made = worker.make(cell)
        except ServerError as error:
            if work.stop.is_set():
                return
            record.troubled.add(cell.key)
            work.give_back(task, number, f"{worker.name}: {error}")
            if len(record.troubled) >= _TROUBLED * worker.slots:
                work.lose(number, worker.name, str(error))
                return
            if not _is_back(number, worker, work, str(error)):
                return
        except FaceCLIPError as error:
            record.refused += work.refuse(task, number, record.made, f"{worker.name}: {error}")
            if record.refused >= _FIRST_FAILURES:
                work.lose(number, worker.name, f"its first {record.refused} pictures all failed, the last: {error}")
                return
        except BaseException as error:  # a fault of ours, for the main thread to raise
            work.fail(error)
            return
        else:
            if work.stop.is_set():
                return
            try:
                work.hooks.keep(cell, made)
            except BaseException as error:  # a full disk, say: no picture would fare better
                work.fail(error)
                return
            record.made += 1
            record.troubled.clear()
            work.done(cell)
