"""One stream of samples: the shards of one worker, a few open at a time, their samples mixed in a buffer.

The order follows from the seed alone. Where a stream stands is told by references, an epoch, a shard in its order and a
place in that shard: to go on there, the same samples are read again as bytes, and none is decoded twice.
"""

import contextlib
import json
import zlib
from collections import deque
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from ..errors import InputError
from . import shard_file
from .buckets import LeftOut
from .data import Batch

Ref = tuple[int, int, int]  # epoch, which shard of its order, which sample of the shard
Sample = dict[str, Any]
Count = Callable[[str, str, Exception], None]
Decode = Callable[[Sample, np.random.Generator], dict[str, Any] | None]


@dataclass
class Place:
    """Where a stream stands. shard: the next one to open. reading: those open, with the sample that comes next, in the
    order of their turns. buffer, pending: what was read and waits."""

    epoch: int = 0
    shard: int = 0
    reading: list[tuple[int, int]] = field(default_factory=list)
    drawn: int = 0
    buffer: list[Ref] = field(default_factory=list)
    pending: list[Ref] = field(default_factory=list)

    def text(self) -> str:
        """As JSON: it goes from process to process with each batch."""
        return json.dumps(vars(self))

    @staticmethod
    def of(text: str) -> "Place":
        """ValueError, TypeError or KeyError for what is none."""
        plain = json.loads(text)
        refs = {name: [(int(a), int(b), int(c)) for a, b, c in plain[name]] for name in ("buffer", "pending")}
        reading = [(int(a), int(b)) for a, b in plain["reading"]]
        return Place(int(plain["epoch"]), int(plain["shard"]), reading, int(plain["drawn"]), **refs)


@dataclass(frozen=True)
class Stream:
    """Every `streams`-th shard of each epoch's order.

    shuffle: shards that are open at a time. buffer: samples that are mixed with each other. decode: as ShardData's;
    where it has `group(sample)`, a batch holds samples of one group.
    """

    urls: list[str]
    decode: Decode
    number: int
    streams: int
    batch_size: int
    seed: int
    shuffle: int
    buffer: int

    def batches(self, start: Place, passed: int, count: Count) -> Iterator[tuple[str, Batch]]:
        """Batches, each with the place behind it. passed: samples to pass over first, undecoded."""
        state = _State(self, start, count)
        group = getattr(self.decode, "group", None)
        waiting: dict[Any, list[tuple[Ref, Sample]]] = {}
        for ref, sample in state.pending:
            waiting.setdefault(group(sample) if group else None, []).append((ref, sample))
        ready: list[dict] = []  # of the samples without groups, which are smaller decoded than as bytes
        for ref, sample in state.draw():
            if passed:
                passed -= 1
                state.good += 1
                continue
            if group is None:
                decoded = self._decoded(sample, ref, count)
                ready += decoded
                state.good += len(decoded)
                made = ready if len(ready) == self.batch_size else []
            else:
                made = self._grouped(group, waiting, (ref, sample), state)
            if made:
                pending = [ref for refs in waiting.values() for ref, _ in refs]
                yield state.place(pending).text(), torch.utils.data.default_collate(made)
                ready = []

    def _grouped(self, group, waiting: dict, drawn: tuple[Ref, Sample], state: "_State") -> list[dict]:
        """A batch of the drawn sample's group, where it is full; else nothing."""
        try:
            own = waiting.setdefault(group(drawn[1]), [])
        except Exception as error:  # whatever a broken file makes of it
            _tell(state.count, drawn[1], error)
            return []
        own.append(drawn)
        state.good += 1
        if len(own) < self.batch_size:
            return []
        whole = [(one, made) for one in own for made in self._decoded(one[1], one[0], state.count)]
        state.good -= len(own) - len(whole)
        own[:] = [one for one, _ in whole] if len(whole) < self.batch_size else []
        return [] if own else [made for _, made in whole]

    def _decoded(self, sample: Sample, ref: Ref, count: Count) -> list[dict]:
        """The decoded sample, or none."""
        key = sample["__key__"]
        random = np.random.default_rng([self.seed, ref[0], zlib.crc32(key.encode("utf-8", "surrogateescape"))])
        try:
            made = self.decode(sample, random)
        except Exception as error:  # whatever a broken file makes a decoder raise
            _tell(count, sample, error)
            return []
        return [] if made is None else [made]

    def order(self, epoch: int) -> list[str]:
        """This stream's shards of an epoch."""
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.urls))
        return [self.urls[int(index)] for index in order[self.number :: self.streams]]

    def slot(self, epoch: int, drawn: int, size: int) -> int:
        """Which of the buffer's samples comes next."""
        return int(np.random.default_rng([self.seed, epoch, self.number, drawn]).integers(size))


