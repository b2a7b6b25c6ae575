"""Making the missing pictures: one thread for each worker, work of a lost worker goes to the others."""

import collections
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from ..comfy.server_errors import ServerError
from ..errors import FaceCLIPError
from .grid import Cell

TRIES = 3  # how often one picture is begun, where workers are lost over it
_FIRST_FAILURES = 5  # failures in a row at the start, after which something is wrong with the whole, or with a worker
_TROUBLED = 3  # pictures in a row over which a worker was in trouble, after which it is given up
_STOP_SECONDS = 15.0
_POLL = 0.2


class Worker(Protocol):
    """Who makes pictures: a ComfyUI server, near or through an actor."""

    name: str

    def make(self, cell: Cell) -> bytes:
        """The picture's file. ServerError: the worker is lost or troubled; other FaceCLIPErrors: the cell's fault."""
        ...

    def revive(self, wanted: Callable[[], bool]) -> bool:
        """After a ServerError: True once it works again; gives up at some time, or when it is not `wanted`."""
        ...

    def cancel(self) -> None:
        """Stop the picture that it makes now; never raises."""
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


class _Work:
    """What the threads share."""

    def __init__(self, cells: Sequence[Cell], keep: Callable[[Cell, bytes], None], progress, workers: int):
        self.todo = collections.deque(map(_Task, cells))
        self.alive = set(range(workers))
        self.total, self.running = len(cells), 0
        self.keep, self.progress = keep, progress
        self.outcome = Outcome()
        self.stop = threading.Event()
        self.changed = threading.Condition()
        self.error: BaseException | None = None

    def take(self, worker: int) -> _Task | None:
        """The next cell for a worker; None at the end. Waits while others may still give theirs back.

        What failed on one worker is another one's turn, as long as there is one that has not tried it.
        """
        with self.changed:
            while not self.stop.is_set():
                for task in self.todo:
                    if worker not in task.tried or self.alive <= task.tried:
                        self.todo.remove(task)
                        self.running += 1
                        return task
                if not self.todo and not self.running:
                    return None
                self.changed.wait(_POLL)
        return None

    def wanted(self) -> bool:
        return not self.stop.is_set() and bool(self.todo or self.running)

    def done(self, cell: Cell, failure: str | None = None) -> None:
        with self.changed:
            self.running -= 1
            if failure is None:
                self.outcome.made += 1
            else:
                self.outcome.failed[cell.key] = failure
            failures = len(self.outcome.failed)
            if not self.outcome.made and failures >= min(_FIRST_FAILURES, self.total) and failures > 1:
                self.fail(
                    FaceCLIPError(f"The first {failures} pictures all failed, so this was stopped. The last: {failure}")
                )
            if self.progress and not self.stop.is_set():
                self.progress(self.outcome.made + failures, self.total)
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

    def fail(self, error: BaseException) -> None:
        self.error = self.error or error
        self.stop.set()


def make_all(
    cells: Sequence[Cell],
    workers: Sequence[Worker],
    keep: Callable[[Cell, bytes], None],
    progress: Callable[[int, int], None] | None = None,
) -> Outcome:
    """Make every cell once, on whichever worker is free.

    keep(cell, data) stores a picture; progress(done, total) is called after each, from any thread, one at a time.
    A cell that fails by itself is reported in the outcome and the others go on. Raises FaceCLIPError where no worker
    is left or all of the first pictures fail. KeyboardInterrupt stops what runs on the workers and goes on up; what
    was kept stays.
    """
    if not cells:
        return Outcome()
    work = _Work(cells, keep, progress, len(workers))
    threads = [
        threading.Thread(target=_run, args=(number, worker, work), daemon=True) for number, worker in enumerate(workers)
    ]
    for thread in threads:
        thread.start()
    try:
        while any(thread.is_alive() for thread in threads):
            threads[0].join(_POLL) if threads[0].is_alive() else time.sleep(_POLL)
            if work.stop.is_set():
                break
    finally:
        work.stop.set()
        _wind_up(threads, workers)
    if work.error is not None:
        raise work.error
    if work.todo:
        reasons = "\n".join(f"  {name}: {reason}" for name, reason in work.outcome.lost.items())
        raise ServerError(
            f"No server is left, {len(work.todo)} of {work.total} pictures are missing.\n{reasons}\n"
            "Start ComfyUI again and repeat the command; what is done stays."
        )
    return work.outcome


def _wind_up(threads: Sequence[threading.Thread], workers: Sequence[Worker]) -> None:
    """Cancel what still runs, and wait for the threads; one that does not come back is left, it keeps nothing."""
    deadline = time.monotonic() + _STOP_SECONDS
    for thread, worker in zip(threads, workers, strict=True):
        if thread.is_alive():
            worker.cancel()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))


def _run(number: int, worker: Worker, work: _Work) -> None:
    """One worker's thread."""
    made, refused, troubled = 0, 0, set()
    while (task := work.take(number)) is not None:
        cell = task.cell
        try:
            data = worker.make(cell)
            if work.stop.is_set():
                return
            work.keep(cell, data)
        except ServerError as error:
            if work.stop.is_set():
                return
            troubled.add(cell.key)
            work.give_back(task, number, f"{worker.name}: {error}")
            if len(troubled) >= _TROUBLED or not worker.revive(work.wanted):
                if work.wanted():
                    work.lose(number, worker.name, str(error))
                return
        except FaceCLIPError as error:
            refused += work.refuse(task, number, made, f"{worker.name}: {error}")
            if refused >= _FIRST_FAILURES:
                work.lose(number, worker.name, f"its first {refused} pictures all failed, the last: {error}")
                return
        except BaseException as error:  # a fault of ours, or a full disk: for the main thread to raise
            work.fail(error)
            return
        else:
            made += 1
            troubled.clear()
            work.done(cell)
