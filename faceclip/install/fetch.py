"""Brings one published file into its folder, whole and checked or not at all, and goes on with what broke off."""

import contextlib
import errno
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import DownloadError
from ..errors import shown as printable
from ..files import whole
from ..progress import shown
from . import published
from .published import PublishedFile

FULL_DISK = {errno.ENOSPC, errno.EDQUOT}
Say = Callable[[str], None]
Progress = Callable[[int, int], None]


def fetch(
    file: PublishedFile,
    folders: Sequence[Path],
    agreed: Callable[[], bool],
    say: Say,
    force: bool = False,
    progress: Progress | None = None,
) -> bool:
    """True when the published file is in one of its folders at the end, False when the person said no.

    folders: in the order they are searched; the first gets the file. agreed: asks for consent, after `say` was given
    size and licence. force: replace a file of that name that is another one. progress(bytes here, bytes in all) is
    called as they arrive, in place of a bar on the terminal; a DownloadError that it raises stops, and what arrived is
    kept. Raises DownloadError.
    """
    target = folders[0] / file.name
    try:
        sha256, known = file.sha256 or _hash_at_hub(file), "as published" if file.sha256 else "as the hub has it"
        file = replace(file, sha256=sha256)
        for path in (folder / file.name for folder in folders[1:]):
            if path.is_file() and path.stat().st_size == (file.size or path.stat().st_size):
                if _sha256(path) == sha256:
                    say(f"{path} is there already and is the published file.")
                    return True
        if os.path.lexists(target) and _is_there(file, target, force):
            say(f"{target} is there already and is the published file.")
            return True
        url, size = _ask_hub(file)
        # Ends in no extension of a model and starts with a dot: in no list of model files. The hash in its name keeps
        # the parts of different versions apart.
        partial = target.with_name(f".{file.name}.{sha256[:12]}.incomplete")
        here = _usable_part(partial, size)
        _report(file, url, size, here, target, say)
        _check_space(target, size, here)
        if not agreed():
            say(f"{file.name} was not downloaded.")
            return False
        target.parent.mkdir(parents=True, exist_ok=True)
        with _locked(partial):
            _download(file, url, size, partial, say, progress)
            whole.move(partial, target)
    except OSError as error:
        raise DownloadError(
            f"{target} cannot be written: {error.strerror or error}. Check the disk and the folder's rights."
        ) from error
    say(f"Wrote {target}: {target.stat().st_size:,} bytes, SHA-256 {sha256} {known}.")
    return True


def _is_there(file: PublishedFile, target: Path, force: bool) -> bool:
    """True for the published file, False for another that may be replaced. Raises DownloadError where it may not."""
    if target.is_dir():
        raise DownloadError(f"{target} is a folder, wanted the place of a file. Move the folder away.")
    seen = _sha256(target) if target.is_file() else "none, it is a broken link"
    if seen == file.sha256:
        return True
    if not force:
        raise DownloadError(
            f"{target} exists and is not the published file: its SHA-256 is {seen}, wanted {file.sha256}. "
            "It is another version, damaged or cut short. Move it away, or replace it with --force."
        )
    return False


def _hash_at_hub(file: PublishedFile) -> str:
    """The SHA-256 that the hub tells of a file nobody here has measured. Raises DownloadError where it tells none."""
    import huggingface_hub

    url = huggingface_hub.hf_hub_url(file.repo, file.path)
    with _hub_errors(url, "Nothing was downloaded."):
        etag = (huggingface_hub.get_hf_file_metadata(url).etag or "").lower()
    if len(etag) != 64:
        raise DownloadError(f"Neither this pack nor {url} tells the SHA-256 of {file.name}, so it can't be checked.")
    return etag


def _ask_hub(file: PublishedFile) -> tuple[str, int]:
    """Address and size in bytes. Refuses before a long download where the hub already says that it is another file."""
    import huggingface_hub

    url = huggingface_hub.hf_hub_url(file.repo, file.path)
    with _hub_errors(url, "Nothing was downloaded."):
        found = huggingface_hub.get_hf_file_metadata(url)
    etag = (found.etag or "").lower()
    # The hub's ETag of a large file is its SHA-256; that of a small one is a shorter hash of another kind.
    if len(etag) == 64 and etag != file.sha256:
        raise _changed(file, url, "SHA-256", printable(etag), str(file.sha256))
    if found.size is not None and file.size is not None and found.size != file.size:
        raise _changed(file, url, "size", f"{found.size:,} bytes", f"{file.size:,} bytes")
    size = found.size if found.size is not None else file.size
    if size is None:
        raise DownloadError(f"{url} does not tell its size, so its end can't be known. Check HF_ENDPOINT.")
    return url, size


def _changed(file: PublishedFile, url: str, what: str, seen: str, wanted: str) -> DownloadError:
    return DownloadError(
        f"{url} is not the {file.name} this version of FaceCLIP knows: its {what} is {seen}, wanted {wanted}. "
        "Nothing was downloaded. Check HF_ENDPOINT, or look for a newer version of this pack."
    )


