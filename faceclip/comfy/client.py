"""A small client of ComfyUI's HTTP and websocket API."""

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
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import shown
from .server_errors import ExecutionFailed, ExecutionInterrupted, PromptRejected, ServerError

REQUEST_TIMEOUT = 60.0  # without a byte
ANSWER_TIMEOUT = 600.0  # for a whole answer, however it trickles
RUN_TIMEOUT = 600.0
LONGEST_ANSWER = 256 * 2**20  # bytes; of 1800 node classes the host tells in 10 MB
_LONGEST_PROBLEM = 64 * 2**10
_LONGEST_MESSAGE = 64 * 2**20  # of the websocket; previews come through it
_MOST_EVENTS = 200_000


@dataclass(frozen=True)
class Event:
    """One websocket message of a prompt: its type (``progress``, ``executing``, ``executed``, ...) and its data."""

    type: str
    data: dict


@dataclass
class PromptResult:
    """What a finished prompt left behind.

    outputs: node id -> what the node shows, for example ``{"images": [{"filename", "subfolder", "type"}]}``.
    events: every message seen while it ran, in order. seconds: wall time from queueing to the end.
    """

    prompt_id: str
    outputs: dict[str, dict] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    seconds: float = 0.0

    def images(self, node_id: str | None = None) -> list[dict]:
        """Names of the pictures shown by one node, or by all of them in order of node id."""
        nodes = sorted(self.outputs) if node_id is None else [str(node_id)]
        return [image for node in nodes for image in _listed(self.outputs.get(node), "images")]


class ComfyClient:
    """Talks to the ComfyUI at ``url`` (for example ``http://127.0.0.1:8188``)."""

    def __init__(self, url: str):
        self.url = url.rstrip("/")
        self.client_id = uuid.uuid4().hex

    def system_stats(self) -> dict:
        """Versions, memory and devices of the server."""
        return self._json("/system_stats")

    def object_info(self, node: str | None = None) -> dict:
        """Inputs and outputs of one node class (``{}`` if there is none), or node id -> these for all."""
        if node is None:
            return self._json("/object_info")
        return _table(self._json("/object_info/" + urllib.parse.quote(node)).get(node, {}), "/object_info")

    def upload_image(self, picture: Path | bytes, name: str | None = None, subfolder: str = "") -> str:
        """Puts a picture into the server's input folder and returns the name that LoadImage wants."""
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
        answer = _parsed(self._request(path, body, headers), path)
        return "/".join(part for part in (_text(answer, "subfolder", path, ""), _text(answer, "name", path)) if part)

    def queue(self, prompt: dict) -> str:
        """Queues an API prompt and returns its id. Raises PromptRejected with the server's reasons.

        The host runs the outputs that are valid where others are not; here the whole prompt is taken back then.
        """
        body = {"prompt": prompt, "client_id": self.client_id}
        try:
            answer = self._json("/prompt", body)
            prompt_id = _text(answer, "prompt_id", "/prompt")
            node_errors = answer.get("node_errors") if isinstance(answer, dict) else None
            if isinstance(node_errors, dict) and node_errors:
                self._take_back(prompt_id)
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

    def _take_back(self, prompt_id: str) -> None:
        """Out of the queue, or interrupted where it runs already."""
        for path, body in (("/queue", {"delete": [prompt_id]}), ("/interrupt", {"prompt_id": prompt_id})):
            self._request(path, json.dumps(body).encode(), {"Content-Type": "application/json"})

    def run(
        self,
        prompt: dict,
        timeout: float = RUN_TIMEOUT,
        on_event: Callable[[Event], None] | None = None,
    ) -> PromptResult:
        """Queues a prompt, follows it to its end and returns what it left.

        on_event is called with every message of this prompt while it runs (it may call ``interrupt``).
        Raises PromptRejected, ExecutionFailed, ExecutionInterrupted, or ServerError after ``timeout`` seconds.
        """
        started = time.monotonic()
        try:
            result = asyncio.run(asyncio.wait_for(self._follow(prompt, on_event), timeout))
        except (TimeoutError, asyncio.TimeoutError):
            raise ServerError(f"the prompt was not finished after {timeout:.0f} s") from None
        result.outputs = _table(self.history(result.prompt_id).get("outputs", {}), "/history")
        result.seconds = time.monotonic() - started
        return result

    def history(self, prompt_id: str) -> dict:
        """The server's record of one prompt; ``{}`` if it has none (yet)."""
        return _table(self._json("/history/" + urllib.parse.quote(prompt_id)).get(prompt_id, {}), "/history")

    def view(self, image: dict) -> bytes:
        """The file bytes of one picture of ``PromptResult.images()``."""
        query = {key: image[key] for key in ("filename", "subfolder", "type") if key in image}
        return self._request("/view?" + urllib.parse.urlencode(query))

    def interrupt(self) -> None:
        """Cancels the prompt that runs now."""
        self._request("/interrupt", b"{}", {"Content-Type": "application/json"})

    def free(self) -> None:
        """Asks the server to unload its models and forget cached results."""
        self._json("/free", {"unload_models": True, "free_memory": True}, answer=False)

    async def _follow(self, prompt: dict, on_event: Callable[[Event], None] | None) -> PromptResult:
        import aiohttp

        address = f"{self.url}/ws?clientId={self.client_id}".replace("http", "ws", 1)
        async with aiohttp.ClientSession(trust_env=False) as session:
            try:
                # The socket comes first, so that no message of a quick prompt is missed.
                socket = await session.ws_connect(address, max_msg_size=_LONGEST_MESSAGE)
            except aiohttp.ClientError as error:
                raise ServerError(f"no websocket at {address}: {error}") from error
            async with socket:
                result = PromptResult(await asyncio.to_thread(self.queue, prompt))
                async for message in socket:
                    if message.type is not aiohttp.WSMsgType.TEXT:
                        continue
                    event = _event(message.data)
                    if event.data.get("prompt_id") != result.prompt_id:
                        continue
                    result.events.append(event)
                    if len(result.events) > _MOST_EVENTS:
                        raise ServerError(f"ComfyUI sent {_MOST_EVENTS} messages about one prompt and no end")
                    if on_event is not None:
                        await asyncio.to_thread(on_event, event)
                    if _is_end(event):
                        return result
        raise ServerError("ComfyUI closed the connection before the prompt was finished; its log says why")

    def _json(self, path: str, body: dict | None = None, answer: bool = True) -> dict:
        data = None if body is None else json.dumps(body).encode()
        text = self._request(path, data, {"Content-Type": "application/json"})
        return _parsed(text, path) if answer else {}

    def _request(self, path: str, data: bytes | None = None, headers: dict | None = None) -> bytes:
        request = urllib.request.Request(self.url + path, data=data, headers=headers or {})
        try:
            with _opener.open(request, timeout=REQUEST_TIMEOUT) as response:
                return _read(response, path)
        except urllib.error.HTTPError as error:
            body = b""
            with contextlib.suppress(OSError, http.client.HTTPException):
                body = error.read(_LONGEST_PROBLEM)
            raise _HTTPProblem(path, error.code, body) from None
        except (urllib.error.URLError, OSError, http.client.HTTPException, ValueError) as error:
            reason = shown(getattr(error, "reason", error) or type(error).__name__)
            raise ServerError(f"no answer from {self.url}{path}: {reason}; is ComfyUI running there?") from error


