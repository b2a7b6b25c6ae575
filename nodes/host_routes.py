"""What the front end asks of the server, apart from running nodes: which model files are there, and to bring them."""

import asyncio
import sys
from pathlib import Path
from typing import Any

from aiohttp import web

from ..faceclip.errors import FaceCLIPError
from ..faceclip.install import local, published
from ..faceclip.install.jobs import Downloads
from ..faceclip.small import models as small
from . import about_routes, host, identity_routes

# What a picture cannot be made without, and what the panel brings: nothing but this, whatever else is published.
NEEDED = ("encoder", "unet", "vae", "yunet")
OFFERED = {key: published.FILES[key] for key in (*NEEDED, "sface")}


downloads = Downloads()


def files() -> list[dict[str, Any]]:
    """The published files: what each is, under which name the host has it (None if it has not), and its download."""
    return [
        {
            "key": key,
            "name": file.name,
            "folder": file.folder,
            "about": file.about,
            "licence": file.licence,
            "page": file.url,
            "size": file.size,
            "needed": key in NEEDED,
            "command": published.download_command(file),
            "there": published.same_model(file.name, host.list_files(file.folder)),
            "download": downloads.state(key),
        }
        for key, file in OFFERED.items()
    ]


def small_is_there() -> bool:
    return all(place.name in host.list_files(place.parent.as_posix()) for place in small.PLACES.values())


async def get_files(request: web.Request) -> web.Response:
    return web.json_response({"files": files(), "small": small_is_there(), "local": _is_local(request)})


async def post_small(request: web.Request) -> web.Response:
    """Copies of the pack's own small files, so anybody who may use the server may ask for them."""
    if not local.is_same_origin(_headers(request)):
        return web.json_response({"error": "Another site's page asked."}, status=403)
    try:
        await asyncio.to_thread(small.write_small_model, Path(host.models_folder()))
    except (FaceCLIPError, OSError) as error:
        return web.json_response({"error": str(error)}, status=500)
    return web.json_response({"files": [place.name for place in small.PLACES.values()]})


async def post_download(request: web.Request) -> web.Response:
    """Begins a download ({"key", "accepted": true}) or stops it ({"key", "stop": true}). Only for a person here."""
    given = await request.json() if request.content_type == "application/json" else None
    asked = given if isinstance(given, dict) else {}
    key = asked.get("key")
    if not isinstance(key, str) or key not in OFFERED:
        return web.json_response({"error": f"Wanted is one of {', '.join(OFFERED)}."}, status=400)
    command = published.download_command(OFFERED[key])
    if not _is_local(request):
        text = f"Only a person at the server's own machine may have it download. There, in the pack's folder: {command}"
        return web.json_response({"error": text}, status=403)
    if asked.get("stop") is True:
        downloads.stop(key)
    elif asked.get("accepted") is True:
        downloads.start(key, host.folders(OFFERED[key].folder))
    else:
        return web.json_response({"error": "The licence was not accepted, so nothing was downloaded."}, status=400)
    return web.json_response({"download": downloads.state(key)})


def add_routes() -> None:
    """To the running server; without one, as in a test of a node, there is nobody to ask."""
    # Not imported: a running host has done so, and elsewhere that would pull all of its web server in.
    server = getattr(getattr(sys.modules.get("server"), "PromptServer", None), "instance", None)
    if server is not None:
        server.routes.get("/faceclip/files")(get_files)
        server.routes.post("/faceclip/small_model")(post_small)
        server.routes.post("/faceclip/download")(post_download)
        identity_routes.add_routes(server.routes)
        about_routes.add_routes(server.routes)


def _headers(request: web.Request) -> dict[str, str]:
    return {name.lower(): value for name, value in request.headers.items()}


def _is_local(request: web.Request) -> bool:
    return local.is_local(request.remote, _headers(request))
