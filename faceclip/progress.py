"""How far a command is: a bar on a terminal, and a line now and then where the output goes to a file."""

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from tqdm import tqdm

_EVERY = 15.0  # seconds between two lines in a file


def bar(
    doing: str, unit: str, total: int, initial: int = 0, out: TextIO | None = None, disable: bool = False
) -> "tqdm":
    """tqdm's bar on standard error, or lines of the same words. doing: such as "Hashing unet.pt". unit: B for bytes."""
    from tqdm import tqdm

    out = out or _standard_error()
    terminal = out.isatty()
    return tqdm(
        desc=doing or None,
        unit=unit if unit == "B" else f" {unit}",
        unit_scale=unit == "B",
        total=total,
        initial=initial,
        file=out if terminal else _Lines(out),
        mininterval=0.1 if terminal else _EVERY,
        miniters=1,
        dynamic_ncols=terminal,
        ncols=None if terminal else 0,  # without the drawn bar
        disable=disable,
    )


@contextlib.contextmanager
def shown(doing: str, unit: str, out: TextIO | None = None) -> Iterator[Callable[[int, int], None]]:
    """A function to call with (done, total), from any thread, one at a time; what was done before counts as no work."""
    drawn: tqdm | None = None
    out = out or _standard_error()

    def tell(done: int, total: int) -> None:
        nonlocal drawn
        if drawn is None:
            if not done and not out.isatty():
                return  # nothing to write down yet
            drawn = bar(doing, unit, total, done, out)
        drawn.update(done - drawn.n)

    try:
        yield tell
    finally:
        if drawn is not None:
            drawn.close()


def _standard_error() -> TextIO:
    assert sys.stderr is not None  # missing only where Windows starts Python without a console
    return sys.stderr


class _Lines:
    """Ends with a new line each state that tqdm would write over the last one."""

    def __init__(self, out: TextIO):
        self._out, self._last = out, ""

    def write(self, text: str) -> None:
        line = text.strip()
        done = line.partition("[")[0]  # what follows is the time it took
        if done and done != self._last:
            self._out.write(line + "\n")
            self._last = done

    def flush(self) -> None:
        self._out.flush()
