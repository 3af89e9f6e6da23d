"""A server of JSON on a free port, for test servers that speak an engine's protocol."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self


class Refusal(Exception):
    """An answer with an HTTP error."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


class JsonServer:
    """Serves while it is entered. A subclass answers in `get` and `post`, from threads, and may raise `Refusal`."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []
        """(path, body) of each POST, in order."""
        self.rewrite: Callable[[Any], Any] = lambda answer: answer
        """What becomes of the answer to a POST before it is sent."""

    def get(self, path: str) -> Any:
        raise Refusal(f"there is no {path}", 404)

    def post(self, path: str, body: dict[str, Any]) -> Any:
        raise Refusal(f"there is no {path}", 404)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    def __enter__(self) -> Self:
        self._http = _Server(("127.0.0.1", 0), _Handler)
        self._http.front = self
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.shutdown()
        self._http.hang_up()
        self._http.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    front: JsonServer
    daemon_threads = False

    def __init__(self, *args: Any) -> None:
        self._open: set[socket.socket] = set()
        super().__init__(*args)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def hang_up(self) -> None:
        # Threads wait on connections that clients keep open.
        for request in list(self._open):
            try:
                request.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Headers and body are two writes: without this the second waits for the client's delayed acknowledgement.
    disable_nagle_algorithm = True
    server: _Server

    def do_GET(self) -> None:
        self._answer(lambda: self.server.front.get(self.path))

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.front.asked.append((self.path, body))
        self._answer(lambda: self.server.front.rewrite(self.server.front.post(self.path, body)))

    def _answer(self, make: Any) -> None:
        try:
            status, answer = 200, make()
        except Refusal as error:
            status, answer = error.status, {"error": {"message": str(error), "code": error.status}}
        data = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the base class names it so)
        """Silent."""
