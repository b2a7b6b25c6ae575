"""`python -m faceclip prepare PHOTOS OUT`: photos with captions to shards, over several processes."""

import argparse
import logging
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from ...errors import FaceCLIPError, InputError
from ...faces.detect.base import Detector
from ...faces.detect.insight import PROVIDERS, InsightFace
from ...faces.detect.yunet import YuNet
from ...install import places
from ...progress import shown
from . import photos as photo_files
from .crops import Filter, Reject, Sample, prepare_photo
from .photos import Photo
from .shard_writer import REJECTS, Finished, Folder

log = logging.getLogger(__name__)

Progress = Callable[[int, int], None]
_POLL = 0.5  # seconds between two looks at the workers' progress


@dataclass(frozen=True)
class Settings:
    """How photos become shards."""

    detector: Path  # YuNet's .onnx file or the folder of an InsightFace pack
    wanted: Filter = Filter()
    photos_per_shard: int = 1000  # photos, good or not
    provider: str = "auto"  # what an InsightFace pack runs on

    def __post_init__(self):
        if self.photos_per_shard < 1:
            raise InputError(f"photos_per_shard is {self.photos_per_shard}, wanted at least 1.")


@dataclass(frozen=True)
class Summary:
    """What lies in the folder now. unfinished: shards of other parts that are not there yet."""

    photos: int
    samples: int
    faces: int
    shards: int
    rejected: int  # photos
    unfinished: int
    unused_captions: int


