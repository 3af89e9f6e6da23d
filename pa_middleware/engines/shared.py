"""Many agents, one scorer that works in the caller's thread: steps of all of them are scored in batches, in turn."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Hashable, Sequence
from concurrent.futures import CancelledError, Future
from inspect import iscoroutinefunction
from types import TracebackType

from pa_middleware.engines.batching import MicroBatches
from pa_middleware.engines.closing import unless_closed
from pa_middleware.engines.loop import LoopThread
from pa_middleware.engines.together import together
from pa_middleware.scoring.errors import ScoringError
from pa_middleware.scoring.forks import start_anew_after_fork
from pa_middleware.scoring.scorer import Scorer, Step, StepScore

HANDED_ON = (
    "aggregation",
    "beta",
    "end_of_turn",
    "fingerprint",
    "least_margin",
    "policy_name",
    "read_ahead",
    "reference_name",
    "token_texts",
)
"""What a guard looks for in a scorer besides scores. A shared one has those that the scorer has."""


class SharedScorer:
    """Lets any number of agents, threads and event loops share a scorer such as a `ModelPair` on a GPU. A `Scorer`.

    The scorer is called with batches, from one thread and once at a time. Conversations take turns, so that none is
    kept waiting by another's many steps; and a step that cannot be scored fails nobody else's. What the scorer has for
    guards it has too, as it was when this was made: `fingerprint`, `read_ahead`, `token_texts` and the rest of
    `HANDED_ON`.

    Args:
        scorer: what scores.
        size: most steps of a batch.
        wait: seconds that a step waits for company at most, while the scorer has nothing to do.
        waiting: steps that may wait; beyond it a step fails at once. Of one call no more than two batches wait at a
            time, so that a long one is not refused.

    Raises:
        ValueError: a setting outside what is allowed.
    """

    def __init__(self, scorer: Scorer, *, size: int = 16, wait: float = 0.002, waiting: int = 1024) -> None:
        for name, value, allowed, holds in (
            ("scorer", scorer, "an object with a plain method score(steps), such as a ModelPair", _scores(scorer)),
            ("size", size, "a whole number from 1 on", type(size) is int and size >= 1),
            ("wait", wait, "seconds, 0 or more", 0 <= wait < math.inf),
            ("waiting", waiting, "a whole number from 0 on", type(waiting) is int and waiting >= 0),
        ):
            if not holds:
                raise ValueError(f"{name} is {value!r:.100}; allowed: {allowed}")
        self.scorer = scorer
        self._size, self._wait, self._waiting = size, wait, waiting
        # Attributes of its own: a protocol that is checked at runtime does not see what __getattr__ would answer.
        for name in HANDED_ON:
            if hasattr(scorer, name):
                setattr(self, name, getattr(scorer, name))
        self._loop, self._worker = LoopThread(), LoopThread()
        self.start_anew()
        start_anew_after_fork(self)

    def start_anew(self) -> None:
        """Forget the steps that wait: those who asked for them are not there after a fork."""
        self._batches: MicroBatches[Step, StepScore] = MicroBatches(
            self._ask, size=self._size, wait=self._wait, in_flight=1, waiting=self._waiting
        )
        self._turn = asyncio.Lock()

    def score(self, steps: Sequence[Step]) -> list[StepScore]:
        """What the scorer answers to these steps.

        Raises:
            EngineUnavailableError: too many steps wait already.
            Exception: what the scorer raises for one of these steps.
        """
        scores = self.submit(steps)
        try:
            return scores.result()
        finally:
            scores.cancel()

    def submit(self, steps: Sequence[Step]) -> Future[list[StepScore]]:
        """Begin to score and return at once; the future holds what `score` answers or raises.

        Cancelling it takes back the steps that the scorer has not been called with.

        Raises:
            RuntimeError: this was closed.
        """
        return unless_closed(self._loop.submit(self._score_all(list(steps))), "the shared scorer")

    def close(self) -> None:
        """End its threads, once the batch that is being scored is done. The scorer stays open.

        Steps that wait or are being scored fail with EngineUnavailableError.
        """
        self._loop.close()
        self._worker.close()

    def __enter__(self) -> SharedScorer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    async def _score_all(self, steps: Sequence[Step]) -> list[StepScore]:
        call = object()  # steps of no conversation take turns as one, or whoever has many of them would have all turns
        room = asyncio.Semaphore(2 * self._size)  # one batch that is scored, and one that gathers meanwhile

        async def put(step: Step) -> StepScore:
            key: Hashable = call if step.conversation is None else step.conversation
            async with room:
                return await self._batches.put(key, step)

        return list(await together(*map(put, steps)))

    async def _ask(self, steps: Sequence[Step]) -> list[StepScore]:
        # Steps of a batch that is taken apart come side by side; one that waits here can still be taken back.
        async with self._turn:
            scoring = asyncio.wrap_future(self._worker.submit(self._scored(steps)))
            try:
                return await asyncio.shield(scoring)
            except asyncio.CancelledError:
                # A thread cannot be stopped. Until it is done no other batch may leave, and steps gather.
                await asyncio.wait([scoring])
                raise

    async def _scored(self, steps: Sequence[Step]) -> list[StepScore]:
        try:
            return self.scorer.score(steps)
        except (StopIteration, asyncio.CancelledError, CancelledError) as error:
            # These mean something else to whoever waits.
            raise ScoringError(f"the scorer raised {type(error).__name__}") from error


def _scores(scorer: object) -> bool:
    return isinstance(scorer, Scorer) and not isinstance(scorer, type) and not iscoroutinefunction(scorer.score)
