"""`python -m faceclip allow-detector FILE`: a YuNet file that is not the published one, tried first, then allowed.

OpenCV's reader of ONNX dies with its whole process on some damaged files. Here that process is one of its own, so it
can be seen and told; in ComfyUI it would be the server.
"""

import argparse
import hashlib
import multiprocessing
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import CheckpointError, FaceCLIPError
from ...install.published import YUNET, allowance
from .yunet import YuNet

_SECONDS = 120.0
_MEMORY = 4 * 2**30  # bytes of address space, most of it never touched
_SIDES = (64, 320, 641, 1280)  # px of the pictures that are looked at


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.description = (
        "ComfyUI opens a YuNet file only if it is the published one, since OpenCV can die on a damaged one. This opens "
        "another one in a process of its own, and where that works allows exactly these bytes."
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="the detector's .onnx file")


def run(arguments: argparse.Namespace) -> int:
    """Try the file and allow it. Raises CheckpointError where it cannot be used; then nothing is allowed."""
    path = arguments.file.absolute()
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        if digest == YUNET.sha256:
            sys.stdout.write(f"{path} is the published {YUNET.name}: nothing has to be allowed.\n")
            return 0
        try_file(path)
        allowance(path).write_text(digest, "ascii")
    except OSError as error:
        raise CheckpointError(
            f"{error.filename or path}: {error.strerror or error}. Check the path and its rights."
        ) from error
    sys.stdout.write(f"{path} works and is allowed: {allowance(path).name} beside it holds its SHA-256.\n")
    return 0


def try_file(path: Path, seconds: float = _SECONDS) -> None:
    """Open the file and look at pictures with it, in another process. CheckpointError where that fails or dies."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_try, args=(path, there), daemon=True)
    process.start()
    there.close()
    try:
        # As bytes: what comes from there is text, and no pickle.
        problem = here.recv_bytes(2**16).decode() if here.poll(seconds) else f"it took more than {seconds:.0f} s"
    except EOFError:
        process.join()
        problem = f"the process that opened it {_end(process.exitcode)}"
    finally:
        process.kill()
        process.join()
        here.close()
    if problem:
        raise CheckpointError(f"{path} is not allowed: {problem}. Delete it, and take another file.")


def _end(code: int | None) -> str:
    if code is None or code >= 0:
        return f"ended with {code}"
    name = signal.Signals(-code).name if -code in {one.value for one in signal.Signals} else f"signal {-code}"
    return f"died of {name}, as ComfyUI would have"


def _try(path: Path, answer: Any) -> None:
    """What the other process does: sends what is wrong, or an empty text."""
    _bound()
    try:
        detector = YuNet.__new__(YuNet)
        detector.path = path
        detector.open(path.read_bytes())
        random = np.random.default_rng(0)
        for side in _SIDES:
            detector.detect(random.integers(0, 256, (side, side, 3), dtype=np.uint8))
        answer.send_bytes(b"")
    except FaceCLIPError as error:
        answer.send_bytes(str(error).rstrip(".").encode())
    except Exception as error:  # whatever OpenCV or numpy make of its answers
        answer.send_bytes(f"{type(error).__name__}: {str(error)[:200]}".encode())


def _bound() -> None:
    """No core dump, and no more memory than a detector may want; where the system can."""
    try:
        import resource
    except ImportError:  # Windows
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))
