"""A client of ComfyUI's HTTP and websocket API, for programs and for the commands here."""

import asyncio
import contextlib
import http.client
import json
import mimetypes
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ..errors import shown
from .answers import Event, PromptResult, event_of, first_words, is_end, parsed, read, table, text
from .server_errors import PromptRejected, ServerError, TooSlow

__all__ = ["Client", "Event", "PromptResult", "first_words"]

REQUEST_TIMEOUT = 60.0  # without a byte
RUN_TIMEOUT = 600.0
RETRIES = 2
Prompt = dict[str, dict[str, Any]]  # an API prompt: node id -> {class_type, inputs}
_PAUSE = 0.3  # seconds before the first retry, twice as many before each further one
_BUSY = (502, 503, 504)  # what a proxy answers for a server that is not up yet
_HEARTBEAT = 120.0  # seconds: a machine that is gone says nothing, not even that the connection is
_LONGEST_PROBLEM = 64 * 2**10
_LONGEST_MESSAGE = 64 * 2**20  # of the websocket; previews come through it
_MOST_EVENTS = 200_000


class Client:
    """Talks to the ComfyUI at ``url`` (for example ``http://127.0.0.1:8188``).

        client = Client("http://127.0.0.1:8188")
        prompt["photo"]["inputs"]["image"] = client.upload_image(Path("photo.jpg"))
        result = client.run(prompt)
        picture = client.view(result.images("save")[0])

    timeout: seconds that a request may take without a byte. retries: how often a request is sent again where the
    connection breaks or a proxy says that the server is not up; only requests that may be: questions, and uploads,
    which replace what they left. A prompt is queued once, whatever happens. One client follows one prompt at a time
    (the host tells a client's last websocket only); `run_all` keeps several going, and threads take a client each. No
    twin for asyncio: ``await asyncio.to_thread(client.run, prompt)`` does what one would do, without a second copy of
    every method.

    Methods raise ServerError where the server does not answer, or nonsense.
    """

    def __init__(self, url: str, timeout: float = REQUEST_TIMEOUT, retries: int = RETRIES):
        self.url = url.rstrip("/")
        self.timeout, self.retries = timeout, retries
        self.client_id = uuid.uuid4().hex

    def system_stats(self) -> dict[str, Any]:
        """Versions, memory and devices of the server."""
        return self._json("/system_stats")

    def object_info(self, node: str | None = None) -> dict[str, Any]:
        """Inputs and outputs of one node class (``{}`` if there is none), or node id -> these for all."""
        if node is None:
            return self._json("/object_info")
        return table(self._json("/object_info/" + urllib.parse.quote(node)).get(node, {}), "/object_info")

    def upload_image(self, picture: Path | str | bytes, name: str | None = None, subfolder: str = "") -> str:
        """Puts a picture (its file, or the bytes of one) into the server's input folder, over one of that name.

        Returns the name that LoadImage wants.
        """
        data = picture if isinstance(picture, bytes) else Path(picture).read_bytes()
        name = name or ("upload.png" if isinstance(picture, bytes) else Path(picture).name)
        boundary = uuid.uuid4().hex
        parts = [_form_field(boundary, "overwrite", "true")]
        if subfolder:
            parts.append(_form_field(boundary, "subfolder", subfolder))
        parts.append(_form_file(boundary, "image", name, data))
        body = b"".join(parts) + f"--{boundary}--\r\n".encode()
        headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
        path = "/upload/image"
        answer = parsed(self._request(path, body, headers, again=True), path)
        return "/".join(part for part in (text(answer, "subfolder", path, ""), text(answer, "name", path)) if part)

    def queue(self, prompt: Prompt, prompt_id: str | None = None) -> str:
        """Queues an API prompt and returns its id. Raises PromptRejected with the server's reasons.

        prompt_id: a UUID to give it, by which it is found again. The host runs the outputs that are valid where others
        are not; here the whole prompt is taken back then.
        """
        body = {"prompt": prompt, "client_id": self.client_id, **({"prompt_id": prompt_id} if prompt_id else {})}
        try:
            answer = self._json("/prompt", body)
            prompt_id = text(answer, "prompt_id", "/prompt")
            node_errors = answer.get("node_errors")
            if isinstance(node_errors, dict) and node_errors:
                self.cancel(prompt_id)
                raise PromptRejected({"message": "Prompt outputs failed validation"}, node_errors)
            return prompt_id
        except _HTTPProblem as problem:
            try:
                answer = json.loads(problem.body)
            except (ValueError, RecursionError):
                answer = None
            if problem.status != 400 or not isinstance(answer, dict) or "error" not in answer:
                raise
            error = answer["error"] if isinstance(answer["error"], dict) else {"message": str(answer["error"])}
            node_errors = answer.get("node_errors")
            raise PromptRejected(error, node_errors if isinstance(node_errors, dict) else {}) from None

    def run(
        self,
        prompt: Prompt,
        timeout: float = RUN_TIMEOUT,
        on_event: Callable[[Event], None] | None = None,
        prompt_id: str | None = None,
    ) -> PromptResult:
        """Queues a prompt, follows it to its end and returns what it left.

        on_event is called with every message of this prompt while it runs (it may call ``interrupt``). Raises
        PromptRejected, ExecutionFailed, ExecutionInterrupted, or TooSlow after ``timeout`` seconds, which leaves the
        prompt with the server (``cancel`` takes it back). Needs aiohttp, which ComfyUI brings.
        """
        started = time.monotonic()
        try:
            result = asyncio.run(asyncio.wait_for(self._follow(prompt, on_event, prompt_id), timeout))
        except (TimeoutError, asyncio.TimeoutError):
            raise TooSlow(f"the prompt was not finished after {timeout:.0f} s") from None
        result.outputs = table(self.history(result.prompt_id).get("outputs", {}), "/history")
        result.seconds = time.monotonic() - started
        return result

    def run_all(
        self, prompts: Iterable[Prompt], at_once: int = 2, timeout: float = RUN_TIMEOUT
    ) -> Iterator[PromptResult]:
        """Runs many prompts, `at_once` in the server's queue, and gives their results in the prompts' order.

        Two keep the server busy while results travel. Prompts are taken as they are needed. What one of them raises
        comes out at its turn; the results of those before it were given, and nothing more is queued.
        """
        waiting: deque[tuple[str, Future[PromptResult]]] = deque()
        with ThreadPoolExecutor(at_once) as threads:
            try:
                for prompt in prompts:
                    client, prompt_id = type(self)(self.url, self.timeout, self.retries), str(uuid.uuid4())
                    waiting.append((prompt_id, threads.submit(client.run, prompt, timeout, None, prompt_id)))
                    if len(waiting) > at_once:
                        yield waiting.popleft()[1].result()
                while waiting:
                    yield waiting.popleft()[1].result()
            finally:
                for prompt_id, future in waiting:
                    if not future.cancel() and not future.done():
                        with contextlib.suppress(ServerError):
                            self.cancel(prompt_id)

    def history(self, prompt_id: str) -> dict[str, Any]:
        """The server's record of one prompt; ``{}`` if it has none (yet)."""
        return table(self._json("/history/" + urllib.parse.quote(prompt_id)).get(prompt_id, {}), "/history")

    def is_queued(self, prompt_id: str) -> bool:
        """Whether a prompt waits or runs now."""
        answer = self._json("/queue")
        entries = [*answer.get("queue_running", []), *answer.get("queue_pending", [])]
        return any(prompt_id in entry[:2] for entry in entries)

    def view(self, image: Mapping[str, str]) -> bytes:
        """The file bytes of one picture of ``PromptResult.images()``."""
        query = {key: image[key] for key in ("filename", "subfolder", "type") if key in image}
        return self._request("/view?" + urllib.parse.urlencode(query))

    def cancel(self, prompt_id: str) -> None:
        """Takes one prompt out of the queue, or interrupts it where it runs already."""
        self._json("/queue", {"delete": [prompt_id]}, answer=False)
        running = self._json("/queue").get("queue_running", [])
        if any(prompt_id in entry[:2] for entry in running):
            self._json("/interrupt", {"prompt_id": prompt_id}, answer=False)

    def interrupt(self) -> None:
        """Cancels the prompt that runs now, whosever it is."""
        self._request("/interrupt", b"{}", {"Content-Type": "application/json"})

    def free(self) -> None:
        """Asks the server to unload its models and forget cached results."""
        self._json("/free", {"unload_models": True, "free_memory": True}, answer=False)

    def about(self, files: Iterable[str] = ()) -> dict[str, Any]:
        """The pack's version, and the SHA-256 of model files there: {"version", "files": {"folder/name": ...}}.

        files: as folder/name, such as "faceclip/faceclip.safetensors". One that is missing is None; one that is being
        read, which takes a second for each gigabyte or so, is a number from 0 to 1: ask again.
        """
        return self._json("/faceclip/about", {"files": list(files)}, again=True)

    async def _follow(
        self, prompt: Prompt, on_event: Callable[[Event], None] | None, prompt_id: str | None
    ) -> PromptResult:
        import aiohttp

        address = f"{self.url}/ws?clientId={self.client_id}".replace("http", "ws", 1)
        async with aiohttp.ClientSession(trust_env=False) as session:
            try:
                # The socket comes first, so that no message of a quick prompt is missed.
                socket = await session.ws_connect(address, max_msg_size=_LONGEST_MESSAGE, heartbeat=_HEARTBEAT)
            except aiohttp.ClientError as error:
                raise ServerError(f"no websocket at {address}: {error}") from error
            async with socket:
                result = PromptResult(await asyncio.to_thread(self.queue, prompt, prompt_id))
                async for message in socket:
                    if message.type is not aiohttp.WSMsgType.TEXT:
                        continue
                    event = event_of(message.data)
                    if event.data.get("prompt_id") != result.prompt_id:
                        continue
                    result.events.append(event)
                    if len(result.events) > _MOST_EVENTS:
                        raise ServerError(f"ComfyUI sent {_MOST_EVENTS} messages about one prompt and no end")
                    if on_event is not None:
                        await asyncio.to_thread(on_event, event)
                    if is_end(event):
                        return result
        raise ServerError("ComfyUI closed the connection before the prompt was finished; its log says why")

    def _json(
        self, path: str, body: dict[str, Any] | None = None, answer: bool = True, again: bool = False
    ) -> dict[str, Any]:
        data = None if body is None else json.dumps(body).encode()
        found = self._request(path, data, {"Content-Type": "application/json"}, again)
        return parsed(found, path) if answer else {}

    def _request(
        self, path: str, data: bytes | None = None, headers: dict[str, str] | None = None, again: bool = False
    ) -> bytes:
        """The bytes of an answer. again: whether what carries data may be sent twice."""
        tries = self.retries if data is None or again else 0
        for number in range(tries + 1):
            try:
                return self._request_once(path, data, headers)
            except ServerError as error:
                final = number == tries or (isinstance(error, _HTTPProblem) and error.status not in _BUSY)
                if final or not isinstance(error, _HTTPProblem | _NoAnswer):
                    raise
                time.sleep(_PAUSE * 2**number)
        raise AssertionError("the last try returns or raises")

    def _request_once(self, path: str, data: bytes | None, headers: dict[str, str] | None) -> bytes:
        request = urllib.request.Request(self.url + path, data=data, headers=headers or {})
        try:
            with _opener.open(request, timeout=self.timeout) as response:
                return read(response, path)
        except urllib.error.HTTPError as error:
            body = b""
            with contextlib.suppress(OSError, http.client.HTTPException):
                body = error.read(_LONGEST_PROBLEM)
            raise _HTTPProblem(path, error.code, body) from None
        except (urllib.error.URLError, OSError, http.client.HTTPException, ValueError) as error:
            reason = shown(getattr(error, "reason", error) or type(error).__name__)
            raise _NoAnswer(f"no answer from {self.url}{path}: {reason}; is ComfyUI running there?") from error


class _NoAnswer(ServerError):
    """The connection was not made, or broke."""


class _HTTPProblem(ServerError):
    """An answer other than 2xx."""

    def __init__(self, path: str, status: int, body: bytes):
        self.status = status
        self.body = body
        words = " ".join(body.decode("utf-8", "replace").split())
        super().__init__(f"ComfyUI answered {status} to {path}: {shown(words, 500)}")


# A proxy set for the outside world must not be asked for a server on this machine.
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def _form_field(boundary: str, name: str, value: str) -> bytes:
    return f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()


def _form_file(boundary: str, name: str, filename: str, data: bytes) -> bytes:
    kind = mimetypes.guess_type(filename)[0] or "application/octet-stream"
    head = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"; filename="{filename}"\r\n'
        f"Content-Type: {kind}\r\n\r\n"
    )
    return head.encode() + data + b"\r\n"
