"""Shards on disk. A shard is there and complete, or it is not there: a run that was killed goes on with the next one.

OUT/shard-000000.tar             samples, mixed over all photos
OUT/rejects.csv                  what was left out of all photos looked at, and why
OUT/.prepare/plan.json           what OUT was made from: the same photos and options must come back to go on
OUT/.prepare/found-000000.tar    the samples of one block of photos, in the photos' order, until all shards are there
OUT/.prepare/000000.json         written after it: what that block came to
OUT/.prepare/shards.json         written last of all: the shards and their sizes
"""

import base64
import csv
import io
import json
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import numpy as np

from ...errors import FaceCLIPError, InputError, for_sheet
from ...files import whole
from ...model.prompt import tokenize
from .crops import Reject, Sample

REJECTS = "rejects.csv"
_STATE, _PLAN, _SHARDS = ".prepare", "plan.json", "shards.json"


@dataclass(frozen=True)
class Found:
    """One sample of a block. place: where it begins and ends in the block's tar file. people: by face, None where not
    known. features: by face, what a recogniser sees in it, as base64 of float16; empty without a recogniser."""

    key: str
    place: tuple[int, int]
    people: tuple[str | None, ...]
    features: tuple[str, ...] = ()

    def vectors(self) -> list[np.ndarray]:
        """The features, float16 [D] each."""
        return [np.frombuffer(base64.b64decode(one), np.float16) for one in self.features]


@dataclass(frozen=True)
class Finished:
    """What one block of photos came to. size: bytes of its tar file, 0 for none. long: captions that are cut, since
    they have more tokens than a row takes behind the identity prefix."""

    photos: int
    faces: int
    size: int
    rejects: tuple[Reject, ...]
    samples: tuple[Found, ...]
    long: int = 0


