"""Downloads that go on by themselves in the server, whoever asked for them and whether or not that page is still open.

One at a time for each published file, through the code of `python -m faceclip download`.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import DownloadError, FaceCLIPError
from . import fetch, published

RUNNING = ("downloading", "stopping")


@dataclass
class Job:
    """state: downloading, stopping, done, stopped or failed. here, total: bytes. error: what a person should read."""

    state: str = "downloading"
    here: int = 0
    total: int = 0
    error: str = ""
    cancel: threading.Event = field(default_factory=threading.Event)

    def as_dict(self) -> dict:
        return {"state": self.state, "here": self.here, "total": self.total, "error": self.error}


class _Stopped(DownloadError):
    """The person pressed Stop."""


class Downloads:
    """The downloads of this process, by the file's key in `published.FILES`."""

    def __init__(self):
        self._jobs: dict[str, Job] = {}
        self._lock = threading.Lock()

    def start(self, key: str, folders: Sequence[str | Path]) -> Job:
        """Begins to fetch a file that its person agreed to, or goes on with what is under way. KeyError for no file."""
        file = published.FILES[key]
        with self._lock:
            job = self._jobs.get(key)
            if job is not None and job.state in RUNNING:
                return job  # a second click
            job = self._jobs[key] = Job()
        arguments = (job, file, [Path(folder) for folder in folders])
        threading.Thread(target=self._run, args=arguments, name=f"faceclip download {key}", daemon=True).start()
        return job

    def stop(self, key: str) -> None:
        """Ends a download at its next block; what arrived is kept for the next start."""
        with self._lock:
            job = self._jobs.get(key)
            if job is not None and job.state == "downloading":
                job.state = "stopping"
                job.cancel.set()

    def state(self, key: str) -> dict | None:
        """What became of the file's last download, None where there was none."""
        job = self._jobs.get(key)
        return job and job.as_dict()

    def _run(self, job: Job, file: published.PublishedFile, folders: list[Path]) -> None:
        def progress(here: int, total: int) -> None:
            job.here, job.total = here, total
            if job.cancel.is_set():
                raise _Stopped("stopped")

        try:
            fetch.fetch(file, folders, lambda: True, lambda line: None, progress=progress)
        except _Stopped:
            job.state = "stopped"
        except FaceCLIPError as error:
            job.error, job.state = str(error), "failed"
        except Exception as error:  # the thread has nobody else to tell
            job.error, job.state = f"{type(error).__name__}: {error}", "failed"
        else:
            job.state = "done"
