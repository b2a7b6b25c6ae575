"""Running installers with a log, a sign of life and errors that say what to do; and a lock between processes."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from .server_errors import SetupError

Say = Callable[[str], None]

# Downloads smaller than this many MB are not worth a line.
_SHOWN_SIZE = 50
_DOWNLOAD = re.compile(r"Downloading (?:\S*/)?([^/\s]+\.whl)\S* \(([\d.]+) (MB|GB)\)")
_CAUSES = (
    (
        r"No space left on device|Errno 28|not enough space on the disk",
        "The disk is full. Free some space, or name a folder on a larger disk in FACECLIP_CACHE (and in TMPDIR, where "
        "downloads are unpacked), and start again.",
    ),
    (
        r"NewConnectionError|NameResolutionError|Temporary failure in name resolution|ConnectTimeout|ProxyError"
        r"|Network is unreachable|Connection refused|Connection reset|ReadTimeout|Max retries exceeded|getaddrinfo",
        "The package index cannot be reached. Check the network (and the proxy, if there is one) and start again; "
        "what is complete is kept.",
    ),
    (
        r"No matching distribution found",
        "The package index has no such package for this Python and system, or did not answer. Check the network; if it "
        "works, try another Python from 3.10 to 3.13.",
    ),
    (
        r"ensurepip is not available|No module named '?(venv|ensurepip)",
        "This Python cannot make virtual environments. On Debian and Ubuntu: apt install python3-venv; or start with "
        "another Python.",
    ),
)


def run(command: Sequence[str | Path], log: Path, what: str, say: Say, folder: Path | None = None) -> None:
    """Runs a command, in `folder`, with its output appended to `log`; large downloads are told through `say`.

    Raises SetupError, with the cause where it is a known one, the last lines and the log's place.
    """
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment.update(PIP_DISABLE_PIP_VERSION_CHECK="1", PIP_NO_INPUT="1", PIP_USER="0", PYTHONIOENCODING="utf-8")
    last: deque[str] = deque(maxlen=400)
    with open(log, "a", encoding="utf-8") as file:
        file.write(f"$ {' '.join(map(str, command))}\n")
        try:
            process = subprocess.Popen(
                [str(part) for part in command],
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                encoding="utf-8",
                errors="replace",
            )
        except OSError as error:
            raise SetupError(f"{what}: {command[0]} cannot be started: {error}") from error
        with process:
            try:
                assert process.stdout is not None  # asked for as a pipe
                for line in process.stdout:
                    file.write(line)
                    last.append(line.rstrip())
                    _tell_progress(line, say)
            except BaseException:
                process.terminate()
                raise
    if process.returncode:
        raise SetupError(explain(what, "\n".join(last), log))


def explain(what: str, output: str, log: Path) -> str:
    """The message for a failed command: what failed, why if that is known, what to do, its last lines."""
    cause = next((advice for pattern, advice in _CAUSES if re.search(pattern, output, re.IGNORECASE)), "")
    end = "\n".join("  " + line for line in output.splitlines()[-6:])
    return f"{what}. {cause}\nThe last lines (all of them: {log}):\n{end}"


def _tell_progress(line: str, say: Say) -> None:
    found = _DOWNLOAD.search(line)
    if found and (found.group(3) == "GB" or float(found.group(2)) >= _SHOWN_SIZE):
        say(f"    downloading {found.group(1)} ({found.group(2)} {found.group(3)})")
    elif line.startswith("Installing collected packages:"):
        say(f"    installing {line.count(',') + 1} packages")


def exit_on_sigterm() -> None:
    """Makes a termination an orderly exit, which stops the processes started here."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


def hand_over(command: Sequence[str | Path], folder: Path, variables: Mapping[str, str] | None = None) -> int:
    """Lets a command take this process's place, in `folder` and with more environment variables.

    Returns its exit status where a process can't be replaced (Windows); elsewhere it does not return.
    """
    arguments = [str(part) for part in command]
    environment = {**os.environ, **(variables or {})}
    sys.stdout.flush()
    sys.stderr.flush()
    if os.name == "posix":
        os.chdir(folder)
        os.execve(arguments[0], arguments, environment)
    with subprocess.Popen(arguments, cwd=folder, env=environment) as process:
        while True:
            try:
                return process.wait()
            except KeyboardInterrupt:
                # The command got the Ctrl-C as well and is putting things in order.
                continue


@contextlib.contextmanager
def locked(path: Path, say: Say) -> Iterator[None]:
    """Holds a lock file, waiting while another process holds it; the system frees it when its holder dies.

    Not by the package filelock: this runs before any package is installed.
    """
    with open(path, "a+b") as file:
        waiting = False
        while not _try_lock(file):
            if not waiting:
                say(f"Waiting for another run that is setting up (lock: {path})")
            waiting = True
            time.sleep(0.5)
        try:
            yield
        finally:
            _unlock(file)


if sys.platform == "win32":
    import msvcrt

    def _try_lock(file) -> bool:
        try:
            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

    def _unlock(file) -> None:
        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _try_lock(file) -> bool:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _unlock(file) -> None:
        fcntl.flock(file, fcntl.LOCK_UN)
