"""A threaded HTTP server that can be stopped while clients keep their connections open."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self


class HangingUp(ThreadingHTTPServer):
    """Hands each connection to a thread, and leaves none behind.

    Args:
        front: what handlers find as `server.front`.
        handler: of each connection.
    """

    daemon_threads = False
    request_queue_size = 128

    def __init__(self, front: Any, handler: type[BaseHTTPRequestHandler]) -> None:
        self.front = front
        self._open: set[socket.socket] = set()
        super().__init__(("127.0.0.1", 0), handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients may hang up."""

    @contextmanager
    def serving(self) -> Iterator[None]:
        thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield
        finally:
            self.shutdown()
            for request in list(self._open):  # threads wait on connections that clients keep open
                try:
                    request.shutdown(socket.SHUT_RDWR)
                except OSError:
                    continue
            self.server_close()
            thread.join()


class Quiet(BaseHTTPRequestHandler):
    """Speaks HTTP/1.1 and logs nothing."""

    protocol_version = "HTTP/1.1"
    # Headers and body are two writes: without this the second waits for the client's delayed acknowledgement.
    disable_nagle_algorithm = True
    server: HangingUp

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def send(self, status: int, data: bytes, kind: str = "application/json", **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the base class names it so)
        """Silent."""


class Front:
    """Serves while it is entered. Handlers find it as `server.front`.

    Args:
        handler: of each connection.
    """

    def __init__(self, handler: type[Quiet]) -> None:
        self._handler = handler

    @property
    def url(self) -> str:
        return self._http.url

    def __enter__(self) -> Self:
        self._http = HangingUp(self, self._handler)
        self._serving = self._http.serving()
        self._serving.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._serving.__exit__(None, None, None)
