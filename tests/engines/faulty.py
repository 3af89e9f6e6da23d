"""A proxy that stands before a server and misbehaves on demand."""

from __future__ import annotations

import json
import re
import socket
import struct
import threading
from http.client import HTTPConnection
from types import TracebackType
from typing import Any, Literal, get_args
from urllib.parse import urlsplit

from engines.hanging_up import Front, Quiet

Fault = Literal["reset", "429", "500", "half a body", "no JSON", "a token too few", "NaN", "stall", "redirect", "swap"]
FAULTS: tuple[Fault, ...] = get_args(Fault)


class Faulty(Front):
    """Passes on what it is asked while `fault` is None.

    Args:
        url: of the server behind it.
        swapped: of another, which the fault `swap` asks instead.
    """

    def __init__(self, url: str, swapped: str = "") -> None:
        super().__init__(_Handler)
        self.behind, self.swapped = url, swapped
        self.fault: Fault | None = None
        self.left: int | None = None
        """Requests until the fault is over; None: it stays."""
        self.seen = 0
        """Requests so far."""
        self.retry_after = "0"
        """What comes with a 429."""
        self.headers: dict[str, str] = {}
        """Of the latest request."""
        self.stalled = threading.Event()
        """Set once a request stalls."""
        self._released = threading.Event()
        self._lock = threading.Lock()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._released.set()
        super().__exit__(kind, error, trace)

    def next_fault(self) -> Fault | None:
        """What to do to this request."""
        with self._lock:
            self.seen += 1
            if self.left is None or self.fault is None:
                return self.fault
            self.left -= 1
            return self.fault if self.left >= 0 else None

    def stall(self) -> None:
        """Until the proxy is closed."""
        self.stalled.set()
        self._released.wait()


class _Handler(Quiet):
    def do_GET(self) -> None:
        self._pass_on("GET")

    def do_POST(self) -> None:
        self._pass_on("POST")

    def _pass_on(self, method: str) -> None:
        front: Faulty = self.server.front
        asked = self.body()
        front.headers = dict(self.headers)
        fault = front.next_fault()
        match fault:
            case "reset":
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.close_connection = True
                self.connection.close()
            case "429":
                self.send(429, b'{"error": {"message": "too many"}}', Retry_After=front.retry_after)
            case "500":
                self.send(500, b'{"error": {"message": "broken"}}')
            case "no JSON":
                self.send(200, b"<html>", "text/html")
            case "redirect":
                self.send(302, b"", Location="http://elsewhere.invalid/steal")
            case "stall":
                front.stall()
                self.close_connection = True
            case _:
                url = urlsplit(front.swapped if fault == "swap" else front.behind)
                status, answer = _asked(url.hostname, url.port, method, self.path, asked)
                if fault == "half a body":
                    self.send_response(status)
                    self.send_header("Content-Length", str(len(answer)))
                    self.end_headers()
                    self.wfile.write(answer[: len(answer) // 2])
                    self.close_connection = True
                else:
                    self.send(status, _REWRITES.get(fault or "", bytes)(answer))


def _asked(host: Any, port: Any, method: str, path: str, body: bytes) -> tuple[int, bytes]:
    connection = HTTPConnection(host, port)
    try:
        connection.request(method, path, body or None, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def _shortened(answer: bytes) -> bytes:
    def shorter(value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return {name: shorter(item, name) for name, item in value.items()}
        if isinstance(value, list):
            return [shorter(item) for item in (value[:-1] if key == "prompt_logprobs" else value)]
        return value

    return json.dumps(shorter(json.loads(answer))).encode()


def _with_nan(answer: bytes) -> bytes:
    return re.sub(rb'("logprob": )-?[\d.e-]+', rb"\1NaN", answer)


_REWRITES: dict[str, Any] = {"a token too few": _shortened, "NaN": _with_nan}
