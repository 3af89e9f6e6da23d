"""A server that does as a test says, request by request."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from engines.hanging_up import HangingUp, Quiet

Deed = Callable[[Quiet], None]


def says(status: int, body: bytes = b'{"well": true}', **headers: str) -> Deed:
    """Answers so."""
    return lambda handler: handler.send(status, body, **headers)


class Holding:
    """Keeps requests without an answer until it is released, or the client hangs up."""

    def __init__(self) -> None:
        self.arrived, self.released, self.hung_up = threading.Semaphore(0), threading.Event(), threading.Event()
        self.most = self._now = 0
        self._lock = threading.Lock()

    def __call__(self, handler: Quiet) -> None:
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)
        self.arrived.release()
        handler.connection.settimeout(0.01)
        while not self.released.is_set():
            try:
                if not handler.connection.recv(1):
                    self.hung_up.set()
                    handler.close_connection = True
                    return
            except TimeoutError:
                continue
        handler.connection.settimeout(None)
        with self._lock:
            self._now -= 1
        handler.send(200, b'{"well": true}')


class Scripted:
    """Does one deed for each request; the last one for all that follow."""

    def __init__(self, url: str, deeds: list[Deed]) -> None:
        self.url = url
        self.deeds = deeds
        self.asked: list[tuple[str, dict[str, str], bytes]] = []
        """(path, headers in lower case, body) of each request."""
        self.connections: set[Any] = set()


@contextmanager
def scripted(*deeds: Deed, certificate: Path | None = None) -> Iterator[Scripted]:
    with HangingUp(None, _Handler) as http:
        url = http.url
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            http.socket = context.wrap_socket(http.socket, server_side=True, do_handshake_on_connect=False)
            url = url.replace("http:", "https:")
        server = Scripted(url, list(deeds))
        http.front = server
        with http.serving():
            yield server


class _Handler(Quiet):
    def do_GET(self) -> None:
        server: Scripted = self.server.front
        headers = {name.lower(): value for name, value in self.headers.items()}
        server.asked.append((self.path, headers, self.body()))
        server.connections.add(self.client_address)
        deed = server.deeds.pop(0) if len(server.deeds) > 1 else server.deeds[0]
        deed(self)

    do_POST = do_GET