class _HTTPProblem(ServerError):
    """An answer other than 2xx."""

    def __init__(self, path: str, status: int, body: bytes):
        self.status = status
        self.body = body
        text = " ".join(body.decode("utf-8", "replace").split())
        super().__init__(f"ComfyUI answered {status} to {path}: {shown(text, 500)}")


# A proxy set for the outside world must not be asked for a server on this machine.
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def first_words(data: bytes | str) -> str:
    """How an answer begins, for a message."""
    text = data[:400].decode("utf-8", "replace") if isinstance(data, bytes) else data[:400]
    return f"it begins with {shown(' '.join(text.split()), 100)!r}" if text.strip() else "it is empty"


def _read(response: http.client.HTTPResponse, path: str) -> bytes:
    """The whole answer. ServerError where it has no end, or breaks off before the one it announced."""
    parts: list[bytes] = []
    length, deadline = 0, time.monotonic() + ANSWER_TIMEOUT
    while part := response.read1(2**20):
        parts.append(part)
        length += len(part)
        if length > LONGEST_ANSWER or time.monotonic() > deadline:
            raise ServerError(f"the answer to {path} does not end: {length:,} bytes so far; {first_words(parts[0])}")
    announced = response.getheader("Content-Length") or ""
    if announced.isdecimal() and length < int(announced):
        words = first_words(parts[0] if parts else b"")
        raise ServerError(f"the answer to {path} broke off after {length:,} of {announced} bytes; {words}")
    return b"".join(parts)


def _parsed(text: bytes, path: str) -> dict:
    """A JSON table. ServerError with the first words for anything else."""
    try:
        return _table(json.loads(text), path, text)
    except (ValueError, RecursionError):
        raise ServerError(f"the answer to {path} is no JSON: {first_words(text)}; is it a ComfyUI?") from None


def _table(value: object, path: str, text: bytes | None = None) -> dict:
    if not isinstance(value, dict):
        words = first_words(repr(value) if text is None else text)
        raise ServerError(f"the answer to {path} has a {type(value).__name__} where a table belongs; {words}")
    return value


def _text(table: dict, key: str, path: str, default: str | None = None) -> str:
    value = table.get(key, default)
    if not isinstance(value, str) or (not value and default is None):
        raise ServerError(f"the answer to {path} has no {key}; {first_words(json.dumps(table))}")
    return value


def _listed(output: object, key: str) -> list[dict]:
    """The tables in a list of a node's output; what else stands there is passed over, as what no node showed."""
    entries = output.get(key) if isinstance(output, dict) else None
    return [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []


def _event(text: str) -> Event:
    try:
        message = json.loads(text)
    except (ValueError, RecursionError):
        raise ServerError(f"ComfyUI sent a message that is no JSON: {first_words(text)}") from None
    if not isinstance(message, dict):
        return Event("", {})
    kind, data = message.get("type"), message.get("data")
    return Event(kind if isinstance(kind, str) else "", data if isinstance(data, dict) else {})


def _is_end(event: Event) -> bool:
    if event.type == "execution_error":
        raise ExecutionFailed(event.data)
    if event.type == "execution_interrupted":
        raise ExecutionInterrupted(event.data)
    # Sent after the record of the prompt is written, which ``execution_success`` is not.
    return event.type == "executing" and event.data.get("node") is None


def _form_field(boundary: str, name: str, value: str) -> bytes:
    return f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()


def _form_file(boundary: str, name: str, filename: str, data: bytes) -> bytes:
    kind = mimetypes.guess_type(filename)[0] or "application/octet-stream"
    head = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"; filename="{filename}"\r\n'
        f"Content-Type: {kind}\r\n\r\n"
    )
    return head.encode() + data + b"\r\n"
