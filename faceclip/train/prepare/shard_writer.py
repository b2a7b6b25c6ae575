"""Shards on disk. A shard is there and complete, or it is not there: a run that was killed goes on with the next one.

OUT/shard-000000.tar       samples in the order of the photos; no file where none of its photos could be used
OUT/rejects.csv            what was left out of all finished shards, and why
OUT/.prepare/plan.json     what OUT was made from: the same photos and options must come back to go on
OUT/.prepare/000000.json   written last of all: that this shard is finished
"""

import csv
import io
import json
import tarfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path

from ...errors import FaceCLIPError, InputError, for_sheet
from ...files import whole
from .crops import Reject, Sample

REJECTS = "rejects.csv"
_STATE, _PLAN = ".prepare", "plan.json"


@dataclass(frozen=True)
class Finished:
    """What one shard came to. size: bytes of its tar file, 0 for none."""

    photos: int
    samples: int
    faces: int
    size: int
    rejects: tuple[Reject, ...]


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

    def finished(self, number: int) -> Finished | None:
        """What shard `number` came to, None if it is not there or not whole."""
        try:
            found = json.loads((self.path / _STATE / f"{number:06d}.json").read_bytes())
            found["rejects"] = tuple(Reject(*row) for row in found["rejects"])
            done = Finished(**found)
            size = self.tar(number).stat().st_size if done.samples else 0
        except (OSError, ValueError, TypeError, KeyError):
            return None
        return done if size == done.size else None

    def write(self, number: int, samples: Iterable[tuple[str, Sample]], photos: int, rejects: list[Reject]) -> Finished:
        """Write shard `number`: (key, sample) in order, drawn one by one; `rejects` may grow meanwhile."""
        target, count, faces = self.tar(number), 0, 0
        try:
            samples = iter(samples)
            first = next(samples, None)
            if first is None:
                target.unlink(missing_ok=True)
            else:
                with whole.writing(target) as file:
                    # USTAR, with nothing in it of the person or the hour: the same samples give the same bytes.
                    with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
                        for key, sample in chain([first], samples):
                            _add(tar, key, sample)
                            count += 1
                            faces += sum(suffix.startswith("face") for suffix in sample)
            done = Finished(photos, count, faces, target.stat().st_size if count else 0, tuple(rejects))
            rows = {**asdict(done), "rejects": [list(asdict(reject).values()) for reject in rejects]}
            whole.write(self.path / _STATE / f"{number:06d}.json", json.dumps(rows, ensure_ascii=False).encode())
        except OSError as error:
            raise unwritable(self.path, error) from error
        return done

    def clean(self) -> None:
        """Remove what killed runs left half written."""
        for place in (self.path, self.path / _STATE):
            whole.clear(place)

    def write_rejects(self, shards: Iterable[Finished]) -> None:
        """rejects.csv: photo, face (empty: the whole photo), reason."""
        text = io.StringIO(newline="")
        table = csv.writer(text)
        table.writerow(("photo", "face", "reason"))
        for done in shards:
            for reject in done.rejects:
                table.writerow((for_sheet(reject.source), reject.face or "", for_sheet(reject.reason)))
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


def _add(tar: tarfile.TarFile, key: str, sample: Sample) -> None:
    for suffix, data in sample.items():
        member = tarfile.TarInfo(f"{key}.{suffix}")
        member.size, member.mode = len(data), 0o644
        tar.addfile(member, io.BytesIO(data))
