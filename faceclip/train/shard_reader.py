"""Training data in webdataset shards, for what does not fit in memory: tar files of samples, local or behind a URL.

The order follows from the seed alone. Each worker of each process is one stream with its own share of the shards
(faceclip.train.shard_stream); to go on after a stop it reads again what it had read and not used, and decodes nothing
twice.
"""

import functools
import glob
import logging
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

from ..errors import DependencyError, InputError, shown
from ..install import extras
from . import shard_file
from .data import Batch
from .shard_stream import Place, Stream

log = logging.getLogger(__name__)

_KINDS = ("samples", "shards")


class ShardData:
    """Endless, shuffled batches out of webdataset shards.

    urls: paths and URLs of any storage that fsspec knows, with globs ("s3://bucket/*.tar") and brace expressions
    ("s3://bucket/{0000..0999}.tar"), or "pipe:command".
    decode(sample, random) -> dict | None makes one training sample; sample has the members' bytes by suffix ("jpg",
    "face0.png", "json") and "__key__"; random, a numpy Generator, depends on the seed, the sample and the epoch only.
    None leaves a sample out, LeftOut counts it as one of decode's `reasons`. It runs in worker processes, so it must be
    picklable. Where it has `group(sample)`, the samples of a batch are of one group: pictures of one shape.
    workers: processes that decode, 0 for none. shuffle: shards that a worker reads at a time. buffer: samples that it
    mixes with each other and holds in memory.

    A shard or sample that cannot be read or decoded is left out, counted (`skipped()`) and told in the log; of a shard
    that breaks off, the samples before that are used. Raises InputError where no shard is found.
    """

    def __init__(
        self,
        urls: str | Sequence[str],
        decode: Callable[[dict[str, Any], np.random.Generator], dict[str, Any] | None],
        workers: int = 4,
        shuffle: int = 2,
        buffer: int = 256,
    ):
        self.urls = expand([urls] if isinstance(urls, str) else urls)
        self.decode, self.workers, self.shuffle, self.buffer = decode, workers, shuffle, buffer
        self._kinds = (*_KINDS, *getattr(decode, "reasons", ()))
        # One row per worker, so that no two processes write the same number.
        self._skipped = torch.zeros(max(workers, 1), len(self._kinds), dtype=torch.int64).share_memory_()
        self._before = dict.fromkeys(self._kinds, 0)
        self._places: list[str] | None = None  # by stream
        self._known: list[str] | None = None

    def skipped(self) -> dict[str, int]:
        """How many samples and shards this process has left out so far: broken ones, and others by decode's reasons."""
        now = self._skipped.sum(0).tolist()
        return {kind: self._before[kind] + count for kind, count in zip(self._kinds, now, strict=True)}

    def state_dict(self) -> dict:
        """Where each stream stands after the last batch that was taken."""
        return {"places": list(self._places or []), "skipped": self.skipped()}

    def load_state_dict(self, state: dict) -> None:
        """The next call of `batches` goes on there, as long as the number of workers is the same."""
        self._before |= {kind: int(state["skipped"].get(kind, 0)) for kind in self._kinds}
        known = state["places"]
        if len(known) != max(self.workers, 1):
            log.warning(
                "The checkpoint was saved with %d workers, this run has %d: it goes on at about the same sample, not "
                "exactly.",
                len(known),
                self.workers,
            )
        elif not all(isinstance(place, str) for place in known):
            log.warning("The checkpoint was saved by an older version: it goes on at about the same sample.")
        else:
            self._known = known

    def batches(self, rank: int, world: int, batch_size: int, seed: int, start: int = 0) -> Iterator[Batch]:
        """The batches of one rank from micro step `start` on.

        With a state loaded, exactly where it was saved. Without, the streams are read up to `start`, undecoded: exact
        if no sample before it is broken or left out. Raises InputError where there are fewer shards than streams.
        """
        streams = max(self.workers, 1)
        if len(self.urls) < world * streams:
            raise InputError(
                f"{len(self.urls)} shards for {world} processes with {streams} workers each: at least one shard per "
                "worker wanted. Lower `workers`, or write more and smaller shards."
            )
        known, self._known = self._known, None
        self._places = list(known or [Place().text()] * streams)
        # Workers are asked in turn, beginning with the first: it takes the part of the stream whose turn it is.
        turn = start % streams
        readers: list[tuple[Stream, Place, int]] = []
        for stream in range(streams):
            part = (turn + stream) % streams
            passed = 0 if known else (start - part + streams - 1) // streams * batch_size
            number = rank * streams + part
            own = Stream(self.urls, self.decode, number, world * streams, batch_size, seed, self.shuffle, self.buffer)
            readers.append((own, Place.of(self._places[part]), passed))
        loader = torch.utils.data.DataLoader(
            _Streams(readers, self._skipped, self._kinds),
            batch_size=None,
            num_workers=self.workers,
            pin_memory=torch.cuda.is_available(),
            prefetch_factor=2 if self.workers else None,
            worker_init_fn=_ignore_signals,
            generator=torch.Generator().manual_seed(seed),  # else it draws from the training's random numbers
        )
        others = set(multiprocessing.active_children())
        decoded = iter(loader)
        workers = set(multiprocessing.active_children()) - others
        try:
            for step, (place, batch) in enumerate(decoded, start):
                self._places[step % streams] = place
                yield batch
        finally:
            del decoded, loader  # which asks its workers to end
            # They ignore the signal that comes next, so Python's own end would wait for one that is stuck, for ever.
            for worker in workers:
                worker.kill()


