"""The end of a run: what was skipped and why, so that it is not taken for a pass."""

from collections import Counter


def pytest_terminal_summary(terminalreporter) -> None:
    """pytest's hook, which conftest.py takes from here: one line a reason, the most frequent first."""
    skipped = terminalreporter.getreports("skipped")
    reasons = Counter(_reason(report) for report in skipped)
    if reasons:
        terminalreporter.section(f"{len(skipped)} not run", yellow=True)
        for reason, count in reasons.most_common():
            terminalreporter.line(f"{count:5}  {reason}")


def _reason(report) -> str:
    text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return " ".join(text.removeprefix("Skipped: ").split())
