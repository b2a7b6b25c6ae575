"""The photos of some folders and their captions, in an order that is the same on every machine."""

import csv
import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ...errors import InputError, shown

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".avif", ".heic", ".heif")
TABLES = ("captions.csv", "captions.jsonl")
_LONGEST_CAPTION = 10_000  # characters; more is some other file


class Unfit(InputError):
    """A photo or face that cannot be used. kind: what it is counted as."""

    def __init__(self, kind: str, reason: str):
        super().__init__(reason)
        self.kind = kind


@dataclass(frozen=True)
class Photo:
    """source: path below its folder, with "/", behind the folder's name where there are several. caption, person: from
    a table, else None: then a .txt file beside the photo is looked for when its turn comes."""

    path: Path
    folder: Path
    source: str
    caption: str | None = None
    person: str | None = None


@dataclass(frozen=True)
class Photos:
    """photos: sorted by source. fingerprint: changes when a photo comes, goes or changes its size, and with any change
    of a caption or person. unused: lines of tables that name no photo. others: files that are no photos, by suffix."""

    photos: tuple[Photo, ...]
    fingerprint: str
    unused: int
    others: Mapping[str, int] = field(default_factory=dict)


def find(folders: Sequence[Path]) -> Photos:
    """All photos below the folders. Links to folders are not followed, hidden files and folders are left out.

    Raises InputError for a folder that is none, two of one name, no photo at all, or a table that cannot be read.
    """
    _check(folders)
    found, unused = [], 0
    others: Counter[str] = Counter()
    fingerprint = hashlib.sha256()
    for folder in sorted(folders, key=lambda f: f.resolve().name):
        prefix = f"{folder.resolve().name}/" if len(folders) > 1 else ""
        known = _table(folder)
        for name, (text, person) in sorted(known.items()):
            fingerprint.update(f"{prefix}{name}\0{text}\0{person or ''}\n".encode())
        for name, path in _files(folder, others):
            text, person = known.pop(name, (None, None))
            found.append(Photo(path, folder, prefix + name, text, f"{prefix}{person}" if person else None))
        unused += len(known)
    found.sort(key=lambda photo: photo.source)
    if not found:
        raise InputError(
            f"No photo below {', '.join(map(str, folders))}; files named {', '.join(SUFFIXES)} are wanted."
        )
    for photo in found:
        fingerprint.update(f"{photo.source}\0{_size(photo.path)}\0".encode() + _hash_of(photo))
    return Photos(tuple(found), fingerprint.hexdigest(), unused, dict(others))


def caption(photo: Photo) -> str:
    """The caption: a .txt file of the same stem before a line in a table; spaces and line ends become one space.

    Raises InputError, with the reason in plain words, where there is none that can be used.
    """
    text, beside = photo.caption, photo.path.with_suffix(".txt")
    if beside.is_file():
        check_inside(beside, photo.folder)
        try:
            text = beside.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError:
            raise Unfit("unusable caption", f"{beside.name} is not UTF-8 text") from None
        except OSError as error:
            raise Unfit("unusable caption", f"{beside.name} cannot be read: {error.strerror}") from None
    if text is None:
        raise Unfit("no caption", f"no caption: there is no {beside.name} and no line in {' or '.join(TABLES)}")
    text = " ".join(text.replace("\0", " ").split())
    if not text:
        raise Unfit("unusable caption", "the caption is empty")
    if len(text) > _LONGEST_CAPTION:
        raise Unfit(
            "unusable caption", f"the caption has {len(text)} characters, at most {_LONGEST_CAPTION} are wanted"
        )
    return text


def check_inside(path: Path, folder: Path) -> None:
    """InputError if `path` is a link that leads out of `folder`."""
    if not path.resolve().is_relative_to(folder.resolve()):
        raise Unfit("link", f"{path.name} is a link that leads out of the folder of photos")


def _check(folders: Sequence[Path]) -> None:
    names = [folder.resolve().name for folder in folders]
    for folder in folders:
        if not folder.is_dir():
            raise InputError(f"{folder} is not a folder. Name the folders that hold the photos.")
    if len(set(names)) < len(names):
        raise InputError(
            f"Two folders of photos have the same name ({', '.join(names)}), so sources would be mixed up."
        )


def _files(folder: Path, others: Counter[str]) -> Iterator[tuple[str, Path]]:
    """Photos, by name and path; other files are counted by suffix, but for captions and hidden ones."""
    for place, names, files in os.walk(folder):
        names[:] = sorted(name for name in names if not name.startswith("."))
        for file in sorted(files):
            if file.startswith("."):
                continue
            if file.lower().endswith(SUFFIXES):
                path = Path(place, file)
                yield path.relative_to(folder).as_posix(), path
            elif not file.lower().endswith(".txt") and file not in TABLES:
                others[Path(file).suffix.lower() or "no suffix"] += 1


def _table(folder: Path) -> dict[str, tuple[str, str | None]]:
    """Caption and person by path below the folder, out of captions.csv or captions.jsonl."""
    paths = [folder / name for name in TABLES if (folder / name).is_file()]
    if len(paths) > 1:
        raise InputError(f"{folder} has both {' and '.join(TABLES)}; keep one of them.")
    if not paths:
        return {}
    check_inside(paths[0], folder)
    read = _csv_rows if paths[0].suffix == ".csv" else _json_rows
    try:
        return {name.replace("\\", "/").removeprefix("./"): (text, who) for name, text, who in read(paths[0])}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{shown(paths[0])} cannot be read ({shown(error)}). UTF-8 text is wanted.") from error


def _csv_rows(path: Path) -> Iterator[tuple[str, str, str | None]]:
    with open(path, encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file)
        if not {"file", "caption"} <= set(rows.fieldnames or ()):
            seen = ", ".join(rows.fieldnames or ()) or "nothing"
            raise InputError(
                f'{shown(path)} begins with {shown(seen)}; a first line with "file" and "caption" is wanted.'
            )
        for row in rows:
            if row["file"]:
                yield row["file"], row["caption"] or "", row.get("person") or None


def _json_rows(path: Path) -> Iterator[tuple[str, str, str | None]]:
    with open(path, encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                name, text, person = row["file"], row["caption"], row.get("person") or None
                if not (isinstance(name, str) and isinstance(text, str) and isinstance(person, str | None)):
                    raise TypeError("not text")
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise InputError(
                    f'{path}, line {number}: {{"file": "...", "caption": "..."}} is wanted ({shown(repr(error))}).'
                ) from error
            yield name, text, person


def _hash_of(photo: Photo) -> bytes:
    """Of the caption beside a photo; nothing where there is none, or none that may be read."""
    beside = photo.path.with_suffix(".txt")
    try:
        check_inside(beside, photo.folder)
        return hashlib.sha256(beside.read_bytes()).digest()
    except (OSError, InputError):
        return b""


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1
