"""The bar for every reader: what a small file may make it take."""

import contextlib
import re
import time
from pathlib import Path

SECONDS, MEGABYTES = 5.0, 200.0


@contextlib.contextmanager
def bounded(seconds: float = SECONDS, megabytes: float = MEGABYTES):
    """Fails where the block took longer, or more memory at any moment than there was before."""
    before, began = _reset_peak(), time.process_time()
    yield
    took, grew = time.process_time() - began, _peak() - before
    assert took <= seconds, f"{took:.1f} s"
    assert grew <= megabytes, f"{grew:.0f} MB"


def _reset_peak() -> float:
    with contextlib.suppress(OSError):  # another system: only the time is bounded there
        Path("/proc/self/clear_refs").write_text("5")
    return _peak()


def _peak() -> float:
    """The most memory this process ever held since the last reset, in MB."""
    with contextlib.suppress(OSError):
        found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
        return int(found[1]) / 1024
    return 0.0
