"""The requests that a pair on engines would send, sent with httpx and nothing around it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any
from unittest.mock import patch

import httpx

from pa_middleware import Step
from pa_middleware.engines.client import Client
from pa_middleware.engines.pair import EnginePair
from pa_middleware.engines.source import LogProbSource
from pa_middleware.scoring.reading import Query


class _RecordedError(BaseException):
    """Not an Exception: sources would make something of that."""

    def __init__(self, path: str, body: Any) -> None:
        self.path, self.content = path, json.dumps(body, separators=(",", ":")).encode()


async def request_of(source: LogProbSource, query: Query) -> tuple[str, bytes]:
    """URL and body that a source asks this with first. Nothing is sent, and no other source may be asked meanwhile."""

    async def record(_: Client, path: str, body: Any) -> Any:
        raise _RecordedError(path, body)

    with patch.object(Client, "post", record):
        try:
            await source.log_probs([query])
        except _RecordedError as recorded:
            return source.url + recorded.path, recorded.content
    raise RuntimeError(f"{source.url} was asked for log-probs without a request")


class Raw:
    """Sends the requests of steps, and reads the answers' bytes."""

    def __init__(self, pair: EnginePair, sources: Sequence[LogProbSource], http: httpx.AsyncClient) -> None:
        self._pair, self._sources, self._http = pair, sources, http
        self._requests: dict[int, list[tuple[str, bytes]]] = {}

    async def prepare(self, conversations: Sequence[Sequence[Step]]) -> None:
        """Make the requests, before their time is taken."""
        self._requests.clear()
        for step in (step for steps in conversations for step in steps):
            rendered = self._pair.renderer.render(step)
            query = Query(rendered.prompt + rendered.actions[0].ids, len(rendered.prompt))
            self._requests[id(step)] = [await request_of(source, query) for source in self._sources]

    async def ask(self, step: Step) -> None:
        """Both models at once, as the pair does."""
        await asyncio.gather(*(self._send(url, content) for url, content in self._requests[id(step)]))

    async def _send(self, url: str, content: bytes) -> None:
        headers = {"Content-Type": "application/json"}
        try:
            answer = await self._http.post(url, content=content, headers=headers)
        except httpx.TransportError:  # the pair tries again as well
            answer = await self._http.post(url, content=content, headers=headers)
        # vLLM refuses what it cannot write as JSON; the pair asks such a step again.
        if answer.status_code != httpx.codes.OK and b"Out of range float" not in answer.content:
            raise RuntimeError(f"{url} answered status {answer.status_code}: {answer.text[:200]}")
