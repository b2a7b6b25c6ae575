"""Workers on many machines: one Ray actor for each ComfyUI server. Ray only carries the work, `work.make_all` shares
it out, so the results are those of plain threads."""

import contextlib
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..comfy.server_errors import ServerError
from ..errors import DependencyError, FaceCLIPError
from ..install import extras
from .grid import Cell
from .servers import ServerWorker
from .work import Worker

LOCAL = "local"  # as an address: Ray started here, for this run
_NEW_ACTORS = 3  # how often an actor that died is replaced
_POLL = 0.5
_PACKAGE = Path(__file__).resolve().parents[1]
_MADE, _SERVER, _CELL = "made", "server", "cell"


class _Seat:
    """What runs inside an actor. Errors go back as words: not every exception survives the way between machines."""

    def __init__(self, factory: Callable[..., Worker], url: str, photos: dict):
        import ray

        self._worker = factory(url, lambda name: ray.get(photos[name]))

    def make(self, cell: Cell) -> tuple[str, bytes | str]:
        try:
            return _MADE, self._worker.make(cell)
        except ServerError as error:
            return _SERVER, str(error)
        except FaceCLIPError as error:
            return _CELL, str(error)

    def revive(self) -> bool:
        return self._worker.revive(lambda: True)

    def cancel(self) -> None:
        self._worker.cancel()


class RayWorker:
    """An actor as a worker. start: makes the actor. When it dies another one is made, up to three times."""

    def __init__(self, name: str, start: Callable):
        import ray

        self.name, self._start, self._ray = name, start, ray
        self._actor, self._died, self._left = start(), False, _NEW_ACTORS

    def make(self, cell: Cell) -> bytes:
        try:
            kind, value = self._ray.get(self._actor.make.remote(cell))
        except self._ray.exceptions.RayActorError as error:
            self._died = True
            raise ServerError(f"the actor died: {_cause(error)}") from error
        except self._ray.exceptions.RayError as error:
            raise ServerError(f"Ray reports: {error}") from error
        if kind == _MADE:
            return value
        raise ServerError(value) if kind == _SERVER else FaceCLIPError(value)

    def revive(self, wanted: Callable[[], bool]) -> bool:
        if self._died:
            if not self._left or not wanted():
                return False
            self._left -= 1
            self._actor, self._died = self._start(), False
        answer = self._actor.revive.remote()
        while wanted():
            ready, _ = self._ray.wait([answer], timeout=_POLL)
            if ready:
                try:
                    return self._ray.get(answer)
                except self._ray.exceptions.RayError:
                    return False
        return False

    def cancel(self) -> None:
        with contextlib.suppress(self._ray.exceptions.RayError):
            self._ray.get(self._actor.cancel.remote(), timeout=5)

    def end(self) -> None:
        """Let the actor go."""
        with contextlib.suppress(self._ray.exceptions.RayError):
            self._ray.kill(self._actor)


@contextlib.contextmanager
def ray_workers(
    address: str, urls: Sequence[str], photos: Mapping[str, Path], factory: Callable[..., Worker] = ServerWorker
) -> Iterator[list[RayWorker]]:
    """Actors for servers, on the Ray cluster at `address` ("local": one started here); all are gone afterwards.

    urls must be right where the actors run. photos: server's name -> file; they travel through Ray's object store.
    factory(url, read) makes the worker inside an actor. Raises DependencyError where Ray is missing, ServerError where
    it does not answer.
    """
    ray = _ray()
    with connected(address):
        stored = {name: ray.put(path.read_bytes()) for name, path in photos.items()}
        # Two calls at a time: `cancel` must come through while `make` waits for a picture.
        seat = ray.remote(num_cpus=0, max_restarts=0, max_concurrency=2)(_Seat)
        workers = [RayWorker(url, lambda url=url: seat.remote(factory, url, stored)) for url in urls]
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
            f'--ray needs Ray, which the extra "eval" brings: {extras.install_line("eval")}\n'
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