class Folder:
    """The folder that shards are written to."""

    def __init__(self, path: Path):
        self.path = path

    def open(self, plan: dict[str, object]) -> None:
        """Make the folder, or check that it was made for the same `plan` (flat, JSON values).

        Raises InputError where it holds shards of another plan, FaceCLIPError where it cannot be written.
        """
        file = self.path / _STATE / _PLAN
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            if file.is_file():
                self._compare(file, plan)
            elif any(self.path.glob("shard-*.tar")):
                raise InputError(f"{self.path} holds shards that were not made here. Choose another folder.")
            else:
                whole.write(file, json.dumps(plan, indent=1).encode())
        except OSError as error:
            raise unwritable(self.path, error) from error

    def tar(self, number: int) -> Path:
        """Where shard `number` lies."""
        return self.path / f"shard-{number:06d}.tar"

    def block(self, number: int) -> Path:
        """Where the samples of a block lie until the shards are written."""
        return self.path / _STATE / f"found-{number:06d}.tar"

    def finished(self, number: int) -> Finished | None:
        """What block `number` came to, None if that is not known."""
        try:
            found = json.loads((self.path / _STATE / f"{number:06d}.json").read_bytes())
            found["rejects"] = tuple(Reject(*row) for row in found["rejects"])
            found["samples"] = tuple(
                Found(key, (place[0], place[1]), tuple(people), tuple(features))
                for key, place, people, features in found["samples"]
            )
            return Finished(**found)
        except (OSError, ValueError, TypeError, KeyError, IndexError):
            return None

    def is_there(self, number: int) -> bool:
        """Whether block `number` is finished and its samples lie where they were written."""
        done = self.finished(number)
        return done is not None and (not done.samples or _size(self.block(number)) == done.size)

    def write_block(self, number: int, samples: Iterable[tuple[str, Sample, Found]], photos: int, rejects) -> Finished:
        """Write block `number`: samples in order, drawn one by one; `rejects` may grow meanwhile."""
        known: list[Found] = []
        long = 0

        def members() -> Iterator[tuple[str, Sample]]:
            nonlocal long
            for key, sample, about in samples:
                known.append(about)
                text = json.loads(sample["json"])["caption"]
                long += len(tokenize(text, True, long_prompt="continue")) > 1
                yield key, sample

        places = self._write_tar(self.block(number), members())
        found = [replace(one, place=place) for one, place in zip(known, places, strict=True)]
        size = _size(self.block(number)) if found else 0
        done = Finished(photos, sum(len(one.people) for one in found), size, tuple(rejects), tuple(found), long)
        rows = {
            **vars(done),
            "rejects": [list(vars(reject).values()) for reject in done.rejects],
            "samples": [list(vars(one).values()) for one in found],
        }
        self._write_json(f"{number:06d}.json", rows)
        return done

    def write_shard(self, number: int, samples: Iterable[tuple[str, Sample]]) -> None:
        """Write shard `number`, anew where it is there already."""
        self._write_tar(self.tar(number), samples)

    def read(self, number: int, place: tuple[int, int]) -> tuple[str, Sample]:
        """A sample of a block: its key and members."""
        with open(self.block(number), "rb") as file:
            file.seek(place[0])
            data = io.BytesIO(file.read(place[1] - place[0]))
        sample: Sample = {}
        key = ""
        with tarfile.open(fileobj=data, mode="r:") as tar:
            for member in tar:
                key, _, suffix = member.name.partition(".")
                content = tar.extractfile(member)
                assert content is not None  # only files were written
                sample[suffix] = content.read()
        return key, sample

    def shards(self) -> dict[str, int] | None:
        """Names and samples of all shards, None where they are not all there, whole."""
        try:
            known = json.loads((self.path / _STATE / _SHARDS).read_bytes())
            whole = all(_size(self.path / name) == size for name, (size, _) in known.items())
            return {name: count for name, (_, count) in known.items()} if whole else None
        except (OSError, ValueError, TypeError, AttributeError):
            return None

    def finish(self, counts: Mapping[int, int], blocks: Iterable[int]) -> None:
        """All shards are written, `counts` samples in each: tell so, and remove the blocks they were made of."""
        known = {self.tar(number).name: (_size(self.tar(number)), count) for number, count in counts.items()}
        self._write_json(_SHARDS, known)
        for number in blocks:
            self.block(number).unlink(missing_ok=True)

    def _write_tar(self, target: Path, samples: Iterable[tuple[str, Sample]]) -> list[tuple[int, int]]:
        """Where each sample lies in it; no file without samples."""
        places: list[tuple[int, int]] = []
        try:
            samples = iter(samples)
            first = next(samples, None)
            if first is None:
                target.unlink(missing_ok=True)
                return []
            with whole.writing(target) as file:
                # USTAR, with nothing in it of the person or the hour: the same samples give the same bytes.
                with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
                    for key, sample in chain([first], samples):
                        before = tar.offset
                        _add(tar, key, sample)
                        places.append((before, tar.offset))
        except OSError as error:
            raise unwritable(self.path, error) from error
        return places

    def _write_json(self, name: str, value: object) -> None:
        try:
            whole.write(self.path / _STATE / name, json.dumps(value, ensure_ascii=False).encode())
        except OSError as error:
            raise unwritable(self.path, error) from error

    def clean(self) -> None:
        """Remove what killed runs left half written."""
        for place in (self.path, self.path / _STATE):
            whole.clear(place)

    def write_rejects(self, shards: Iterable[Finished]) -> None:
        """rejects.csv: photo, face (empty: the whole photo), reason, kind."""
        text = io.StringIO(newline="")
        table = csv.writer(text)
        table.writerow(("photo", "face", "reason", "kind"))
        for done in shards:
            for reject in done.rejects:
                table.writerow((for_sheet(reject.source), reject.face or "", for_sheet(reject.reason), reject.kind))
        try:
            whole.write(self.path / REJECTS, text.getvalue().encode("utf-8", "backslashreplace"))
        except OSError as error:
            raise unwritable(self.path, error) from error

    def _compare(self, file: Path, plan: dict[str, object]) -> None:
        try:
            before = json.loads(file.read_bytes())
        except ValueError as error:
            raise InputError(f"{file} is damaged ({error}). Delete {self.path} and start again.") from error
        # As JSON has it: a tuple is a list there.
        now = json.loads(json.dumps(plan))
        changed = [name for name in {**before, **now} if before.get(name) != now.get(name)]
        if not changed:
            return
        words = ", ".join(
            "other photos or captions" if name == "photos" else f"{name} {before.get(name)} then, {now.get(name)} now"
            for name in changed
        )
        raise InputError(
            f"{self.path} was begun with something else: {words}. Give the same photos and options to go on, or "
            "another folder to start anew."
        )


def unwritable(folder: Path, error: OSError) -> FaceCLIPError:
    """What to raise where the folder for the shards cannot be written."""
    return FaceCLIPError(
        f"{folder} cannot be written: {error.strerror or error}. Check the disk and the folder's rights."
    )


def _size(path: Path) -> int:
    """Bytes of a file, -1 where there is none."""
    try:
        return path.stat().st_size
    except OSError:
        return -1


def _add(tar: tarfile.TarFile, key: str, sample: Sample) -> None:
    for suffix, data in sample.items():
        member = tarfile.TarInfo(f"{key}.{suffix}")
        member.size, member.mode = len(data), 0o644
        tar.addfile(member, io.BytesIO(data))
