"""One question whose answer is known, asked again and again: another model at the same address is noticed."""

from __future__ import annotations

import asyncio
import time

import numpy as np

from pa_middleware.engines.errors import EngineError
from pa_middleware.engines.source import Floats, LogProbSource
from pa_middleware.scoring.reading import Query


class KnownAnswer:
    """Used on one event loop.

    Args:
        source: asks the engine.
        known: the question, and the log-probs [T] that the engine answered when it was tested.
        tolerance: nats by which a token's log-prob may differ.
        every: seconds for which an answer that was right vouches for the model; 0 asks beside every step.
    """

    def __init__(
        self,
        source: LogProbSource,
        known: tuple[Query, Floats],
        *,
        tolerance: float,
        every: float,
    ) -> None:
        self._source = source
        self._query, self._expected = known
        self._tolerance, self._every = tolerance, every
        self._right_at = time.monotonic()
        self._asking: asyncio.Task[None] | None = None

    async def verify(self) -> None:
        """Return if the answer was right not long ago, or is right now.

        Raises:
            EngineError: it is another than it was, or the engine gives none.
        """
        if not self._every:
            await self._verify()
        elif time.monotonic() - self._right_at >= self._every:
            if self._asking is None:
                self._asking = asyncio.ensure_future(self._verify())
                self._asking.add_done_callback(self._asked)
            await asyncio.shield(self._asking)  # others wait for it as well

    async def _verify(self) -> None:
        began = time.monotonic()
        [answer] = await self._source.log_probs([self._query])
        apart = float(np.abs(np.asarray(answer, dtype=np.float32) - self._expected).max())
        if not apart <= self._tolerance:
            raise EngineError(
                f"the model at {self._source.url} answers a known question otherwise than when it was tested, by "
                f"{apart:.2f} nats: another model is served there, or other weights; make the pair anew to test it"
            )
        self._right_at = began

    def _asked(self, task: asyncio.Task[None]) -> None:
        self._asking = None
        if not task.cancelled():
            task.exception()  # who waited has it; nobody may be left to
