"""Where each picture goes: a template filled in, and made safe for every system's folders."""

import hashlib
import re
import string
import unicodedata

from ..errors import InputError
from ..identity.header import RESERVED

FIELDS = ("name", "row", "seed", "identity", "prompt", "case", "key")
_LONGEST = 120  # bytes of one part; file systems take 255 with what is written beside it
_SHORT = 40  # letters of a prompt in a name
_KEPT = "-_+(). ',&@="


def check_template(template: str) -> None:
    """Raises InputError where a template names something that a picture has not."""
    try:
        fields = [field for _, field, _, _ in string.Formatter().parse(template) if field is not None]
        unknown = [field for field in fields if field not in FIELDS]
        if not unknown:
            fill(template, dict.fromkeys(FIELDS, "1") | {"row": 1, "seed": 1})
    except (ValueError, LookupError, TypeError) as error:
        raise InputError(f"--name {template!r} cannot be filled in ({error}).") from error
    if unknown or not ({"key", "seed"} & set(fields)):
        known = ", ".join("{" + field + "}" for field in FIELDS)
        why = (
            f"names {', '.join(unknown)}" if unknown else "has neither {seed} nor {key}, so pictures would share names"
        )
        raise InputError(f"--name {template!r} {why}; known are {known}, and / for a folder.")


def fill(template: str, values: dict[str, str | int]) -> str:
    """The name of a picture below the output folder, without an ending. Only the template and `name` make folders."""
    flat = {key: value if key == "name" or isinstance(value, int) else _flat(value) for key, value in values.items()}
    parts = [safe(part) for part in template.format(**flat).replace("\\", "/").split("/") if part.strip(". ")]
    return "/".join(parts or ["_"])


def safe(part: str) -> str:
    """One part of a path that any system takes and that stays in its folder: what else stands in it becomes `_`."""
    text = unicodedata.normalize("NFKC", part)
    text = "".join(sign if sign in _KEPT or unicodedata.category(sign)[0] in "LMN" else "_" for sign in text)
    text = text.encode()[:_LONGEST].decode("utf-8", "ignore")
    text = re.sub(r"\.{2,}", ".", text).strip(". ") or "_"
    return text + "_" if text.split(".")[0].casefold().strip() in RESERVED else text


def _flat(text: str) -> str:
    text = " ".join(text.split()).replace("/", "_").replace("\\", "_")
    return text if len(text) <= _SHORT else text[:_SHORT].rstrip()


class Taken:
    """Which names are given to which pictures, in a few bytes each."""

    def __init__(self) -> None:
        self._keys: dict[int, int] = {}

    def take(self, name: str, key: str) -> bool:
        """False where the same picture has this name already. Raises InputError where another has it."""
        number = int.from_bytes(hashlib.blake2b(name.casefold().encode(), digest_size=8).digest(), "big")
        mine = int(key[:15], 16)
        if number not in self._keys:
            self._keys[number] = mine
            return True
        if self._keys[number] != mine:
            raise InputError(f"its picture would be named {name!r}, as another one. Change its name, or --name")
        return False
