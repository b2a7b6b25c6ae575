"""What can go wrong while setting up, starting or talking to a ComfyUI."""

from collections.abc import Iterator

from ..errors import FaceCLIPError


class SetupError(FaceCLIPError):
    """The environment or the host cannot be prepared: no network, no space, no venv module."""


class ServerError(FaceCLIPError):
    """ComfyUI did not start, stopped, or gave an answer that makes no sense."""


class TooSlow(ServerError):
    """The prompt was not finished in the time it was given. It goes on at the server, unless somebody stops it."""


class PromptRejected(FaceCLIPError):
    """The server refused a prompt before running it (HTTP 400).

    error: the server's overall error, ``{type, message, details, extra_info}``.
    node_errors: node id -> ``{errors: [{type, message, details, extra_info}], class_type, ...}``.
    """

    def __init__(self, error: dict, node_errors: dict):
        self.error = error
        self.node_errors = node_errors
        lines = [": ".join(str(part) for part in (error.get("message"), error.get("details")) if part)]
        for node_id, entry, problem in self._problems():
            detail = f" ({problem['details']})" if problem.get("details") else ""
            lines.append(f"node {node_id}, {entry.get('class_type')}: {problem.get('message')}{detail}")
        super().__init__("\n  ".join(["ComfyUI refused the prompt:", *(line for line in lines if line)]))

    def messages(self) -> list[str]:
        """Each node's problems as ``"message details"``, in the server's words."""
        return [
            f"{problem.get('message', '')} {problem.get('details', '')}".strip() for *_, problem in self._problems()
        ]

    def _problems(self) -> Iterator[tuple[str, dict, dict]]:
        """Node id, its entry, and each of its problems; what another server may have put there is passed over."""
        for node_id, entry in self.node_errors.items():
            problems = entry.get("errors") if isinstance(entry, dict) else None
            for problem in problems if isinstance(problems, list) else ():
                if isinstance(problem, dict):
                    yield node_id, entry, problem


class ExecutionFailed(FaceCLIPError):
    """A node raised while the prompt ran: node_id, node_type, exception_type, exception_message, traceback (lines)."""

    def __init__(self, data: dict):
        self.node_id = data.get("node_id")
        self.node_type = data.get("node_type")
        self.exception_type = str(data.get("exception_type", ""))
        self.exception_message = str(data.get("exception_message", ""))
        self.traceback = data.get("traceback", [])
        super().__init__(
            f"node {self.node_id}, {self.node_type}: {self.exception_type}: {self.exception_message.strip()}"
        )


class ExecutionInterrupted(FaceCLIPError):
    """The prompt was cancelled while node ``node_id`` ran."""

    def __init__(self, data: dict):
        self.node_id = data.get("node_id")
        self.node_type = data.get("node_type")
        super().__init__(f"the prompt was cancelled at node {self.node_id}, {self.node_type}")