class _State:
    """What a stream has open. good: samples of this epoch that were of use, None where it did not see its beginning."""

    def __init__(self, stream: Stream, start: Place, count: Count):
        self.stream, self.count = stream, count
        self.epoch, self.next, self.drawn = start.epoch, start.shard, start.drawn
        self.order = stream.order(start.epoch)
        self.whole = start == Place()
        self.good = 0
        self.open: deque[tuple[int, int, Iterator[Sample]]] = deque()
        wanted = {*start.buffer, *start.pending}
        found: dict[Ref, Sample] = {}
        for shard, index in start.reading:
            samples = read(self.order[shard], count)
            for place in range(index):
                sample, ref = next(samples), (start.epoch, shard, place)
                if ref in wanted:
                    found[ref] = sample
            self.open.append((shard, index, samples))
        for epoch, shard in sorted({ref[:2] for ref in wanted - set(found)}):
            last = max(ref[2] for ref in wanted if ref[:2] == (epoch, shard))
            with contextlib.closing(read(stream.order(epoch)[shard], _unseen)) as samples:
                for place, sample in zip(range(last + 1), samples, strict=False):
                    if (ref := (epoch, shard, place)) in wanted:
                        found[ref] = sample
        self.buffer = [(ref, found[ref]) for ref in start.buffer if ref in found]
        self.pending = [(ref, found[ref]) for ref in start.pending if ref in found]

    def place(self, pending: list[Ref]) -> Place:
        reading = [(shard, index) for shard, index, _ in self.open]
        return Place(self.epoch, self.next, reading, self.drawn, [ref for ref, _ in self.buffer], pending)

    def draw(self) -> Iterator[tuple[Ref, Sample]]:
        """Samples for ever, in the stream's order."""
        while True:
            while len(self.buffer) < self.stream.buffer and (one := self._read()):
                self.buffer.append(one)
            if self.buffer:
                slot = self.stream.slot(self.epoch, self.drawn, len(self.buffer))
                self.buffer[slot], self.buffer[-1] = self.buffer[-1], self.buffer[slot]
                self.drawn += 1
                yield self.buffer.pop()
            else:
                self._end()

    def _read(self) -> tuple[Ref, Sample] | None:
        """The next sample of the shard whose turn it is; None at the epoch's end."""
        while True:
            while len(self.open) < self.stream.shuffle and self.next < len(self.order):
                self.open.append((self.next, 0, read(self.order[self.next], self.count)))
                self.next += 1
            if not self.open:
                return None
            shard, index, samples = self.open.popleft()
            sample = next(samples, None)
            if sample is not None:
                self.open.append((shard, index + 1, samples))
                return (self.epoch, shard, index), sample

    def _end(self) -> None:
        if self.whole and self.good <= 0:
            raise InputError(f"no usable sample in an epoch of {len(self.order)} shards: {self.order[0]}, ...")
        self.epoch, self.next, self.drawn = self.epoch + 1, 0, 0
        self.whole, self.good, self.order = True, 0, self.stream.order(self.epoch)


def read(url: str, count: Count) -> Generator[Sample, None, None]:
    """The samples of one shard as bytes; of a broken one, those before the break."""
    from webdataset.tariterators import group_by_keys

    broken: list[Exception] = []

    def stop(error: Exception) -> bool:
        broken.append(error)
        return False

    done, held = 0, None
    for sample in group_by_keys(shard_file.members(url, stop), handler=stop):
        if held is not None:
            yield held
            done += 1
        held = sample
    if broken:  # the last one may lack members
        count("shards", f"Shard {url}, from its sample {done} on,", broken[0])
    elif held is not None:
        yield held


def _tell(count: Count, sample: Sample, error: Exception) -> None:
    what = f"Sample {sample['__key__']} of {sample.get('__url__')}"
    count(error.kind if isinstance(error, LeftOut) else "samples", what, error)


def _unseen(kind: str, what: str, error: Exception) -> None:
    """Was counted when it was read first."""
