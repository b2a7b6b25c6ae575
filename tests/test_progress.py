"""What a command shows of its progress, on a terminal and in a file."""

import contextlib
import io
import os
import struct

import pytest

from faceclip import progress


def test_a_file_gets_a_line_now_and_then_and_nothing_twice(monkeypatch):
    monkeypatch.setattr(progress, "_EVERY", 0.0)
    out = io.StringIO()
    with progress.shown("Hashing unet.pt", "B", out) as tell:
        for done in range(0, 5_000_001, 1_000_000):
            tell(done, 5_000_000)
            tell(done, 5_000_000)
    lines = out.getvalue().splitlines()
    assert len(lines) == 5 and "\r" not in out.getvalue()
    assert lines[0].startswith("Hashing unet.pt:  20% 1.00M/5.00M [")
    assert lines[-1].startswith("Hashing unet.pt: 100% 5.00M")


def test_a_long_work_does_not_fill_the_file():
    out = io.StringIO()
    with progress.shown("Making", "pictures", out) as tell:
        for done in range(1000):
            tell(done + 1, 1000)
    assert [line.split("[")[0] for line in out.getvalue().splitlines()] == [
        "Making:   0% 1/1000 ",
        "Making: 100% 1000/1000 ",
    ]


def test_nothing_is_shown_of_no_work_and_what_was_there_before_costs_no_time():
    out = io.StringIO()
    with progress.shown("Making", "pictures", out) as tell:
        tell(0, 1000)
    assert out.getvalue() == ""
    with progress.shown("Making", "pictures", out) as tell:
        tell(500, 1000)
    assert "50% 500/1000 [00:00<?" in out.getvalue()


def test_a_terminal_gets_a_bar_that_changes():
    fcntl, termios = (pytest.importorskip(name, reason="no pseudo terminals here") for name in ("fcntl", "termios"))
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    with open(theirs, "w", encoding="utf-8", closefd=True) as terminal:
        with progress.shown("Making", "pictures", terminal) as tell:
            for done in range(3):
                tell(done, 2)
    shown = b""
    with contextlib.suppress(OSError), open(ours, "rb", buffering=0) as screen:  # an error is a closed terminal's end
        while part := screen.read(10_000):
            shown += part
    shown = shown.decode()
    assert shown.count("\r") > 1 and "100%|" in shown
