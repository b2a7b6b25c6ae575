"""A made-up ComfyUI on real sockets, for what a real one cannot be brought to do: break off, refuse, be slow."""

import asyncio
import contextlib
import io
import json
import threading
import time
import uuid

import numpy as np
from PIL import Image

from faceclip import __version__
from faceclip.bulk.cell import LIKENESS


def png(value=0) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((16, 16, 3), value, dtype=np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


class FakeComfy:
    """The routes that the worker uses, on a port of its own; each prompt gives one picture after `seconds`.

    answers: route ("get_view") -> what handles it instead of the usual: a coroutine that takes the request.
    """

    def __init__(self, seconds=0.0, fail=None, answers=None):
        self.seconds, self.fail, self.answers = seconds, fail, answers or {}
        self.prompts, self.uploads, self.interrupted, self.deleted, self.sockets = [], [], [], [], {}
        self.running: str | None = None
        self.break_next = self.drop_next = 0
        self.queued, self.history, self.away_until = {}, {}, 0.0
        self.version, self.hashes, self.likeness = __version__, {}, lambda prompt: []
        self._ready = threading.Event()
        threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True).start()
        assert self._ready.wait(20)

    async def _serve(self):
        from aiohttp import web

        @web.middleware
        async def away(request, handler):
            gone = time.monotonic() < self.away_until
            return web.Response(status=503) if gone else await handler(request)

        app = web.Application(middlewares=[away])
        for method, path in (
            ("GET", "/system_stats"),
            ("GET", "/object_info/{node}"),
            ("POST", "/upload/image"),
            ("POST", "/prompt"),
            ("GET", "/ws"),
            ("GET", "/history/{id}"),
            ("GET", "/view"),
            ("GET", "/queue"),
            ("POST", "/queue"),
            ("POST", "/interrupt"),
            ("POST", "/faceclip/about"),
        ):
            name = f"{method.lower()}_{path.split('/')[1]}"
            app.router.add_route(method, path, self.answers.get(name, getattr(self, name)))
        self._closed, self._turn = asyncio.Event(), asyncio.Lock()
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"
        self._loop, self._runner = asyncio.get_running_loop(), runner
        self._ready.set()
        await self._closed.wait()
        await runner.cleanup()

    def close(self):
        with contextlib.suppress(RuntimeError):  # closed before
            self._loop.call_soon_threadsafe(self._closed.set)

    async def go_away(self, seconds):
        """As when the machine is started anew: it answers nothing for a while, and knows nothing afterwards."""
        self.away_until = time.monotonic() + seconds
        self.queued.clear()
        self.history.clear()
        for socket in list(self.sockets.values()):
            await socket.close()

    async def get_system_stats(self, request):
        return self._json({})

    async def get_object_info(self, request):
        return self._json({request.match_info["node"]: {"input": {}}})

    async def post_upload(self, request):
        form = await request.post()
        self.uploads.append((form["subfolder"], form["image"].filename, form["image"].file.read()))
        return self._json({"name": form["image"].filename, "subfolder": form["subfolder"], "type": "input"})

    async def get_ws(self, request):
        from aiohttp import web

        socket = web.WebSocketResponse()
        await socket.prepare(request)
        self.sockets[request.query["clientId"]] = socket
        async for _ in socket:
            pass
        return socket

    async def post_prompt(self, request):
        from aiohttp import web

        body = await request.json()
        if self.fail == "reject":
            error = {"error": {"message": "invalid prompt"}, "node_errors": {}}
            return web.json_response(error, status=400)
        name = body.get("prompt_id") or uuid.uuid4().hex
        self.prompts.append(body["prompt"])
        self.queued[name] = body["prompt"]
        self._task = asyncio.ensure_future(self._execute(name, self.sockets[body["client_id"]]))
        return self._json({"prompt_id": name})

    async def _execute(self, name, socket):
        async with self._turn:
            if name in self.queued:
                await self._make(name, socket)

    async def _make(self, name, socket):
        self.running = name
        if self.break_next:  # as when the server is started anew
            self.break_next -= 1
            self.running = None
            del self.queued[name]
            await socket.close()
            return
        if self.drop_next:  # as when the network breaks: the prompt goes on
            self.drop_next -= 1
            await socket.close()
        end = time.monotonic() + self.seconds
        while time.monotonic() < end and name not in self.interrupted:
            await asyncio.sleep(0.01)
        self.running = None
        prompt = self.queued.pop(name, None)
        data = {"prompt_id": name, "node_id": "sample", "node_type": "X"}
        if name in self.interrupted:
            return await socket.send_str(json.dumps({"type": "execution_interrupted", "data": data}))
        images = [] if self.fail == "nothing" else [{"filename": "x.png", "subfolder": "", "type": "temp"}]
        outputs = {"save": {"images": images}}
        if LIKENESS in (prompt or {}):
            outputs[LIKENESS] = {"faceclip_scores": [{"scores": self.likeness(prompt)}]}
        self.history[name] = {
            "prompt": [0, name, prompt, {}, []],
            "outputs": outputs,
            "status": {"status_str": "success", "completed": True},
        }
        if not socket.closed:
            await socket.send_str(json.dumps({"type": "executing", "data": {"prompt_id": name, "node": None}}))

    async def get_history(self, request):
        name = request.match_info["id"]
        return self._json({name: self.history[name]} if name in self.history else {})

    async def get_view(self, request):
        from aiohttp import web

        return web.Response(body=png(len(self.prompts)))

    async def get_queue(self, request):
        waiting = [[0, name] for name in self.queued if name != self.running]
        return self._json({"queue_running": [[0, self.running]] if self.running else [], "queue_pending": waiting})

    async def post_queue(self, request):
        names = (await request.json())["delete"]
        self.deleted += names
        for name in names:
            if name != self.running:
                self.queued.pop(name, None)
        return self._json({})

    async def post_interrupt(self, request):
        self.interrupted.append((await request.json()).get("prompt_id"))
        return self._json({})

    async def post_faceclip(self, request):
        asked = (await request.json())["files"]
        return self._json({"version": self.version, "files": {file: self.hashes.get(file, "a" * 64) for file in asked}})

    @staticmethod
    def _json(value):
        from aiohttp import web

        return web.json_response(value)
