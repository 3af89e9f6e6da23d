"""Calling through a client, on an event loop that ends with the call."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from pa_middleware.engines.client import Client

Result = TypeVar("Result")
WELL = {"well": True}
"""What a scripted server answers unless it is told otherwise."""


class Waits:
    """Takes no time, and remembers."""

    def __init__(self) -> None:
        self.all: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.all.append(seconds)


def using(client: Client, work: Callable[[Client], Awaitable[Result]]) -> Result:
    """What comes of it; the client is closed after."""

    async def run() -> Result:
        try:
            return await work(client)
        finally:
            await client.close()

    return asyncio.run(run())


def get(client: Client) -> Any:
    return using(client, lambda client: client.get("/x"))


def post(client: Client, **body: Any) -> Any:
    return using(client, lambda client: client.post("/x", body))