def prepare(
    folders: Sequence[Path],
    out: Path,
    settings: Settings,
    processes: int = 1,
    part: tuple[int, int] = (1, 1),
    progress: Progress | None = None,
) -> Summary:
    """Write the shards that are not there yet.

    part: (k, n) makes every n-th shard, for n machines that share `out`. progress(done, total), in photos of this
    part, is called now and then and may raise to cancel. Shards do not depend on `processes` or on `part`.
    Raises InputError and FaceCLIPError before it starts, or where `out` cannot be written; a photo that cannot be used
    ends in rejects.csv.
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
    shards = [found.photos[first : first + size] for first in range(0, len(found.photos), size)]
    mine = range(part[0] - 1, len(shards), part[1])
    missing = [number for number in mine if folder.finished(number) is None]
    total = sum(len(shards[number]) for number in mine)
    before = total - sum(len(shards[number]) for number in missing)

    def report(done: int) -> None:
        if progress:
            progress(before + done, total)

    report(0)
    if missing:
        jobs = [(number, number * size, shards[number]) for number in missing]
        _run_jobs(jobs, folder, settings, processes, report)
    done = [folder.finished(number) for number in range(len(shards))]
    whole = [one for one in done if one is not None]
    folder.write_rejects(whole)
    return Summary(
        photos=sum(one.photos for one in whole),
        samples=sum(one.samples for one in whole),
        faces=sum(one.faces for one in whole),
        shards=sum(one.samples > 0 for one in whole),
        rejected=sum(one.photos - one.samples for one in whole),
        unfinished=len(done) - len(whole),
        unused_captions=found.unused,
    )


Job = tuple[int, int, tuple[Photo, ...]]  # number of the shard, of its first photo, its photos


def _check_part(part: tuple[int, int]) -> None:
    if not 1 <= part[0] <= part[1]:
        raise InputError(f"The part is {part[0]}/{part[1]}; 1/4, 2/4, 3/4 and 4/4 are the parts of four.")


def _plan(fingerprint: str, settings: Settings) -> dict[str, object]:
    return {
        "photos": fingerprint,
        "detector": settings.detector.name,
        "photos_per_shard": settings.photos_per_shard,
        **asdict(settings.wanted),
    }


def load_detector(settings: Settings) -> Detector:
    """The detector named: YuNet for a file, InsightFace for a folder."""
    if settings.detector.is_dir():
        return InsightFace(settings.detector, settings.provider)
    return YuNet(settings.detector)


def _run_jobs(jobs: list[Job], folder: Folder, settings: Settings, processes: int, report) -> None:
    if min(processes, len(jobs)) <= 1:
        counter = _Counter(report)
        detector = load_detector(settings)
        for job in jobs:
            _write_shard(job, folder, settings, detector, counter.add)
        return
    load_detector(settings)  # what is wrong with it is told here, once
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

    _worker.update(folder=folder, settings=settings, detector=load_detector(settings), count=count)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _work(job: Job) -> None:
    _write_shard(job, **_worker)


def _write_shard(job: Job, folder: Folder, settings: Settings, detector: Detector, count) -> Finished:
    number, first, photos = job
    rejects: list[Reject] = []

    def samples() -> Iterator[tuple[str, Sample]]:
        for index, photo in enumerate(photos, first):
            sample, left_out = prepare_photo(photo, detector, settings.wanted)
            rejects.extend(left_out)
            count()
            if sample is not None:
                yield f"{index:09d}", sample

    return folder.write(number, samples(), len(photos), rejects)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.description = (
        "Finds, checks and aligns the faces on photos and writes photos, crops and captions as webdataset shards. The "
        "caption of a.jpg is a.txt, or its line in captions.csv (file,caption) or captions.jsonl of its folder. A run "
        "that was stopped goes on when the same command is given again."
    )
    parser.add_argument(
        "photos", nargs="+", type=Path, metavar="PHOTOS", help="folders of photos, with their subfolders"
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="folder for the shards and rejects.csv")
    parser.add_argument(
        "--detector",
        type=Path,
        help="YuNet's .onnx file, or the folder of an InsightFace pack (default: the YuNet that FACECLIP_YUNET names, "
        "else the one in ComfyUI's models folder)",
    )
    places.add_argument(parser)
    parser.add_argument("--provider", choices=PROVIDERS, default="auto", help="what InsightFace runs on")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="default: one per core, %(default)s")
    parser.add_argument("--photos-per-shard", type=int, default=1000, help="default: %(default)s")
    parser.add_argument(
        "--part", type=_part, default=(1, 1), metavar="K/N", help="only every N-th shard, for N machines sharing OUT"
    )
    helps = {
        "min_side": "shorter side of a photo, px",
        "max_side": "photos with a longer side are made smaller, px",
        "min_face": "shorter side of a face, px of the photo as it came",
        "min_score": "the detector's score, 0 to 1",
        "min_sharpness": "of an aligned face; 0.05 is sharp",
        "max_yaw": "how far a head may be turned, degrees",
        "max_faces": "per photo; the largest are kept",
    }
    for field in fields(Filter):
        name, kind = "--" + field.name.replace("_", "-"), type(field.default)
        parser.add_argument(name, type=kind, default=field.default, help=f"{helps[field.name]} (%(default)s)")


def detector_of(arguments: argparse.Namespace) -> Path:
    """The detector's file or pack that the command's options name, else the YuNet of this machine."""
    return arguments.detector or places.find_detector(arguments.models)


def _part(text: str) -> tuple[int, int]:
    try:
        k, n = map(int, text.split("/"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text} is not like 1/4") from None
    return k, n


def run(arguments: argparse.Namespace) -> int:
    """Write the shards. Returns 0, or 1 when no photo could be used. Raises FaceCLIPError."""
    wanted = Filter(**{field.name: getattr(arguments, field.name) for field in fields(Filter)})
    settings = Settings(detector_of(arguments), wanted, arguments.photos_per_shard, arguments.provider)
    with shown("Photos", "photos") as tell:
        found = prepare(arguments.photos, arguments.out, settings, arguments.processes, arguments.part, tell)
    lines = [
        f"{found.samples} of {found.photos} photos with {found.faces} faces are in {found.shards} shards in "
        f"{arguments.out}; {found.rejected} photos were left out, see {arguments.out / REJECTS}."
    ]
    if found.unused_captions:
        lines.append(f"{found.unused_captions} lines of captions name no photo.")
    if found.unfinished:
        lines.append(f"{found.unfinished} shards are not finished yet: start the other parts too.")
    sys.stdout.write("\n".join(lines) + "\n")
    return 0 if found.samples else 1
