"""Pages for a browser, and what their requests are answered with, from a server in a thread."""

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import anyio
import anyio.to_thread

DONE_WITHIN = 30.0
"""Seconds that a page may take on a busy machine."""

Step = Mapping[str, object]
"""A request that a page is to make; `pages/steps.html` says what it may hold."""


@dataclass(frozen=True)
class Answer:
    """What a request is answered with."""

    body: bytes = b"{}"
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=lambda: {"Content-Type": "application/json"})


class PageServer:
    """Serves a folder of pages on loopback, and answers their requests.

    `answers` is looked up by path, and for a form with a field `method` by `"path method"` first.
    """

    def __init__(self, folder: Path) -> None:
        self.answers: dict[str, Answer] = {}
        self.posted: list[str] = []
        """The keys of the requests that came, in order."""
        self.done = threading.Event()
        """Set when a page has said that it is done."""
        self._folder = folder
        self._plan: dict[str, object] = {"steps": []}
        self._server = _server(self)

    @property
    def base(self) -> str:
        """The origin of its URLs."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def plan(self, *steps: Step, then: str = "") -> str:
        """Have these steps made by the page whose URL is returned; `then` it goes elsewhere."""
        self._plan = {"steps": list[Step](steps), "then": then}
        return f"{self.base}/steps.html"

    async def page_done(self) -> None:
        """Wait until the page has said that it is done."""
        assert await anyio.to_thread.run_sync(self.done.wait, DONE_WITHIN), self.posted

    def get(self, path: str) -> Answer:
        """Return a page, or the plan."""
        if path == "/plan.json":
            return Answer(json.dumps(self._plan).encode())
        page = self._folder / path.removeprefix("/")
        if page.parent != self._folder or not page.is_file():
            return Answer(b"not found", 404)
        return Answer(page.read_bytes(), headers={"Content-Type": "text/html; charset=utf-8"})

    def post(self, path: str, body: bytes) -> Answer:
        """Note a request and return its answer."""
        method = parse_qs(body.decode("utf-8", "replace")).get("method", [""])[0]
        key = next(k for k in (f"{path} {method}", path) if k in self.answers or k == path)
        self.posted.append(key)
        if path == "/done":
            self.done.set()
            return Answer()
        return self.answers.get(key, Answer(b"not found", 404))

    @contextmanager
    def running(self) -> Iterator["PageServer"]:
        """Serve until left."""
        thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            thread.join()
            self._server.server_close()


def _server(pages: PageServer) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._send(pages.get(urlsplit(self.path).path))

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self._send(pages.post(urlsplit(self.path).path, body))

        def _send(self, answer: Answer) -> None:
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            self.wfile.write(answer.body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
            pass

        def handle_one_request(self) -> None:
            try:
                super().handle_one_request()
            except ConnectionError:
                # The browser has gone, which is what the tests make it do.
                self.close_connection = True

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    return server
