"""The little of Docker's API that the suite itself needs on port 2375 of loopback.

Nothing of Askos speaks to it. The suite pulls the image "alpine" with it and saves it, to have something to put into
the image service; and it looks for networks of Docker's own below microversion 1.27, of which there are none.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar
from urllib.parse import parse_qs, urlsplit

PORT = 2375


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    archives: ClassVar[dict[str, bytes]] = {}
    """Images that can be pulled: what `docker save` gives of each."""

    def do_GET(self) -> None:
        parts = urlsplit(self.path).path.split("/")[2:]
        if parts == ["networks"]:
            self._answer(200, b"[]")
        elif len(parts) == 3 and parts[0] == "images" and parts[2] == "get" and parts[1] in self.archives:
            self._answer(200, self.archives[parts[1]], "application/x-tar")
        else:
            self._answer(404, b'{"message":"not found"}')

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        url = urlsplit(self.path)
        name = parse_qs(url.query).get("fromImage", [""])[0]
        known = url.path.endswith("/images/create") and name in self.archives
        self._answer(200 if known else 404, b'{"status":"pulled"}' if known else b'{"message":"not found"}')

    def do_DELETE(self) -> None:
        known = urlsplit(self.path).path.split("/")[-1] in self.archives
        self._answer(200 if known else 404, b"[]")

    def log_message(self, *_args: object) -> None:
        """Nobody reads it."""

    def _answer(self, status: int, body: bytes, kind: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def docker_api(archives: dict[str, bytes]) -> Iterator[None]:
    """Answer while the block runs. Raises SystemExit when something else has the port."""
    handler = type("Handler", (_Handler,), {"archives": archives})
    try:
        server = ThreadingHTTPServer(("127.0.0.1", PORT), handler)
    except OSError as error:
        raise SystemExit(f"askos: the suite needs port {PORT} of loopback, which is taken: {error.strerror}") from error
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
