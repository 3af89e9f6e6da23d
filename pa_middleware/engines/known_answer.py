"""One question whose answer is known, asked again and again: another model at the same address is noticed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import numpy as np

from pa_middleware.engines.errors import EngineError
from pa_middleware.engines.source import Floats


class KnownAnswer:
    """Used on one event loop.

    Args:
        ask: asks the engine.
        expected: what it answered when it was tested.
        url: of the engine, for people to read.
        tolerance: nats by which a token's log-prob may differ.
        every: seconds for which an answer that was right vouches for the model; 0 asks beside every step.
        clock: seconds.
    """

    def __init__(
        self,
        ask: Callable[[], Awaitable[Floats]],
        expected: Floats,
        *,
        url: str,
        tolerance: float,
        every: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ask, self._expected, self._url = ask, expected, url
        self._tolerance, self._every, self._clock = tolerance, every, clock
        self._right_at = clock()
        self._asking: asyncio.Task[None] | None = None

    async def verify(self) -> None:
        """Return if the answer was right not long ago, or is right now.

        Raises:
            EngineError: it is another than it was, or the engine gives none.
        """
        if not self._every:
            await self._verify()
        elif self._clock() - self._right_at >= self._every:
            if self._asking is None:
                self._asking = asyncio.ensure_future(self._verify())
                self._asking.add_done_callback(self._asked)
            await asyncio.shield(self._asking)  # others wait for it as well

    async def _verify(self) -> None:
        began = self._clock()
        answer = await self._ask()
        apart = float(np.abs(answer - self._expected).max())
        if not apart <= self._tolerance:
            raise EngineError(
                f"the model at {self._url} answers a known question otherwise than when it was tested, by {apart:.2f} "
                "nats: another model is served there, or other weights; make the pair anew to test it"
            )
        self._right_at = began

    def _asked(self, task: asyncio.Task[None]) -> None:
        self._asking = None
        if not task.cancelled():
            task.exception()  # who waited has it; nobody may be left to
