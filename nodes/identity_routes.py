"""What the gallery of saved identities asks of the server. Nothing here leaves the host's folder for them."""

import asyncio
import logging
import os
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from aiohttp import BodyPartReader, web

from ..faceclip.errors import FaceCLIPError, InputError
from ..faceclip.identity import shelf
from ..faceclip.identity.header import SUFFIX
from ..faceclip.install import local
from ..faceclip.install.places import IDENTITIES
from . import host

log = logging.getLogger(__name__)

LARGEST_IDENTITY = 256 * 2**20  # bytes; a reference of the published encoder has 1 MB
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def add_routes(routes: web.RouteTableDef) -> None:
    """Add them to the host's."""
    routes.get("/faceclip/identities")(told(_list))
    routes.get("/faceclip/identities/picture")(told(_picture))
    routes.post("/faceclip/identities/rename")(told(_rename))
    routes.post("/faceclip/identities/delete")(told(_delete))
    routes.post("/faceclip/identities/add")(told(_add))


def told(handler: Handler) -> Handler:
    """Only our own page is answered. Errors meant for users become an answer that says them."""

    async def answer(request: web.Request) -> web.StreamResponse:
        if not local.is_same_origin({name.lower(): value for name, value in request.headers.items()}):
            return web.json_response({"error": "Another site's page asked."}, status=403)
        try:
            return await handler(request)
        except FaceCLIPError as error:
            return web.json_response({"error": str(error)}, status=400)
        except OSError as error:
            log.warning("%s: %s", request.path, error)
            return web.json_response({"error": f"The file cannot be changed: {error.strerror}."}, status=400)

    return answer


def _path(file: object) -> Path:
    """Full path of a saved identity that the host lists; nothing else can be named."""
    if not isinstance(file, str):
        raise InputError("No file was named.")
    return Path(host.find_file(IDENTITIES, file))


async def _list(_: web.Request) -> web.Response:
    def look() -> list[dict[str, Any]]:
        return [
            {"file": file, **shelf.describe(_path(file))}
            for file in sorted(host.list_files(IDENTITIES), key=str.casefold)
        ]

    return web.json_response(await asyncio.to_thread(look))


async def _picture(request: web.Request) -> web.Response:
    path, number = _path(request.query.get("file")), request.query.get("reference", "0")
    data = await asyncio.to_thread(shelf.picture, path, int(number) if number.isdecimal() else 0)
    return web.Response(body=data, content_type="image/png", headers={"Cache-Control": "no-cache"})


async def _rename(request: web.Request) -> web.Response:
    asked = await request.json()
    path = _path(asked.get("file"))
    new = await asyncio.to_thread(shelf.rename, path, asked.get("name"))
    return web.json_response({"file": Path(asked["file"]).with_name(new.name).as_posix()})


async def _delete(request: web.Request) -> web.Response:
    os.remove(_path((await request.json()).get("file")))
    return web.json_response({})


async def _add(request: web.Request) -> web.Response:
    """A multipart request with one file: an identity that was saved elsewhere."""
    part = await (await request.multipart()).next()
    name = Path(part.filename or "").name if isinstance(part, BodyPartReader) else ""
    if not isinstance(part, BodyPartReader) or not name.endswith(SUFFIX):
        raise InputError(f"{name!r} is no saved identity: its name does not end in {SUFFIX}.")
    with tempfile.NamedTemporaryFile(suffix=SUFFIX, delete=False) as kept:
        try:
            while chunk := await part.read_chunk(2**20):
                kept.write(chunk)
                if kept.tell() > LARGEST_IDENTITY:
                    raise InputError(f"{name} has more than {LARGEST_IDENTITY >> 20} MB and is no saved identity.")
            kept.close()
            folder = host.folders(IDENTITIES)[0]
            new = await asyncio.to_thread(shelf.bring_in, kept.name, folder, name.removesuffix(SUFFIX))
        finally:
            kept.close()
            os.remove(kept.name)
    return web.json_response({"file": new.name})
