"""A server on loopback that speaks as much of the hub's protocol as a download needs, and can misbehave."""

import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Hub:
    """Serves `files`: path -> content, as large files (the ETag is a SHA-256).

    etag: what it says the hash is. break_at: close the connection after so many bytes of the file, once.
    fail_after_break: answer 500 from then on. pause_at: after so many bytes send ten bytes a second.
    slow: seconds to wait before each MiB. silent_at: after so many bytes send nothing more, and hold the line.
    endless: send the file again and again, and do not say how long that is.
    asked: (method, path, Range) of each request.
    """

    files: dict[str, bytes]
    etag: str
    break_at: int | None = None
    fail_after_break: bool = False
    pause_at: int | None = None
    slow: float | None = None
    silent_at: int | None = None
    endless: bool = False
    asked: list[tuple[str, str, str | None]] = field(default_factory=list)

    def __enter__(self) -> "Hub":
        hub = self

        class Handler(_Handler):
            state = hub

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_) -> None:
        self.pause_at = self.silent_at = None
        self.endless = False
        self.server.shutdown()
        self.server.server_close()
        self.thread.join(5)

    @property
    def ranges(self) -> list[str | None]:
        """The Range of each GET of a file, in order. (The client also asks for a list of its own under /api.)"""
        return [asked for method, path, asked in self.asked if method == "GET" and "/resolve/" in path]


class _Handler(BaseHTTPRequestHandler):
    state: Hub
    timeout = 20

    def do_HEAD(self):
        self.answer()

    def do_GET(self):
        self.answer()

    def answer(self):
        hub, asked = self.state, self.headers.get("Range")
        hub.asked.append((self.command, self.path, asked))
        content = hub.files.get(self.path)
        if content is None:
            return self.refuse(404, "EntryNotFound")
        if self.command == "GET" and hub.fail_after_break and hub.break_at is None:
            return self.refuse(500, "ServerError")
        start = int(asked.removeprefix("bytes=").split("-")[0]) if asked else 0
        self.send_response(206 if asked else 200)
        self.send_header("ETag", f'"{hub.etag}"')
        self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("Accept-Ranges", "bytes")
        if not (hub.endless and self.command == "GET"):
            self.send_header("Content-Length", str(len(content) - start))
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if self.command == "GET":
            self.send(content, start)

    def refuse(self, status, code):
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def send(self, content, start):
        hub = self.state
        try:
            while hub.endless:
                self.wfile.write(content)
            if hub.break_at is not None:
                self.wfile.write(content[start : hub.break_at])
                hub.break_at = None
            elif hub.pause_at is not None:
                time.sleep(1)  # a bar draws nothing that comes within a tenth of a second of its start
                self.wfile.write(content[start : hub.pause_at])
                for i in range(max(start, hub.pause_at), len(content)):
                    if hub.pause_at is None:
                        return
                    self.wfile.write(content[i : i + 1])
                    time.sleep(0.1)
            elif hub.slow is not None:
                for block in range(start, len(content), 2**20):
                    time.sleep(hub.slow)
                    self.wfile.write(content[block : block + 2**20])
            elif hub.silent_at is not None:
                self.wfile.write(content[start : hub.silent_at])
                self.wfile.flush()
                while hub.silent_at is not None:
                    time.sleep(0.05)
            else:
                self.wfile.write(content[start:])
        except OSError:
            pass  # the client went away

    def log_message(self, *_):
        pass
