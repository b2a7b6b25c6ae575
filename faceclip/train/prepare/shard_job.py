"""Photos with captions to shards, over several processes."""

import base64
import logging
import multiprocessing
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...errors import FaceCLIPError, InputError
from ...faces.detect.base import Detector
from ...faces.detect.insight import InsightFace
from ...faces.detect.yunet import YuNet
from ...files.picture import open_picture
from ...identity.judge import InsightFaceJudge, Judge, SFaceJudge
from ..data import as_tensor
from . import photos as photo_files
from .crops import Filter, Reject, Sample, prepare_photo
from .mix import write_shards
from .photos import Photo
from .shard_writer import Finished, Folder, Found

log = logging.getLogger(__name__)

Progress = Callable[[int, int], None]
Job = tuple[int, int, tuple[Photo, ...]]  # number of the block, of its first photo, its photos
RunJobs = Callable[[Sequence[Job], Folder, "Settings", Callable[[int], None]], None]
PEOPLE = ("table", "folder", "cluster")
_POLL = 0.5  # seconds between two looks at the workers' progress


@dataclass(frozen=True)
class Settings:
    """How photos become shards."""

    detector: Path  # YuNet's .onnx file or the folder of an InsightFace pack
    wanted: Filter = Filter()
    photos_per_shard: int = 1000
    provider: str = "auto"  # what an InsightFace pack runs on
    person: str = "table"  # where people are known from, one of PEOPLE
    recogniser: Path | None = None  # SFace's .onnx file or the folder of an InsightFace pack, for "cluster"
    alike: float = 0.5  # the cosine from which the recogniser's vectors are one person's
    others: int = 2  # faces of each person's other photos that go into a sample, at most

    def __post_init__(self):
        if self.photos_per_shard < 1:
            raise InputError(f"photos_per_shard is {self.photos_per_shard}, wanted at least 1.")
        if self.person not in PEOPLE:
            raise InputError(f"person is {self.person!r}, wanted one of {', '.join(PEOPLE)}.")
        if (self.person == "cluster") != (self.recogniser is not None):
            raise InputError("A recogniser and person = cluster go together: give both, or neither.")
        if not -1 <= self.alike <= 1 or self.others < 0:
            raise InputError(f"alike is {self.alike} (wanted -1 to 1), others {self.others} (wanted 0 or more).")


@dataclass(frozen=True)
class Summary:
    """What was found so far. unfinished: blocks of photos, of other parts, that are not looked at yet; no shard is
    written before."""

    photos: int
    samples: int
    faces: int
    shards: int
    rejected: int  # photos
    unfinished: int
    unused_captions: int
    long_captions: int  # cut in training, since they have too many tokens
    reasons: Mapping[str, int]  # how many photos and faces were left out, by kind
    others: Mapping[str, int]  # files that are no photos, by suffix


def prepare(
    folders: Sequence[Path],
    out: Path,
    settings: Settings,
    processes: int = 1,
    part: tuple[int, int] = (1, 1),
    progress: Progress | None = None,
    run_jobs: RunJobs | None = None,
) -> Summary:
    """Look at the photos that were not looked at yet, block by block, and then write the shards, mixed over all.

    part: (k, n) looks at every n-th block, for n machines that share `out`; the one that ends last writes the shards.
    progress(done, total), in photos of this part, is called now and then and may raise to cancel. run_jobs: who looks
    at the blocks instead of processes here, called with the jobs, the folder, the settings and a report. Shards do not
    depend on `processes`, `part` or `run_jobs`. Raises InputError and FaceCLIPError before it starts, or where `out`
    cannot be written; a photo that cannot be used ends in rejects.csv.
    """
    _check_part(part)
    if any(out.resolve().is_relative_to(folder.resolve()) for folder in folders):
        raise InputError(f"{out} lies in a folder of photos. Choose a place outside of it.")
    found = photo_files.find(folders)
    folder = Folder(out)
    folder.open(_plan(found.fingerprint, settings))
    if part == (1, 1):
        folder.clean()
    size = settings.photos_per_shard
    blocks = [found.photos[first : first + size] for first in range(0, len(found.photos), size)]
    mine = range(part[0] - 1, len(blocks), part[1])
    missing = [] if folder.shards() is not None else [number for number in mine if not folder.is_there(number)]
    total = sum(len(blocks[number]) for number in mine)
    before = total - sum(len(blocks[number]) for number in missing)

    def report(done: int) -> None:
        if progress:
            progress(before + done, total)

    report(0)
    if missing:
        jobs = [(number, number * size, blocks[number]) for number in missing]
        if run_jobs is None:
            _run_jobs(jobs, folder, settings, processes, report)
        else:
            run_jobs(jobs, folder, settings, report)
    done = {number: one for number in range(len(blocks)) if (one := folder.finished(number)) is not None}
    if folder.shards() is None and len(done) == len(blocks) and all(map(folder.is_there, done)):
        alike = settings.alike if settings.person == "cluster" else None
        write_shards(folder, done, settings.photos_per_shard, settings.others, alike)
    folder.write_rejects(done.values())
    samples = sum(len(one.samples) for one in done.values())
    photos = sum(one.photos for one in done.values())
    return Summary(
        photos=photos,
        samples=samples,
        faces=sum(one.faces for one in done.values()),
        shards=len(folder.shards() or ()),
        rejected=photos - samples,
        unfinished=len(blocks) - len(done),
        unused_captions=found.unused,
        long_captions=sum(one.long for one in done.values()),
        reasons=Counter(reject.kind for one in done.values() for reject in one.rejects),
        others=found.others,
    )


