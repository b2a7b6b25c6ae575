"""A ComfyUI server as a worker: photos go up, a prompt is queued, its picture comes back."""

import contextlib
import http.client
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

from ..comfy.client import Client, PromptResult, first_words
from ..comfy.server_errors import ServerError, TooSlow
from ..errors import FaceCLIPError, InputError, shown
from ..files import remote
from ..files.picture import open_picture
from .cell import LIKENESS, UPLOADS, Cell, Made
from .graph import LOAD

PICTURE_TIMEOUT = 3600.0  # a picture may wait behind other people's in the queue
PATIENCE = 120.0  # how long a server may need to be started again
SLOTS = 2  # one prompt runs, the next one waits: the server's device is never idle while a picture travels
_POLL = 1.0
_LOOK = 0.2  # seconds between two looks at a prompt that is followed without its messages
_IDS = uuid.UUID("5b0f1c9e-7d0c-4c53-9d3a-2504142020fc")  # our prompts' numbers are made from this and their keys
_NO_FACE = -1.0


class _Client(Client):
    """Remembers the prompt that it queued last, to cancel that one and nobody else's."""

    def __init__(self, url: str, stopped: threading.Event):
        super().__init__(url, retries=0)  # trying again is the worker's business
        self.prompt_id: str | None = None
        self.stopped = stopped

    def queue(self, prompt: dict[str, Any], prompt_id: str | None = None) -> str:
        self.prompt_id = super().queue(prompt, prompt_id)
        if self.stopped.is_set():  # between the call and its answer
            self.cancel()
            raise ServerError("stopped")
        return self.prompt_id

    def cancel(self, prompt_id: str | None = None) -> None:
        if self.prompt_id is not None:
            super().cancel(self.prompt_id)


