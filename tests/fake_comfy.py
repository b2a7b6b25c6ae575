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
        self.break_next = 0
        self._ready = threading.Event()
        threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True).start()
        assert self._ready.wait(20)

    async def _serve(self):
        from aiohttp import web

        app = web.Application()
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
        ):
            name = f"{method.lower()}_{path.split('/')[1]}"
            app.router.add_route(method, path, self.answers.get(name, getattr(self, name)))
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"
        self._loop, self._runner = asyncio.get_running_loop(), runner
        self._ready.set()
        self._closed = asyncio.Event()
        await self._closed.wait()
        await runner.cleanup()

    def close(self):
        with contextlib.suppress(RuntimeError):  # closed before
            self._loop.call_soon_threadsafe(self._closed.set)

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
        name = uuid.uuid4().hex
        self.prompts.append(body["prompt"])
        self._task = asyncio.ensure_future(self._execute(name, self.sockets[body["client_id"]]))
        return self._json({"prompt_id": name})

    async def _execute(self, name, socket):
        self.running = name
        if self.break_next:
            self.break_next -= 1
            await socket.close()
            return
        end = time.monotonic() + self.seconds
        while time.monotonic() < end and name not in self.interrupted:
            await asyncio.sleep(0.01)
        self.running = None
        data = {"prompt_id": name, "node_id": "sample", "node_type": "X"}
        if name in self.interrupted:
            return await socket.send_str(json.dumps({"type": "execution_interrupted", "data": data}))
        await socket.send_str(json.dumps({"type": "executing", "data": {"prompt_id": name, "node": None}}))

    async def get_history(self, request):
        name = request.match_info["id"]
        images = [] if self.fail == "nothing" else [{"filename": "x.png", "subfolder": "", "type": "temp"}]
        return self._json({name: {"outputs": {"save": {"images": images}}}})

    async def get_view(self, request):
        from aiohttp import web

        return web.Response(body=png(len(self.prompts)))

    async def get_queue(self, request):
        return self._json({"queue_running": [[0, self.running]] if self.running else [], "queue_pending": []})

    async def post_queue(self, request):
        self.deleted += (await request.json())["delete"]
        return self._json({})

    async def post_interrupt(self, request):
        self.interrupted.append((await request.json()).get("prompt_id"))
        return self._json({})

    @staticmethod
    def _json(value):
        from aiohttp import web

        return web.json_response(value)