def _check_part(part: tuple[int, int]) -> None:
    if not 1 <= part[0] <= part[1]:
        raise InputError(f"The part is {part[0]}/{part[1]}; 1/4, 2/4, 3/4 and 4/4 are the parts of four.")


def _plan(fingerprint: str, settings: Settings) -> dict[str, object]:
    return {
        "photos": fingerprint,
        "detector": settings.detector.name,
        "photos_per_shard": settings.photos_per_shard,
        "person": settings.person,
        "recogniser": settings.recogniser.name if settings.recogniser else None,
        "alike": settings.alike,
        "others": settings.others,
        **asdict(settings.wanted),
    }


def load_detector(settings: Settings) -> Detector:
    """The detector named: YuNet for a file, InsightFace for a folder."""
    if settings.detector.is_dir():
        return InsightFace(settings.detector, settings.provider)
    return YuNet(settings.detector)


def load_recogniser(settings: Settings) -> Judge | None:
    """The recogniser named, for people by their faces: SFace for a file, an InsightFace pack's for a folder."""
    if settings.recogniser is None:
        return None
    if settings.recogniser.is_dir():
        return InsightFaceJudge(settings.recogniser, settings.provider)
    return SFaceJudge(settings.recogniser)


def _run_jobs(jobs: list[Job], folder: Folder, settings: Settings, processes: int, report) -> None:
    if min(processes, len(jobs)) <= 1:
        counter = _Counter(report)
        models = load_detector(settings), load_recogniser(settings)
        for job in jobs:
            write_block(job, folder, settings, models, counter.add)
        return
    load_detector(settings)  # what is wrong with it is told here, once
    load_recogniser(settings)
    context = multiprocessing.get_context("spawn")  # a fork would copy the threads of OpenCV and ONNX Runtime
    done, stop = context.Value("q", 0), context.Event()
    workers = min(processes, len(jobs))
    with ProcessPoolExecutor(workers, context, _start_worker, (folder, settings, done, stop)) as pool:
        waiting = {pool.submit(_work, job) for job in jobs}
        try:
            while waiting:
                finished, waiting = wait(waiting, _POLL, FIRST_COMPLETED)
                for future in finished:
                    future.result()
                report(done.value)
        except BrokenProcessPool as error:
            raise FaceCLIPError(
                "A worker process died, most likely for lack of memory. Start the same command again, with fewer "
                "--processes; it goes on with the shards that are not there yet."
            ) from error
        except BaseException:
            stop.set()  # the workers give up after the photo in hand
            pool.shutdown(wait=False, cancel_futures=True)
            raise


class _Counter:
    def __init__(self, report: Callable[[int], None]):
        self.done, self.report = 0, report

    def add(self) -> None:
        self.done += 1
        self.report(self.done)


class _Stopped(Exception):
    """The main process wants no more."""


_worker: dict[str, Any] = {}  # what a worker process keeps between its shards: arguments of _write_shard


def _start_worker(folder: Folder, settings: Settings, done, stop) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the main process, which tells the workers
    threading.Thread(target=_end_with_parent, daemon=True).start()
    import cv2
    import torch

    cv2.setNumThreads(1)  # the processes are the parallelism
    torch.set_num_threads(1)

    def count() -> None:
        with done.get_lock():
            done.value += 1
        if stop.is_set():
            raise _Stopped

    models = load_detector(settings), load_recogniser(settings)
    _worker.update(folder=folder, settings=settings, models=models, count=count)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _work(job: Job) -> None:
    write_block(job, **_worker)


def write_block(
    job: Job, folder: Folder, settings: Settings, models: tuple[Detector, Judge | None], count: Callable[[], None]
) -> Finished:
    """Look at the photos of a block and write what was found; count() is called after each photo."""
    number, first, photos = job
    rejects: list[Reject] = []
    detector, recogniser = models

    def samples() -> Iterator[tuple[str, Sample, Found]]:
        for index, photo in enumerate(photos, first):
            sample, left_out = prepare_photo(photo, detector, settings.wanted)
            rejects.extend(left_out)
            count()
            if sample is not None:
                key, faces = f"{index:09d}", [name for name in sample if name.startswith("face")]
                # Who is known by photo is the largest face on it.
                people = (_person(photo, settings.person), *(None for _ in faces[1:]))
                features = _features(recogniser, [sample[name] for name in faces]) if recogniser else ()
                yield key, sample, Found(key, (0, 0), people, features)

    return folder.write_block(number, samples(), len(photos), rejects)


def _person(photo: Photo, where: str) -> str | None:
    if where == "folder":
        return photo.source.rpartition("/")[0] or None
    return photo.person if where == "table" else None


def _features(recogniser: Judge, faces: list[bytes]) -> tuple[str, ...]:
    crops = torch.stack([as_tensor(open_picture(face)) for face in faces]).float() / 255
    vectors = recogniser.embed(crops).numpy().astype(np.float16)
    return tuple(base64.b64encode(vector.tobytes()).decode() for vector in vectors)
