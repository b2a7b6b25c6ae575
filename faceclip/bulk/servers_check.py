"""Whether servers are the right ones: they answer, with a pack no older than this and the same model files."""

import dataclasses
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

from .. import __version__
from ..comfy.client import Client
from ..comfy.server_errors import ServerError
from .servers import unusable

AT_ONCE = 32
HASHING = 900.0  # seconds that a server may take to read its model files
_PART = 100  # files a request
_POLL = 0.5
Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class About:
    """What a server says of itself. files: "folder/name" -> SHA-256."""

    versions: dict[str, str]
    files: dict[str, str]


def look(url: str, files: Iterable[str]) -> About:
    """Asks one server. Raises ServerError where it does not answer, has no pack or an old one, or lacks a file."""
    client = Client(url)
    host = client.system_stats().get("system", {})
    found, version = {}, ""
    for part in _parts(sorted(files)):
        deadline = time.monotonic() + HASHING
        while True:
            version, told = _ask(client, part)
            if not any(isinstance(value, float | int) for value in told.values()):
                break
            if time.monotonic() > deadline:
                raise ServerError(f"it did not read its model files within {HASHING:.0f} s")
            time.sleep(_POLL)
        missing = [file for file in part if not isinstance(told.get(file), str)]
        if missing:
            raise ServerError(f"it lacks {', '.join(missing)}")
        found.update({file: str(told[file]) for file in part})
    if _numbers(version) < _numbers(__version__):
        raise ServerError(f"it has ComfyUI-FaceCLIP {version}, wanted at least {__version__}. Update the pack there")
    names = {"comfyui": "comfyui_version", "torch": "pytorch_version", "python": "python_version"}
    versions = {name: str(host.get(key, "")) for name, key in names.items()}
    return About({"faceclip": version, **versions}, found)


def differences(about: About, wanted: Mapping[str, str], where: str) -> str:
    """In which files a server differs from those wanted, which are `where`; "" if in none."""
    others = [file for file, digest in about.files.items() if wanted.get(file, digest) != digest]
    return "; ".join(
        f"{file} is another file: SHA-256 {about.files[file][:12]}..., {where} {wanted[file][:12]}..."
        for file in others
    )


def choose(
    urls: Sequence[str], files: Iterable[str], known: Mapping[str, str] | None = None
) -> tuple[dict[str, About], dict[str, str]]:
    """Asks all servers at once: those that are right, and the problem of each other one, by address.

    known: file -> SHA-256 of an earlier run; without it the first server that answers is the measure of the others.
    Raises ServerError where no server is right.
    """
    wanted, good, problems = dict(known or {}), dict[str, About](), dict[str, str]()
    where, names = "the pictures that are there were made with", frozenset(files)

    def ask(url: str) -> About | ServerError:
        try:
            return look(url, names)
        except ServerError as error:
            return error

    with ThreadPoolExecutor(AT_ONCE) as threads:
        for url, found in zip(urls, threads.map(ask, urls), strict=True):
            if isinstance(found, ServerError):
                problems[url] = str(found)
            elif other := differences(found, wanted, where):
                problems[url] = other
            else:
                good[url] = found
                if not wanted:
                    wanted, where = found.files, f"{url} has"
    if not good:
        raise unusable(problems)
    return good, problems


class Check:
    """Asks a server whether it is (still) the right one; a server that was away may come back as another."""

    def __init__(self, wanted: Mapping[str, str]):
        self._wanted = dict(wanted)

    def __call__(self, url: str) -> None:
        """Raises ServerError where it is not."""
        if other := differences(look(url, self._wanted), self._wanted, "the others have"):
            raise ServerError(other)


def _ask(client: Client, files: list[str]) -> tuple[str, dict[str, object]]:
    try:
        answer = client.about(files)
    except ServerError as error:
        if re.search(r"answered 40[45] ", str(error)):
            raise ServerError(
                f"it has no ComfyUI-FaceCLIP, or one older than {__version__}. Install or update the pack there"
            ) from error
        raise
    version, told = answer.get("version"), answer.get("files")
    if not isinstance(version, str) or not isinstance(told, dict):
        raise ServerError("its answer about its files makes no sense")
    return version, told


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(one) for one in re.findall(r"\d+", version)[:3])


def _parts(files: list[str]) -> Iterator[list[str]]:
    """At least one part, as the version is asked for with the files."""
    rest = iter(files)
    yield list(islice(rest, _PART))
    while part := list(islice(rest, _PART)):
        yield part
