"""How far it is, on the terminal: one line that changes, or a line now and then where the output goes to a file."""

import sys
import time
from typing import TextIO

_EVERY = 15.0  # seconds between lines in a file


class Progress:
    """Call it with (done, total); what is said at the end is left to the caller. doing: such as "pictures made"."""

    def __init__(self, doing: str, out: TextIO | None = None):
        self._doing, self._out = doing, out or sys.stderr
        self._started = self._said = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        last = done >= total
        line = f"{done} of {total} {self._doing}"
        if not last and done:
            line += f", about {_duration((now - self._started) / done * (total - done))} left"
        if self._out.isatty():
            self._out.write(f"\r\033[K{line}" + ("\n" if last else ""))
        elif last or now - self._said > _EVERY:
            self._said = now
            self._out.write(line + "\n")
        self._out.flush()


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
