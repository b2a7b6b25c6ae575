"""What the doctor finds, and the text it is shown as."""

from dataclasses import dataclass

from ..errors import shown

OK, WARN, PROBLEM = "ok", "warn", "problem"
_MARKS = {OK: "[ok]     ", WARN: "[note]   ", PROBLEM: "[PROBLEM]"}
_LONGEST_LINE = 4000  # letters; a path can have so many
_LONGEST = 300  # letters of another package's error: some hold a page of advice


@dataclass(frozen=True)
class Finding:
    """One thing looked at. state: OK, WARN (works, with a limit) or PROBLEM. fix: one line that mends it."""

    topic: str
    state: str
    text: str
    fix: str | None = None


def one_line(error: object) -> str:
    """An error's text as a line that is not too long."""
    text = " ".join(str(error).split())
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."


def size_text(size: float) -> str:
    """A number of bytes as people read it."""
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size} bytes"


def report(findings: list[Finding]) -> str:
    """The findings as text: problems counted first, then a line each, the fix below it."""
    problems = sum(finding.state == PROBLEM for finding in findings)
    notes = sum(finding.state == WARN for finding in findings)
    lines = [f"FaceCLIP doctor: {_count(problems, 'problem')}, {_count(notes, 'note')}."]
    for finding in findings:
        # Names of files and what stands in them may hold anything, also what looks like a line of this report.
        topic, text = shown(finding.topic, _LONGEST), shown(finding.text, _LONGEST_LINE)
        lines.append(f"{_MARKS[finding.state]} {topic}: {text}")
        if finding.fix:
            lines.append(f"          fix: {shown(finding.fix, _LONGEST_LINE)}")
    return "\n".join(lines)


def _count(number: int, noun: str) -> str:
    return f"{number or 'no'} {noun}{'' if number == 1 else 's'}"