@contextlib.contextmanager
def _hub_errors(url: str, outcome: str) -> Iterator[None]:
    """Turns whatever the hub's client raises into a DownloadError. outcome: what became of the download."""
    from huggingface_hub import errors

    try:
        yield
    except DownloadError:
        raise
    except errors.OfflineModeIsEnabled as error:
        raise DownloadError(
            f"Offline mode is on (HF_HUB_OFFLINE), so {url} can't be read. {outcome} Unset HF_HUB_OFFLINE and "
            "TRANSFORMERS_OFFLINE, or get the file on another computer and copy it."
        ) from error
    except errors.GatedRepoError as error:
        raise DownloadError(f"{url} is given only to those logged in who accepted its terms. {outcome}") from error
    except (errors.EntryNotFoundError, errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        status = getattr(getattr(error, "response", None), "status_code", 404)
        raise DownloadError(
            f"{url} does not exist there (HTTP {status}). {outcome} Check HF_ENDPOINT if you set "
            "it; otherwise the file was moved: look for a newer version of this pack."
        ) from error
    # The client's HTTP library, and with it the class of a lost connection, differs between its versions.
    except Exception as error:
        if isinstance(error, OSError) and error.errno in FULL_DISK:
            raise DownloadError(f"The disk is full. {outcome} Make room and run the command again.") from error
        raise DownloadError(
            f"{url} can't be read: {error or type(error).__name__}. {outcome} Check the connection, the proxy and "
            "HF_ENDPOINT, and run the command again."
        ) from error


def _usable_part(partial: Path, size: int) -> int:
    """Bytes of a broken-off download that are here."""
    here = partial.stat().st_size if partial.is_file() else 0
    if here > size:
        partial.unlink()
        return 0
    return here


def _report(file: PublishedFile, url: str, size: int, here: int, target: Path, say: Say) -> None:
    say(f"{file.name}: {file.about}")
    say(f"  from     {url}")
    say(f"  to       {target}")
    say(f"  size     {size:,} bytes" + (f", {here:,} of them here from last time" if here else ""))
    say(f"  licence  {file.licence}")


def _check_space(target: Path, size: int, here: int) -> None:
    # The folder itself may be a link to another disk.
    folder = next(folder for folder in target.parents if folder.is_dir())
    free, wanted = shutil.disk_usage(folder).free, size - here
    if free < wanted:
        raise DownloadError(
            f"{folder} has {free:,} bytes free, wanted {wanted:,} for {target.name}. Make room, or name another models "
            "folder with --models."
        )


def _download(file: PublishedFile, url: str, size: int, partial: Path, say: Say, progress: Progress | None) -> None:
    """Brings the partial file to its end and checks it. Raises DownloadError; what arrived stays, unless wrong."""
    kept = "What arrived is kept; the same command goes on from there."
    try:
        with open(partial, "ab") as out:
            with _hub_errors(url, kept):
                _read(file, url, size, out, progress)
            whole.settle(out)
            seen = published.sha256(partial) if progress else _sha256(partial)
    except KeyboardInterrupt:
        say(f"\n{kept}")
        raise
    finally:
        with contextlib.suppress(OSError):
            if partial.stat().st_size == 0:
                partial.unlink()
    if seen != file.sha256:
        partial.unlink()
        raise DownloadError(
            f"What {url} gave is not the published {file.name}: its SHA-256 is {seen}, wanted {file.sha256}. "
            "It was removed and no model file was touched. Run the command again; if it happens twice, the server or "
            "something on the way changes the file: check HF_ENDPOINT and the proxy."
        )


class _Counted:
    """A file that tells how far it is written, and ends at the size that was announced: a server may go on for ever."""

    def __init__(self, out: BinaryIO, size: int, progress: Progress | None):
        self.out, self.size, self.progress = out, size, progress

    def write(self, block: bytes) -> int:
        if self.out.tell() + len(block) > self.size:
            self.out.truncate(0)  # what came before cannot be trusted either
            raise DownloadError(
                f"The server gives more than the {self.size:,} bytes that it announced. Nothing was kept. Check "
                "HF_ENDPOINT and the proxy."
            )
        written = self.out.write(block)
        if self.progress:
            self.progress(self.out.tell(), self.size)
        return written

    def __getattr__(self, name: str) -> Any:
        return getattr(self.out, name)


def _read(file: PublishedFile, url: str, size: int, out: BinaryIO, progress: Progress | None) -> None:
    # Not hf_hub_download: since 1.x it throws a broken-off file away when the process ends.
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers

    headers: dict[str, Any] = {**build_hf_headers(), "Accept-Encoding": "identity"}
    here = out.seek(0, os.SEEK_END)
    counted: Any = _Counted(out, size, progress)
    if progress:
        progress(here, size)
    http_get(url, counted, resume_size=here, headers=headers, expected_size=size, displayed_filename=file.name)


@contextlib.contextmanager
def _locked(partial: Path) -> Iterator[None]:
    """Two commands must not write into one file. Where a file system has no locks, the hash at the end finds it."""
    from filelock import FileLock, Timeout  # huggingface_hub requires it

    path = partial.with_suffix(".lock")
    lock = FileLock(path, timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise DownloadError(f"Another download is writing {partial}. Wait for it, or stop it.") from error
    except NotImplementedError:  # what filelock before 4 says of such a file system
        pass
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            path.unlink()  # while it is still ours; Windows does so when it is released
        lock.release()


def _sha256(path: Path) -> str:
    with shown(f"Hashing {path.name}", "B") as tell:
        return published.sha256(path, tell)
