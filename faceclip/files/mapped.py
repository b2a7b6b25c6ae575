"""Large model files, whose weights are read from the disk while they are used: has the file changed meanwhile?

A mapped file that is cut short ends the process that reads it, and one that is overwritten gives other weights without
a word. A file that was replaced by renaming, as downloads and `convert` do it, stays what it was for who mapped it.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from ..errors import CheckpointError, shown

COPIED = 64 * 2**20  # bytes of a file that is read whole instead, so that what happens to it later changes nothing


@dataclass(frozen=True)
class Source:
    """A file as it was when its weights were mapped."""

    path: Path
    place: tuple[int, int]  # disk and number of the file itself, whatever its name
    size: int
    changed: int  # ns

    @classmethod
    def of(cls, path: str | os.PathLike) -> "Source | None":
        """What to hold the file against later; None where it is small and read whole, or not there."""
        try:
            seen = os.stat(path)
        except OSError:
            return None  # who reads it says so
        if seen.st_size <= COPIED:
            return None
        return cls(Path(path), (seen.st_dev, seen.st_ino), seen.st_size, seen.st_mtime_ns)

    def check(self) -> None:
        """Raise CheckpointError where the file has been cut short or overwritten since."""
        try:
            seen = os.stat(self.path)
        except OSError:
            return  # deleted or moved: it stays there for who has mapped it
        if (seen.st_dev, seen.st_ino) != self.place or (seen.st_size, seen.st_mtime_ns) == (self.size, self.changed):
            return
        raise CheckpointError(
            f"{shown(self.path)} was overwritten after it was loaded: it had {self.size:,} bytes and has "
            f"{seen.st_size:,}. Its weights are read from the file while they are used, so they are no longer what was "
            "checked, and nothing was made with them. Load the file again. Whoever writes model files should write "
            "them beside their place and rename them, as `python -m faceclip download` and `convert` do."
        )