class ServerWorker:
    """Makes pictures on the ComfyUI at `url`, `slots` at a time; safe to call from as many threads.

    Photos are put into the folder faceclip_eval of the server's input folder and stay there. look_back: whether the
    server may have pictures of an earlier run of the same jobs, which was killed: those are taken and not made again.
    check(url): raises ServerError where the server is none to make these pictures with; asked whenever it comes back.
    """

    def __init__(
        self,
        url: str,
        timeout: float = PICTURE_TIMEOUT,
        patience: float = PATIENCE,
        slots: int = SLOTS,
        look_back: bool = False,
        check: Callable[[str], object] | None = None,
    ):
        if not url.startswith(("http://", "https://")):
            raise InputError(f"The server is {url!r}, wanted its address, such as http://127.0.0.1:8188.")
        self.name, self.slots = url, slots
        self.look_back = look_back
        self._timeout, self._patience, self._check = timeout, patience, check
        self._uploaded: set[str] = set()
        self._uploading = threading.Lock()
        self._begun: set[str] = set()  # keys of pictures that were begun here, and did not come
        self._stopped = threading.Event()
        self._free: list[_Client] = []  # each follows one prompt at a time: the host tells a client's last socket only
        self._all: list[_Client] = []

    def make(self, cell: Cell, read: Callable[[str], bytes] | None = None) -> Made:
        """The picture. read: the server's name of a photo -> its bytes, where not by `cell.uploads`."""
        import aiohttp

        started = time.monotonic()
        with self._client() as client:
            try:
                self._upload(client, cell, read or (lambda name: remote.read(cell.uploads[name])))
                result, data = self._picture(client, cell)
                self._begun.discard(cell.key)
                kind, size = _whole_picture(data)
                return Made(data, kind, size, self.name, time.monotonic() - started, _likeness(result, cell))
            except TooSlow:
                self._cancel(client)  # it would go on there
                raise
            except FaceCLIPError:
                raise
            except (OSError, RuntimeError, ValueError, http.client.HTTPException, aiohttp.ClientError) as error:
                raise ServerError(f"the connection broke ({type(error).__name__}: {shown(error)})") from error
            except (AttributeError, LookupError, TypeError) as error:  # nobody foresaw all that a server may answer
                raise ServerError(f"its answer makes no sense ({type(error).__name__}: {shown(error)})") from error

    def _picture(self, client: _Client, cell: Cell) -> tuple[PromptResult, bytes]:
        name = str(uuid.uuid5(_IDS, f"{cell.key} {LIKENESS in cell.api}"))
        if self.look_back or cell.key in self._begun:
            with contextlib.suppress(ServerError):  # what it once had and has no longer is made again
                found = self._made_before(client, cell, name)
                if found is not None:
                    return found, self._view(client, found, cell)
        self._begun.add(cell.key)
        result = client.run(cell.api, self._timeout, prompt_id=name)
        return result, self._view(client, result, cell)

    def _made_before(self, client: _Client, cell: Cell, name: str) -> PromptResult | None:
        """What the server has made, or makes now, of the same prompt; None where it knows nothing of it."""
        deadline = time.monotonic() + self._timeout
        while time.monotonic() < deadline and not self._stopped.is_set():
            record = client.history(name)
            if record:
                same = (record.get("prompt") or [None] * 3)[2] == cell.api
                done = (record.get("status") or {}).get("status_str") == "success"
                return PromptResult(name, record["outputs"]) if same and done else None
            if not client.is_queued(name):
                # It may have ended between the two questions.
                if not client.history(name):
                    return None
                continue
            client.prompt_id = name
            time.sleep(_LOOK)
        return None

    def _view(self, client: _Client, result: PromptResult, cell: Cell) -> bytes:
        values = (value for node in cell.api.values() for value in node["inputs"].values())
        used = {value[0] for value in values if isinstance(value, list)}
        # Nodes on the way show pictures too; the output is the one that nothing uses.
        ends = [node for node in cell.api if node not in used and node != LIKENESS]
        images = [image for node in ends for image in result.images(node)]
        if not images:
            raise InputError("the workflow's output node gives no picture; settings.inputs.output names it")
        return client.view(images[-1])

    def _upload(self, client: _Client, cell: Cell, read: Callable[[str], bytes]) -> None:
        with self._uploading:  # two at once would write the same file
            for name in cell.uploads:
                if name not in self._uploaded:
                    stored = client.upload_image(read(name), name.rpartition("/")[2], UPLOADS)
                    if stored != name:
                        raise ServerError(f"it stored the photo as {shown(repr(stored))} instead of {name!r}")
                    self._uploaded.add(name)

    @contextlib.contextmanager
    def _client(self) -> Iterator[_Client]:
        try:
            client = self._free.pop()
        except IndexError:
            client = _Client(self.name, self._stopped)
            self._all.append(client)
        try:
            yield client
        finally:
            client.prompt_id = None
            self._free.append(client)

    def revive(self, wanted: Callable[[], bool]) -> bool:
        """Waits until the server answers; a server that was started anew gets its photos again."""
        self._uploaded.clear()
        deadline = time.monotonic() + self._patience
        client = Client(self.name, retries=0)
        while wanted() and not self._stopped.is_set():
            try:
                client.system_stats()
            except (ServerError, ValueError):
                if time.monotonic() > deadline:
                    return False
                time.sleep(min(_POLL, self._patience))
                continue
            if self._check is not None:
                self._check(self.name)
            return True
        return False

    def cancel(self) -> None:
        self._stopped.set()
        for client in list(self._all):
            self._cancel(client)

    def _cancel(self, client: _Client) -> None:
        # Who does not answer, or nonsense, has nothing to stop.
        with contextlib.suppress(ServerError, ValueError, OSError, TypeError, LookupError):
            client.cancel()


def _likeness(result: PromptResult, cell: Cell) -> float | None:
    """The best face's similarity; -1 where the picture shows no face, None where nobody was asked."""
    if LIKENESS not in cell.api:
        return None
    told = result.outputs.get(LIKENESS, {}).get("faceclip_scores")
    if not isinstance(told, list) or not told:
        raise InputError("it did not tell the likeness of the picture; the pack there is too old")
    return max((float(one) for one in told[0].get("scores", [])), default=_NO_FACE)


def _whole_picture(data: bytes) -> tuple[str, tuple[int, int]]:
    """Kind and size. ServerError where a server's answer is no whole picture: another one may make a better."""
    try:
        picture = open_picture(data, "what came as the picture")
    except InputError as error:
        raise ServerError(f"{error}; {first_words(data)}") from error
    return picture.format or "", picture.size


def check_servers(urls: list[str]) -> dict[str, str]:
    """Which servers do not answer or have no FaceCLIP, and why; asked before hours of work are begun.

    Raises ServerError where none is left.
    """
    problems = {}
    for url in urls:
        try:
            if not Client(url).object_info(LOAD):
                problems[url] = f"it has no ComfyUI-FaceCLIP (no node {LOAD}). Install the pack there."
        except ServerError as error:
            problems[url] = str(error)
    if len(problems) == len(urls):
        raise unusable(problems)
    return problems


def unusable(problems: dict[str, str]) -> ServerError:
    """The error for servers none of which can be used."""
    return ServerError("\n".join(f"The ComfyUI at {url} cannot be used: {why}" for url, why in problems.items()))
