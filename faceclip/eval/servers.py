"""A ComfyUI server as a worker: photos go up, a prompt is queued, its picture comes back."""

import contextlib
import http.client
import threading
import time
from collections.abc import Callable

from ..comfy.client import ComfyClient, first_words
from ..comfy.server_errors import ServerError
from ..errors import FaceCLIPError, InputError, shown
from ..files.picture import open_picture
from .graph import LOAD
from .grid import UPLOADS, Cell

PICTURE_TIMEOUT = 3600.0  # a picture may wait behind other people's in the queue
PATIENCE = 120.0  # how long a server may need to be started again
_POLL = 1.0


class _Client(ComfyClient):
    """Remembers the prompt that it queued last, to cancel that one and nobody else's."""

    def __init__(self, url: str):
        super().__init__(url)
        self.prompt_id: str | None = None
        self.stopped = threading.Event()

    def queue(self, prompt: dict) -> str:
        self.prompt_id = super().queue(prompt)
        if self.stopped.is_set():  # between the call and its answer
            self.cancel()
            raise ServerError("stopped")
        return self.prompt_id

    def cancel(self) -> None:
        if self.prompt_id is None:
            return
        self._json("/queue", {"delete": [self.prompt_id]}, answer=False)
        running = self._json("/queue").get("queue_running", [])
        if any(self.prompt_id in entry[:2] for entry in running):
            self._json("/interrupt", {"prompt_id": self.prompt_id}, answer=False)


class ServerWorker:
    """Makes pictures on the ComfyUI at `url`. read: the server's name of a photo -> the file's bytes.

    Photos are put into the folder faceclip_eval of the server's input folder and stay there.
    """

    def __init__(self, url: str, read: Callable[[str], bytes], timeout: float = PICTURE_TIMEOUT, patience=PATIENCE):
        if not url.startswith(("http://", "https://")):
            raise InputError(f"The server is {url!r}, wanted its address, such as http://127.0.0.1:8188.")
        self.name = url
        self._client, self._read, self._timeout, self._patience = _Client(url), read, timeout, patience
        self._uploaded: set[str] = set()

    def make(self, cell: Cell) -> bytes:
        """The bytes of the picture's file."""
        import aiohttp

        try:
            self._upload(cell)
            result = self._client.run(cell.api, self._timeout)
            values = (value for node in cell.api.values() for value in node["inputs"].values())
            used = {value[0] for value in values if isinstance(value, list)}
            # Nodes on the way show pictures too; the output is the one that nothing uses.
            images = [image for node in cell.api if node not in used for image in result.images(node)]
            if not images:
                raise InputError("the workflow's output node gives no picture; settings.inputs.output names it")
            return _whole_picture(self._client.view(images[-1]))
        except ServerError:
            self._cancel()  # what took too long would go on there
            raise
        except FaceCLIPError:
            raise
        except (OSError, RuntimeError, ValueError, http.client.HTTPException, aiohttp.ClientError) as error:
            raise ServerError(f"the connection broke ({type(error).__name__}: {shown(error)})") from error
        except (AttributeError, LookupError, TypeError) as error:  # nobody foresaw all that a server may answer
            raise ServerError(f"its answer makes no sense ({type(error).__name__}: {shown(error)})") from error
        finally:
            self._client.prompt_id = None

    def _upload(self, cell: Cell) -> None:
        for name in cell.uploads:
            if name not in self._uploaded:
                stored = self._client.upload_image(self._read(name), name.rpartition("/")[2], UPLOADS)
                if stored != name:
                    raise ServerError(f"it stored the photo as {shown(repr(stored))} instead of {name!r}")
                self._uploaded.add(name)

    def revive(self, wanted: Callable[[], bool]) -> bool:
        """Waits until the server answers; a server that was started anew gets its photos again."""
        self._uploaded.clear()
        deadline = time.monotonic() + self._patience
        while wanted() and not self._client.stopped.is_set():
            try:
                self._client.system_stats()
                return True
            except (ServerError, ValueError):
                if time.monotonic() > deadline:
                    return False
                time.sleep(min(_POLL, self._patience))
        return False

    def cancel(self) -> None:
        self._client.stopped.set()
        self._cancel()

    def _cancel(self) -> None:
        # Who does not answer, or nonsense, has nothing to stop.
        with contextlib.suppress(ServerError, ValueError, OSError, TypeError, LookupError):
            self._client.cancel()


def _whole_picture(data: bytes) -> bytes:
    """ServerError where a server's answer is no whole picture: another one may make a better."""
    try:
        open_picture(data, "what came as the picture")
    except InputError as error:
        raise ServerError(f"{error}; {first_words(data)}") from error
    return data


def check_servers(urls: list[str]) -> dict[str, str]:
    """Which servers do not answer or have no FaceCLIP, and why; asked before hours of work are begun.

    Raises ServerError where none is left.
    """
    problems = {}
    for url in urls:
        try:
            if not ComfyClient(url).object_info(LOAD):
                problems[url] = f"it has no ComfyUI-FaceCLIP (no node {LOAD}). Install the pack there."
        except ServerError as error:
            problems[url] = str(error)
    if len(problems) == len(urls):
        raise ServerError("\n".join(f"The ComfyUI at {url} cannot be used: {why}" for url, why in problems.items()))
    return problems
