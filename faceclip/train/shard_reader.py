"""Training data in webdataset shards, for what does not fit in memory: tar files of samples, local or behind a URL.

The order follows from the seed alone. Each worker of each process is one stream with its own share of the shards. A
stream reads a few shards at a time as bytes, mixes their samples and decodes them one by one; so to go on after a stop
it reads again only the shards it was in, and decodes nothing twice.
"""

import functools
import glob
import logging
import multiprocessing
import os
import signal
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

from ..errors import DependencyError, InputError, shown
from ..install import extras
from . import shard_file
from .data import Batch

log = logging.getLogger(__name__)

_KINDS = ("samples", "shards")
_BEGIN = (0, 0, 0)


class ShardData:
    """Endless, shuffled batches out of webdataset shards.

    urls: paths, globs, brace expressions ("s3://bucket/{0000..0999}.tar") or "pipe:command".
    decode(sample, random) -> dict | None makes one training sample; sample has the members' bytes by suffix ("jpg",
    "face0.png", "json") and "__key__"; random, a numpy Generator, depends on the seed, the sample and the epoch only.
    None leaves a sample out. It runs in worker processes, so it must be picklable.
    workers: processes that decode, 0 for none. shuffle: shards mixed with each other; a worker holds as many in memory.

    A shard or sample that cannot be read or decoded is left out, counted (`skipped()`) and told in the log; of a shard
    that breaks off, the samples before that are used. Raises InputError where no shard is found.
    """

    def __init__(
        self,
        urls: str | Sequence[str],
        decode: Callable[[dict[str, Any], np.random.Generator], dict[str, Any] | None],
        workers: int = 4,
        shuffle: int = 2,
    ):
        self.urls = expand([urls] if isinstance(urls, str) else urls)
        self.decode, self.workers, self.shuffle = decode, workers, shuffle
        # One row per worker, so that no two processes write the same number.
        self._skipped = torch.zeros(max(workers, 1), len(_KINDS), dtype=torch.int64).share_memory_()
        self._before = dict.fromkeys(_KINDS, 0)
        self._places: list[tuple[int, int, int]] | None = None  # by stream: epoch, group of shards, samples taken of it
        self._known: list[tuple[int, int, int]] | None = None

    def skipped(self) -> dict[str, int]:
        """How many samples and shards this process has left out so far because they are broken."""
        now = self._skipped.sum(0).tolist()
        return {kind: self._before[kind] + count for kind, count in zip(_KINDS, now, strict=True)}

    def state_dict(self) -> dict:
        """Where each stream stands after the last batch that was taken."""
        return {"places": [list(place) for place in self._places or []], "skipped": self.skipped()}

    def load_state_dict(self, state: dict) -> None:
        """The next call of `batches` goes on there, as long as the number of workers is the same."""
        self._before = dict(state["skipped"])
        self._known = [tuple(place) for place in state["places"]]
        if len(self._known) != max(self.workers, 1):
            log.warning(
                "The checkpoint was saved with %d workers, this run has %d: it goes on at about the same sample, not "
                "exactly.",
                len(self._known),
                self.workers,
            )
            self._known = None

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
        self._places = list(known or [_BEGIN] * streams)
        # Workers are asked in turn, beginning with the first: it takes the part of the stream whose turn it is.
        turn = start % streams
        readers = []
        for stream in range(streams):
            part = (turn + stream) % streams
            done = 0 if known else (start - part + streams - 1) // streams * batch_size
            reader = _Reader(self, rank * streams + part, world * streams, batch_size, seed, self._places[part], done)
            readers.append(reader)
        loader = torch.utils.data.DataLoader(
            _Streams(readers, self._skipped),
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
    def __init__(self, readers: list["_Reader"], skipped: torch.Tensor):
        self.readers, self.skipped = readers, skipped

    def __iter__(self):
        worker = torch.utils.data.get_worker_info()
        number = worker.id if worker else 0
        return self.readers[number].batches(functools.partial(_count, self.skipped[number]))


def _ignore_signals(worker: int) -> None:
    # A job's end is told to all its processes at once: the workers stay until the training has saved and stops them.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _count(row: torch.Tensor, kind: str, what: str, error: Exception) -> None:
    row[_KINDS.index(kind)] += 1
    log.warning("%s is left out: %s", shown(what, 500), shown(error, 500))


class _Reader:
    """One stream: every `streams`-th shard of each epoch's order."""

    def __init__(self, data: ShardData, stream: int, streams: int, batch_size: int, seed: int, place, done: int):
        self.urls, self.decode, self.shuffle = data.urls, data.decode, data.shuffle
        self.stream, self.streams, self.batch_size, self.seed = stream, streams, batch_size, seed
        self.place, self.done = place, done

    def batches(self, count) -> Iterator[tuple[tuple[int, int, int], Batch]]:
        collected: list[dict] = []
        for place, sample in self._samples(count):
            collected.append(sample)
            if len(collected) == self.batch_size:
                yield place, torch.utils.data.default_collate(collected)
                collected = []

    def _samples(self, count) -> Iterator[tuple[tuple[int, int, int], dict]]:
        """Decoded samples, each with the place behind it; `done` of them are passed over first."""
        epoch, first, taken = self.place
        left = self.done
        while True:
            usable, whole = 0, (first, taken) == (0, 0)
            groups = self._groups(epoch)
            for group in range(first, len(groups)):
                raw = [sample for url in groups[group] for sample in _read(url, count)]
                order = np.random.default_rng([self.seed, epoch, self.stream, group]).permutation(len(raw))
                for position in range(taken, len(raw)):
                    usable += 1
                    if left:
                        left -= 1
                        continue
                    sample = self._decode(raw[order[position]], epoch, count)
                    if sample is not None:
                        yield (epoch, group, position + 1), sample
                    else:
                        usable -= 1
                taken = 0
            if not usable and whole:
                raise InputError(f"no usable sample in an epoch of {sum(map(len, groups))} shards: {groups[0][0]}, ...")
            epoch, first = epoch + 1, 0

    def _groups(self, epoch: int) -> list[list[str]]:
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.urls))
        own = [self.urls[index] for index in order[self.stream :: self.streams]]
        return [own[first : first + self.shuffle] for first in range(0, len(own), self.shuffle)]

    def _decode(self, sample: dict, epoch: int, count) -> dict | None:
        key = sample["__key__"]
        random = np.random.default_rng([self.seed, epoch, zlib.crc32(key.encode("utf-8", "surrogateescape"))])
        try:
            return self.decode(sample, random)
        except Exception as error:  # whatever a broken file makes a decoder raise
            count("samples", f"Sample {key} of {sample.get('__url__')}", error)
            return None


def _read(url: str, count) -> list[dict]:
    """The samples of one shard as bytes; of a broken one, those before the break."""
    from webdataset.tariterators import group_by_keys

    broken: list[Exception] = []

    def stop(error: Exception) -> bool:
        broken.append(error)
        return False

    samples = list(group_by_keys(shard_file.members(url, stop), handler=stop))
    if broken:
        samples = samples[:-1]  # it may lack members
        count("shards", f"Shard {url}, from its sample {len(samples)} on,", broken[0])
    return samples


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
            matches = [url] if "://" in url or os.path.exists(url) else glob.glob(url)
            if not matches:
                raise InputError(f"shards: {url} given, but there is no such file")
            found.update(match if "://" in url else shard_file.as_path(match) for match in matches)
    if not found:
        raise InputError("shards: none given, at least one path, glob or URL wanted")
    return sorted(found)
