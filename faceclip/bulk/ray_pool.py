"""Workers on many machines: one Ray actor for each ComfyUI server. Ray only carries the work, `work.make_all` shares
it out, so the results are those of plain threads."""

import collections
import contextlib
import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ..comfy.server_errors import ServerError
from ..errors import DependencyError, FaceCLIPError
from ..files import remote
from ..install import extras
from .cell import Cell, Made
from .servers import ServerWorker

LOCAL = "local"  # as an address: Ray started here, for this run
_NEW_ACTORS = 3  # how often an actor that died is replaced
_POLL = 0.5
_PHOTOS = 256
_PACKAGE = Path(__file__).resolve().parents[1]
_MADE, _SERVER, _CELL = "made", "server", "cell"


class _Seat:
    """What runs inside an actor. Errors go back as words: not every exception survives the way between machines."""

    def __init__(self, factory: Callable[[str], Any], url: str, again: bool):
        self._worker = factory(url)
        self._worker.look_back = again or self._worker.look_back  # what the one before it has queued is not lost

    def make(self, cell: Cell, photos: dict[str, Any]) -> tuple[str, Made | str]:
        import ray

        try:
            return _MADE, self._worker.make(cell, lambda name: ray.get(photos[name]))
        except ServerError as error:
            return _SERVER, str(error)
        except FaceCLIPError as error:
            return _CELL, str(error)

    def revive(self) -> bool | str:
        try:
            return self._worker.revive(lambda: True)
        except ServerError as error:
            return str(error)

    def cancel(self) -> None:
        self._worker.cancel()


class RayWorker:
    """An actor as a worker. start: makes the actor. When it dies, or its machine, another one is made, up to three
    times between two pictures. photos: those of all workers."""

    def __init__(self, name: str, slots: int, start: Callable[[bool], Any], photos: "_Photos"):
        import ray

        self.name, self.slots, self._start, self._ray, self._photos = name, slots, start, ray, photos
        self._actor, self._died, self._left = start(False), False, _NEW_ACTORS
        self._replacing = threading.Lock()

    def make(self, cell: Cell) -> Made:
        actor = self._actor
        try:
            kind, value = self._ray.get(actor.make.remote(cell, self._photos.of(cell)))
        except self._ray.exceptions.RayActorError as error:
            self._died = self._died or actor is self._actor
            raise ServerError(f"the actor died: {_cause(error)}") from error
        except self._ray.exceptions.RayError as error:
            raise ServerError(f"Ray reports: {error}") from error
        if kind == _MADE:
            self._left = _NEW_ACTORS
            return value
        raise ServerError(value) if kind == _SERVER else FaceCLIPError(value)

    def revive(self, wanted: Callable[[], bool]) -> bool:
        with self._replacing:
            if self._died:
                if not self._left or not wanted():
                    return False
                self._left -= 1
                self._actor, self._died = self._start(True), False
        answer = self._actor.revive.remote()
        while wanted():
            ready, _ = self._ray.wait([answer], timeout=_POLL)
            if ready:
                try:
                    found = self._ray.get(answer)
                except self._ray.exceptions.RayActorError:
                    self._died = True
                    return False
                except self._ray.exceptions.RayError:
                    return False
                if isinstance(found, str):
                    raise ServerError(found)
                return found
        return False

    def cancel(self) -> None:
        with contextlib.suppress(self._ray.exceptions.RayError):
            self._ray.get(self._actor.cancel.remote(), timeout=5)

    def end(self) -> None:
        """Let the actor go."""
        with contextlib.suppress(self._ray.exceptions.RayError):
            self._ray.kill(self._actor)


class _Photos:
    """Photos in Ray's object store, each put there once and fetched by a machine once; the last ones that were used."""

    def __init__(self) -> None:
        self._stored: collections.OrderedDict[str, Any] = collections.OrderedDict()
        self._lock = threading.Lock()

    def of(self, cell: Cell) -> dict[str, Any]:
        """The server's name of each of the cell's photos -> its reference."""
        import ray

        with self._lock:
            for name, path in cell.uploads.items():
                if name not in self._stored:
                    self._stored[name] = ray.put(remote.read(path))
                self._stored.move_to_end(name)
            found = {name: self._stored[name] for name in cell.uploads}
            while len(self._stored) > _PHOTOS:
                self._stored.popitem(last=False)
        return found


@contextlib.contextmanager
def ray_workers(
    address: str, urls: Sequence[str], factory: Callable[[str], Any] = ServerWorker, slots: int = 1
) -> Iterator[list[RayWorker]]:
    """Actors for servers, on the Ray cluster at `address` ("local": one started here); all are gone afterwards.

    urls must be right where the actors run. factory(url) makes the worker inside an actor, which takes `slots` pictures
    at once; photos travel through Ray's object store. Raises DependencyError where Ray is missing, ServerError where
    it does not answer.
    """
    ray = _ray()
    with connected(address):
        # One call more than pictures: `cancel` must come through while `make` waits for them.
        seat = ray.remote(num_cpus=0, max_restarts=0, max_concurrency=slots + 1, scheduling_strategy="SPREAD")(_Seat)
        photos = _Photos()
        workers = [
            RayWorker(url, slots, lambda again, url=url: seat.remote(factory, url, again), photos) for url in urls
        ]
        try:
            yield workers
        finally:
            for worker in workers:
                worker.end()


def _cause(error: Exception) -> str:
    """What Ray says first, and the exception at the end of the traceback that it quotes."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ... ".join(dict.fromkeys((lines[0], lines[-1]))) if lines else type(error).__name__


def _ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would report to its makers over the network
    try:
        import ray
    except ImportError as error:
        raise DependencyError(
            f'--ray needs Ray, which the extra "ray" brings: {extras.install_line("ray")}\n'
            "For ComfyUI servers that this machine reaches, --server alone does."
        ) from error
    return ray


@contextlib.contextmanager
def connected(address: str) -> Iterator[None]:
    """Ray at an address, for as long as the block lasts; one that is connected already is used and left as it is."""
    ray = _ray()
    if address == LOCAL:
        # Ray's processes start with the folders of this one's environment, not with its sys.path.
        paths = os.pathsep.join(filter(None, (str(_PACKAGE.parent), os.environ.get("PYTHONPATH"))))
        options: dict[str, Any] = {"include_dashboard": False, "runtime_env": {"env_vars": {"PYTHONPATH": paths}}}
    else:
        # The other machines need this package, but none of the models that may lie in it.
        options = {"runtime_env": {"py_modules": [str(_PACKAGE)], "excludes": ["*.safetensors", "__pycache__"]}}
    if ray.is_initialized():
        yield
        return
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **options)
    except Exception as error:  # Ray raises plain Exception where a start takes too long
        raise ServerError(f"Ray at {address!r} cannot be used: {error}") from error
    try:
        yield
    finally:
        ray.shutdown()
