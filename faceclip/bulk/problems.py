"""What is wrong with many rows, and why many pictures failed: the first of each, and how many there are."""

import collections
import json
import re

from ..errors import InputError

SHOWN = 20
_EXAMPLES = 3


class Problems:
    """What is wrong with rows."""

    def __init__(self) -> None:
        self.first: list[str] = []
        self.count = 0

    def __call__(self, text: str) -> None:
        self.count += 1
        if self.count <= SHOWN:
            self.first.append(text)

    def check(self) -> None:
        """Raises InputError where something was wrong."""
        if self.count:
            more = f", the first {SHOWN}" if self.count > SHOWN else ""
            heads = f"{self.count} rows cannot be made{more}:" if self.count > 1 else "A row cannot be made:"
            raise InputError("\n  ".join([heads, *self.first]))


class Failures:
    """Why pictures failed, by reason: the same words with other numbers and names are one reason."""

    def __init__(self) -> None:
        self.total = 0
        self._count: collections.Counter[str] = collections.Counter()
        self._examples: dict[str, list[str]] = {}
        self._lines: list[str] = []

    def add(self, place: str, name: str, reason: str) -> None:
        """place: where the picture is asked for. name: where it would have gone."""
        self.total += 1
        self._lines.append(json.dumps({"place": place, "name": name, "reason": reason}, ensure_ascii=False))
        key = re.sub(r"https?://\S+: |'[^']*'|\"[^\"]*\"|\d+(?:\.\d+)?", lambda one: _kind(one[0]), reason)
        self._count[key] += 1
        examples = self._examples.setdefault(key, [])
        if len(examples) < _EXAMPLES:
            examples.append(f"{place}: {reason}" if not examples else place)

    def lines(self) -> bytes:
        """Each failure as a line of JSON."""
        return "".join(line + "\n" for line in self._lines).encode("utf-8", "replace")

    def summary(self) -> str:
        """A few lines for each reason, the most frequent first."""
        lines = []
        for key, count in self._count.most_common():
            first, *others = self._examples[key]
            also = f" (also {', '.join(others)}{' and more' if count > _EXAMPLES else ''})" if others else ""
            lines.append(f"{count} x {first}{also}")
        return "\n".join(lines)


def _kind(text: str) -> str:
    return "" if text.startswith("http") else "#" if text[0].isdigit() else "''"
