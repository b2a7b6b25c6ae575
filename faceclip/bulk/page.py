"""All pictures on one page, `index.html`, which draws from `make.js` only what can be seen."""

import json
import tempfile
import threading
from pathlib import Path
from typing import Any

from ..files import remote
from .results import Entry

PAGE, DATA = "index.html", "make.js"
MOST = 100_000  # pictures; more than that no browser filters at once
_HTML = Path(__file__).with_name("page.html")
_LONGEST = 300  # letters of a prompt


class Sheet:
    """Collects what the page shows on the disk, however much it is."""

    def __init__(self) -> None:
        self._lines = tempfile.TemporaryFile("w+", encoding="utf-8")
        self._lock = threading.Lock()
        self.count = 0

    def add(self, entry: Entry) -> None:
        """One more picture, if it was kept."""
        if entry.picture is None:
            return
        facts = entry.facts
        found = facts.get("identity")
        identity: dict[str, Any] = found if isinstance(found, dict) else {}
        row = {
            "name": entry.name,
            "picture": entry.picture,
            "person": str(identity.get("name") or ", ".join(map(str, identity.get("from", [])))),
            "prompt": str(facts.get("prompt", ""))[:_LONGEST],
            "row": facts.get("row", 0),
            "seed": facts.get("seed", 0),
            "likeness": facts.get("likeness"),
            "seconds": facts.get("seconds", 0),
        }
        with self._lock:
            self._lines.write(json.dumps(row) + "\n")
            self.count += 1

    def write(self, folder: remote.Folder, name: str) -> bool:
        """The page, with a title; False where there are more pictures than a page can show."""
        if self.count > MOST:
            return False
        self._lines.seek(0)
        # A text of JSON is one of JavaScript, but for two signs that end a line there, which json.dumps spells out.
        data = ",\n".join(line.rstrip("\n") for line in self._lines)
        folder.write(DATA, f'window.PICTURES = {{"name": {json.dumps(name)}, "rows": [\n{data}\n]}};\n'.encode())
        folder.write(PAGE, _HTML.read_bytes())
        return True

    def close(self) -> None:
        self._lines.close()
