"""A server of JSON on a free port, for test servers that speak an engine's protocol."""

from __future__ import annotations

import json
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from engines.hanging_up import HangingUp, Quiet


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
        return self._http.url

    def __enter__(self) -> Self:
        self._http = HangingUp(self, _Handler)
        self._serving = self._http.serving()
        self._serving.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._serving.__exit__(None, None, None)


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
