"""Reading what a ComfyUI answers, whatever it sends: what makes no sense is a ServerError with its first words."""

import http.client
import json
import time
from dataclasses import dataclass, field

from ..errors import shown
from .server_errors import ExecutionFailed, ExecutionInterrupted, ServerError

ANSWER_TIMEOUT = 600.0  # for a whole answer, however it trickles
LONGEST_ANSWER = 256 * 2**20  # bytes; of 1800 node classes the host tells in 10 MB


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
        return [image for node in nodes for image in listed(self.outputs.get(node), "images")]


def first_words(data: bytes | str) -> str:
    """How an answer begins, for a message."""
    text = data[:400].decode("utf-8", "replace") if isinstance(data, bytes) else data[:400]
    return f"it begins with {shown(' '.join(text.split()), 100)!r}" if text.strip() else "it is empty"


def read(response: http.client.HTTPResponse, path: str) -> bytes:
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


def parsed(text: bytes, path: str) -> dict:
    """A JSON table. ServerError with the first words for anything else."""
    try:
        return table(json.loads(text), path, text)
    except (ValueError, RecursionError):
        raise ServerError(f"the answer to {path} is no JSON: {first_words(text)}; is it a ComfyUI?") from None


def table(value: object, path: str, text: bytes | None = None) -> dict:
    if not isinstance(value, dict):
        words = first_words(repr(value) if text is None else text)
        raise ServerError(f"the answer to {path} has a {type(value).__name__} where a table belongs; {words}")
    return value


def text(answer: dict, key: str, path: str, default: str | None = None) -> str:
    value = answer.get(key, default)
    if not isinstance(value, str) or (not value and default is None):
        raise ServerError(f"the answer to {path} has no {key}; {first_words(json.dumps(answer))}")
    return value


def listed(output: object, key: str) -> list[dict]:
    """The tables in a list of a node's output; what else stands there is passed over, as what no node showed."""
    entries = output.get(key) if isinstance(output, dict) else None
    return [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []


def event_of(text: str) -> Event:
    try:
        message = json.loads(text)
    except (ValueError, RecursionError):
        raise ServerError(f"ComfyUI sent a message that is no JSON: {first_words(text)}") from None
    if not isinstance(message, dict):
        return Event("", {})
    kind, data = message.get("type"), message.get("data")
    return Event(kind if isinstance(kind, str) else "", data if isinstance(data, dict) else {})


def is_end(event: Event) -> bool:
    if event.type == "execution_error":
        raise ExecutionFailed(event.data)
    if event.type == "execution_interrupted":
        raise ExecutionInterrupted(event.data)
    # Sent after the record of the prompt is written, which ``execution_success`` is not.
    return event.type == "executing" and event.data.get("node") is None