class _Streams(torch.utils.data.IterableDataset):
    def __init__(self, readers: list[tuple[Stream, Place, int]], skipped: torch.Tensor, kinds: Sequence[str]):
        self.readers, self.skipped, self.kinds = readers, skipped, kinds

    def __iter__(self):
        worker = torch.utils.data.get_worker_info()
        number = worker.id if worker else 0
        stream, place, passed = self.readers[number]
        return stream.batches(place, passed, functools.partial(_count, self.skipped[number], self.kinds))


def _ignore_signals(worker: int) -> None:
    # A job's end is told to all its processes at once: the workers stay until the training has saved and stops them.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _count(row: torch.Tensor, kinds: Sequence[str], kind: str, what: str, error: Exception) -> None:
    row[kinds.index(kind)] += 1
    if kind in _KINDS or row[kinds.index(kind)] == 1:  # of the others there may be as many as photos
        more = "" if kind in _KINDS else f" More of this kind are counted as skipped_{kind}."
        log.warning("%s is left out: %s.%s", shown(what, 500), shown(error, 500).removesuffix("."), more)


def expand(urls: Sequence[str]) -> list[str]:
    """Globs and brace expressions spelt out, sorted, each once; InputError for a pattern that matches nothing.

    A command ("pipe:...") is one only where a pattern begins with it: no file's name, variable or brace makes another.
    """
    try:
        from webdataset.shardlists import expand_urls
    except ImportError as error:
        raise DependencyError(
            f'Reading shards needs webdataset ({error}), which the extra "train" brings: {extras.install_line("train")}'
        ) from error
    found: set[str] = set()
    for pattern in urls:
        if pattern.startswith(shard_file.COMMAND):
            found.add(pattern)
            continue
        for url in expand_urls(pattern):
            if url.startswith(shard_file.COMMAND):
                raise InputError(
                    f"shards: {pattern} comes to the command {url}. A command must stand in the run file as it is, "
                    f"beginning with {shard_file.COMMAND}; a file of such a name is written ./{url}"
                )
            matches = _matches(url)
            if not matches:
                raise InputError(f"shards: {url} given, but there is no such file")
            found.update(match if "://" in url else shard_file.as_path(match) for match in matches)
    if not found:
        raise InputError("shards: none given, at least one path, glob or URL wanted")
    return sorted(found)


def _matches(url: str) -> list[str]:
    """The files of a pattern without braces. A URL without a wildcard is not asked for: reading tells."""
    if "://" not in url:
        return [url] if os.path.exists(url) else glob.glob(url)
    if not any(sign in url for sign in "*?["):
        return [url]
    files = shard_file.storage(url)
    return [files.unstrip_protocol(path) for path in files.glob(url)]
