"""What a program that makes pictures on many servers asks of each: the pack's version, and which model files it has."""

import asyncio
import os
from typing import Any

from aiohttp import web

from ..faceclip import __version__
from ..faceclip.errors import FaceCLIPError, InputError
from ..faceclip.install.published import sha256
from . import host
from .identity_routes import told

MOST_FILES = 200
MODELS = (".safetensors", ".sft", ".pt", ".pth", ".ckpt", ".bin", ".onnx", ".gguf")
_KEPT = 1000  # hashes; a file that changed has another place among them
# By path, size and time of change: the SHA-256, or how much of the file is read, or what went wrong.
_hashes: dict[tuple[str, int, int], str | float | None] = {}
_reading: set[asyncio.Task[None]] = set()  # a task that nobody holds may be collected


def add_routes(routes: web.RouteTableDef) -> None:
    """Add them to the host's."""
    routes.post("/faceclip/about")(told(_about))


async def _about(request: web.Request) -> web.Response:
    asked = await request.json()
    files: Any = asked.get("files", []) if isinstance(asked, dict) else None
    if not isinstance(files, list) or len(files) > MOST_FILES or not all(isinstance(one, str) for one in files):
        raise InputError(f'Wanted is {{"files": ["folder/name", ...]}}, at most {MOST_FILES} of them.')
    return web.json_response({"version": __version__, "files": {file: _hash_of(file) for file in files}})


def _hash_of(file: str) -> str | float | None:
    """The SHA-256 of a file that the host lists, None where it lists none; a number from 0 to 1 while it is read."""
    folder, _, name = file.partition("/")
    try:
        path = host.find_file(folder, name)
        found = os.stat(path)
    except (FaceCLIPError, OSError, KeyError):  # KeyError: no such kind of files
        return None
    if not str(path).lower().endswith(MODELS):
        return None
    key = (str(path), found.st_size, found.st_mtime_ns)
    if key not in _hashes:
        if len(_hashes) >= _KEPT:
            _hashes.clear()
        _hashes[key] = 0.0
        task = asyncio.ensure_future(asyncio.to_thread(_read, key))
        _reading.add(task)
        task.add_done_callback(_reading.discard)
    return _hashes[key]


def _read(key: tuple[str, int, int]) -> None:
    def tell(done: int, total: int) -> None:
        _hashes[key] = done / max(total, 1)

    try:
        _hashes[key] = sha256(key[0], tell)
    except OSError:
        _hashes[key] = None
