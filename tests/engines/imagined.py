"""A client whose engine is a function: no sockets, so that a clock that jumps has all there is to wait for."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
from engines.calling import WELL

from pa_middleware.engines.client import Client


class Imagined(Client):
    """Asks a function.

    Args:
        answer: what the engine does with a request.
        settings: of the client.
    """

    def __init__(self, answer: Callable[[httpx.Request], Awaitable[httpx.Response]], **settings: Any) -> None:
        super().__init__("http://engine", **settings)
        self.asked = 0

        async def counted(request: httpx.Request) -> httpx.Response:
            self.asked += 1
            return await answer(request)

        self._transport = httpx.MockTransport(counted)

    def _client(self) -> httpx.AsyncClient:
        if self._http is None:
            self._http = httpx.AsyncClient(transport=self._transport, trust_env=False)
        return self._http


def after(seconds: float, status: int = 200, **headers: str) -> Callable[[httpx.Request], Awaitable[httpx.Response]]:
    """Answers so late."""

    async def answer(request: httpx.Request) -> httpx.Response:
        await asyncio.sleep(seconds)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return httpx.Response(status, stream=httpx.ByteStream(json.dumps(WELL).encode()), headers=named)

    return answer


NEVER = after(1e9)
