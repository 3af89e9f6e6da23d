"""A server of JSON on a free port, for test servers that speak an engine's protocol."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from engines.hanging_up import Front, Quiet


class Refusal(Exception):
    """An answer with an HTTP error."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


class JsonServer(Front):
    """Serves while it is entered. A subclass answers in `get` and `post`, from threads, and may raise `Refusal`."""

    def __init__(self) -> None:
        super().__init__(_Handler)
        self.asked: list[tuple[str, dict[str, Any]]] = []
        """(path, body) of each POST, in order."""
        self.rewrite: Callable[[Any], Any] = lambda answer: answer
        """What becomes of the answer to a POST before it is sent."""

    def get(self, path: str) -> Any:
        raise Refusal(f"there is no {path}", 404)

    def post(self, path: str, body: dict[str, Any]) -> Any:
        raise Refusal(f"there is no {path}", 404)


class _Handler(Quiet):
    def do_GET(self) -> None:
        self._answer(lambda: self.server.front.get(self.path))

    def do_POST(self) -> None:
        body = json.loads(self.body())
        self.server.front.asked.append((self.path, body))
        self._answer(lambda: self.server.front.rewrite(self.server.front.post(self.path, body)))

    def _answer(self, make: Callable[[], Any]) -> None:
        try:
            status, answer = 200, make()
        except Refusal as error:
            status, answer = error.status, {"error": {"message": str(error), "code": error.status}}
        self.send(status, json.dumps(answer).encode())
