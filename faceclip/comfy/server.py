"""Starts a real ComfyUI with this pack in it, and always stops it."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path

from .client import Client
from .server_errors import ServerError

PACK_ROOT = Path(__file__).resolve().parents[2]
PACK_NAME = "ComfyUI-FaceCLIP"
START_TIMEOUT = 600.0  # a host that stops is noticed at once; this is for busy machines
STOP_TIMEOUT = 15.0
COPY_MARK = ".faceclip-copy"
FOLDERS = ("custom_nodes", "models", "input", "output", "temp", "user")
NOT_IN_A_COPY = (".git", ".venv", "venv", "__pycache__", ".pytest_cache", ".ruff_cache", "tests", "benchmarks")


def link_pack(base_directory: Path, pack: Path = PACK_ROOT) -> Path:
    """Makes ``base_directory/custom_nodes/ComfyUI-FaceCLIP`` show ``pack``, as a link, or as a copy without links.

    A folder there that this function did not make is somebody's own installation: ServerError.
    """
    place = Path(base_directory) / "custom_nodes" / PACK_NAME
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.is_symlink():
        place.unlink()
    elif (place / COPY_MARK).is_file():
        shutil.rmtree(place)
    elif place.exists():
        raise ServerError(f"{place} is there already and was not made by this command; use another base directory.")
    try:
        place.symlink_to(pack, target_is_directory=True)
    except OSError:
        shutil.copytree(pack, place, ignore=shutil.ignore_patterns(*NOT_IN_A_COPY))
        (place / COPY_MARK).touch()
    return place


def free_port() -> int:
    """A TCP port of the loopback address that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class ComfyServer:
    """A ComfyUI process on the CPU that keeps all its files under ``base_directory``.

    Use it as a context manager: it is ready inside the block and gone after it, also after an error or Ctrl-C.

    comfyui: the folder of ComfyUI's ``main.py``. python: the interpreter to run it with.
    pack: folder of this pack to load, or None for a ComfyUI without it. arguments: more command line arguments.
    environment: more environment variables. log: where the output goes (default ``base_directory/comfyui.log``).
    """

    def __init__(
        self,
        comfyui: Path,
        base_directory: Path,
        *,
        python: str | Path = sys.executable,
        pack: Path | None = PACK_ROOT,
        arguments: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        log: Path | None = None,
        port: int | None = None,
    ):
        self.comfyui = Path(comfyui).resolve()
        self.base_directory = Path(base_directory).resolve()
        self.python = str(python)
        self.pack = pack
        self.arguments = list(arguments)
        self.environment = dict(environment or {})
        self.log = Path(log) if log else self.base_directory / "comfyui.log"
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.client = Client(self.url)
        self._process: subprocess.Popen | None = None

    def __enter__(self) -> "ComfyServer":
        self.start()
        return self

    def __exit__(self, *_):
        self.stop()

    def command(self) -> list[str]:
        """The command line that starts the server."""
        database = (self.base_directory / "user" / "comfyui.db").as_posix()
        return [
            self.python,
            str(self.comfyui / "main.py"),
            "--cpu",
            *("--base-directory", str(self.base_directory)),
            *("--port", str(self.port)),
            *("--database-url", f"sqlite:///{database}"),
            "--disable-auto-launch",
            "--disable-api-nodes",
            *self.arguments,
        ]

    def start(self, timeout: float = START_TIMEOUT) -> None:
        """Starts the process and returns when it answers. Raises ServerError with the end of its log."""
        if not (self.comfyui / "main.py").is_file():
            raise ServerError(
                f"{self.comfyui} is no ComfyUI: no main.py there. Set COMFYUI_PATH to the folder with it."
            )
        for folder in FOLDERS:
            (self.base_directory / folder).mkdir(parents=True, exist_ok=True)
        if self.pack is not None:
            link_pack(self.base_directory, self.pack)
        with open(self.log, "wb") as log:
            # A session of its own: Ctrl-C reaches this process alone, which then stops the server in order.
            self._process = process = subprocess.Popen(
                self.command(),
                cwd=self.comfyui,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=os.name == "posix",
            )
        try:
            self._wait_until_ready(process, timeout)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Ends the process, by force if it does not end by itself within a few seconds."""
        process, self._process = self._process, None
        if process is None or process.poll() is not None:
            return
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int | None:
        """The process's number, None while there is none."""
        return self._process and self._process.pid

    def log_text(self) -> str:
        """Everything the server has written so far."""
        return self.log.read_text("utf-8", "replace") if self.log.is_file() else ""

    def _environment(self) -> dict[str, str]:
        # A PYTHONPATH with this repository in it would put our ``nodes`` package before the host's ``nodes.py``.
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        environment.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", PYTHONUNBUFFERED="1", PYTHONIOENCODING="utf-8")
        environment.update(self.environment)
        return environment

    def _wait_until_ready(self, process: subprocess.Popen, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        while time.monotonic() < deadline:
            code = process.poll()
            if code is not None:
                raise ServerError(f"ComfyUI stopped at once with exit code {code}. {self._log_end()}")
            try:
                with opener.open(self.url + "/system_stats", timeout=5):
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.2)
        raise ServerError(f"ComfyUI did not answer at {self.url} within {timeout:.0f} s. {self._log_end()}")

    def _log_end(self, lines: int = 25) -> str:
        end = "\n".join(self.log_text().splitlines()[-lines:])
        return f"The end of its log ({self.log}):\n{end}"
