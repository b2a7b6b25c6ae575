"""Processes that write a file and are stopped in the middle of it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
_KILLED = """
import os, sys
from faceclip.files import whole
with whole.{write}(sys.argv[1]) as place:
    (open(place / "inside", "wb") if "{write}" == "writing_folder" else place).write(b"half")
    os._exit(9)  # as a killed process ends: nothing is put in order
"""


def left_over(path: Path, write: str = "writing") -> Path:
    """What a process that died while writing `path` leaves beside it, as it is two days later."""
    before = set(path.parent.iterdir())
    done = subprocess.run([sys.executable, "-c", _KILLED.format(write=write), path], cwd=REPO)
    assert done.returncode == 9
    (left,) = set(path.parent.iterdir()) - before
    os.utime(left, (time.time() - 2 * 86400,) * 2)
    return left


def heed_ctrl_c() -> None:
    """For Popen's preexec_fn: a shell in the background hands SIGINT on as ignored, and a child would ignore it too."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
