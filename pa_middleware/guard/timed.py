"""How a guard calls its scorer: from sync and async nodes, and within a time limit if there is one."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future, wait
from contextvars import copy_context

from pa_middleware.scoring.errors import ScoringError, ScoringTimeoutError
from pa_middleware.scoring.forks import start_anew_after_fork
from pa_middleware.scoring.scorer import Scorer, Step, StepScore, Submits

WORKERS = 8
"""Most threads that calls with a time limit hold at once, stuck ones included."""
_NAME = "pa-scoring"


class ScorerCalls:
    """Calls of one scorer, from any number of threads and event loops.

    Args:
        scorer: what is called.
        timeout: seconds that a caller waits at most, more than 0; None: until the scorer answers.

    A scorer that works on its own (`Submits`) is called in the caller's thread, and a call that is late is cancelled.
    Any other runs, with a time limit, in one of at most `WORKERS` daemon threads, in a copy of the caller's context. A
    thread cannot be stopped: a call that is late goes on in its thread, and its answer is nobody's.
    """

    def __init__(self, scorer: Scorer, timeout: float | None) -> None:
        self._scorer = scorer
        self._submitted = _Submitted(scorer, timeout) if isinstance(scorer, Submits) else None
        self._workers = None if timeout is None else _Workers(min(float(timeout), threading.TIMEOUT_MAX))

    async def now(self, steps: Sequence[Step]) -> list[StepScore]:
        """The scores; the calling thread waits for them, and the coroutine never suspends.

        Raises:
            ScoringTimeoutError: the scorer was late, or earlier late calls still hold every worker.
            Exception: whatever the scorer raises, as it is; StopIteration, which no coroutine can pass on, becomes a
                ScoringError.
        """
        if self._submitted is not None:
            return self._submitted.now(steps)
        if self._workers is None:
            return self._score(steps)
        call = self._workers.begin(lambda: self._score(steps))
        try:
            call.ended.result(call.remaining())
        except TimeoutError:
            raise self._workers.late(call) from None
        finally:
            self._workers.leave(call)
        return call.outcome()

    async def aside(self, steps: Sequence[Step]) -> list[StepScore]:
        """The scores; the event loop goes on meanwhile. Raises what `now` raises.

        A caller that is cancelled takes back a call that has not begun, and leaves one that has.
        """
        if self._submitted is not None:
            return await self._submitted.aside(steps)
        if self._workers is None:
            alone = _Call(lambda: self._score(steps), math.inf)
            await asyncio.to_thread(alone.make)  # not the scorer itself: asyncio makes another error of a TimeoutError
            return alone.outcome()
        call = self._workers.begin(lambda: self._score(steps))
        try:
            async with asyncio.timeout(call.remaining()):  # wait_for of 3.11 loses a cancellation that meets the answer
                await asyncio.wrap_future(call.ended)
        except TimeoutError:
            raise self._workers.late(call) from None
        finally:
            self._workers.leave(call)
        return call.outcome()

    def _score(self, steps: Sequence[Step]) -> list[StepScore]:
        try:
            return self._scorer.score(steps)
        except (StopIteration, asyncio.CancelledError) as error:
            raise _unpassable(error) from error


class _Submitted:
    """Calls of a scorer that works on its own."""

    def __init__(self, scorer: Submits, timeout: float | None) -> None:
        self._scorer, self._timeout = scorer, timeout

    def now(self, steps: Sequence[Step]) -> list[StepScore]:
        """The scores; the calling thread waits for them."""
        scores = self._scorer.submit(steps)
        try:
            wait([scores], self._timeout)
            return self._outcome(scores)
        finally:
            scores.cancel()

    async def aside(self, steps: Sequence[Step]) -> list[StepScore]:
        """The scores; the event loop goes on meanwhile. A caller that is cancelled cancels the call."""
        scores = asyncio.wrap_future(self._scorer.submit(steps))
        try:
            await asyncio.wait([scores], timeout=self._timeout)
            return self._outcome(scores)
        finally:
            scores.cancel()

    def _outcome(self, scores: Future[list[StepScore]] | asyncio.Future[list[StepScore]]) -> list[StepScore]:
        if not scores.done():
            raise _no_answer(self._timeout or 0.0)
        try:
            return scores.result()
        except (StopIteration, asyncio.CancelledError, CancelledError) as error:
            raise _unpassable(error) from error


class _Call:
    """One call of the scorer, and what came of it."""

    def __init__(self, score: Callable[[], list[StepScore]], timeout: float) -> None:
        self.deadline = time.monotonic() + timeout
        self.begun = False
        self.ended: Future[None] = Future()
        """Done when there is an outcome. It never holds the scorer's error: a TimeoutError of the scorer's own must not
        look like that of the wait."""
        self.ended.set_running_or_notify_cancel()  # so that a cancelled waiter cannot cancel it under the worker
        self._score = score
        self._context = copy_context()
        self._scores: list[StepScore] = []
        self._error: BaseException | None = None

    def remaining(self) -> float:
        """Seconds left to wait, at least 0."""
        return max(0.0, self.deadline - time.monotonic())

    def overdue(self) -> bool:
        """Whether its time is over."""
        return time.monotonic() >= self.deadline

    def make(self) -> None:
        """Call the scorer."""
        try:
            self._scores = self._context.run(self._score)
        except BaseException as error:  # noqa: BLE001 - it is the caller's, whatever it is
            self._error = error

    def outcome(self) -> list[StepScore]:
        """What the scorer answered, or raised."""
        try:
            if self._error is not None:
                raise self._error
            return self._scores
        finally:
            self._error = None  # its traceback holds this call: no cycle that would keep the scorer's tensors


class _Workers:
    """Daemon threads that make calls, oldest first. Each ends when there is nothing left to do."""

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self.start_anew()
        start_anew_after_fork(self)

    def start_anew(self) -> None:
        """Begin without threads and locks of before."""
        self._lock = threading.Lock()
        self._waiting: deque[_Call] = deque()
        self._running: set[_Call] = set()
        self._threads: set[threading.Thread] = set()

    def begin(self, score: Callable[[], list[StepScore]]) -> _Call:
        """Have this called as soon as a worker is free.

        Raises:
            ScoringTimeoutError: every worker is held by a call whose time is over.
        """
        call = _Call(score, self._timeout)
        with self._lock:
            stuck = sum(running.overdue() for running in self._running)
            if stuck >= WORKERS:
                raise ScoringTimeoutError(
                    f"{stuck} earlier calls of the scorer have not come back, each after more than {self._timeout:g} "
                    "s, and no worker is left for this one; find out where the scorer hangs, or give it more time "
                    "with Rules(scoring_timeout=...)"
                )
            if len(self._threads) < WORKERS:
                thread = threading.Thread(target=self._work, name=_NAME, daemon=True)
                thread.start()
                self._threads.add(thread)  # not before: one that could not start would count for good
            self._waiting.append(call)
        return call

    def leave(self, call: _Call) -> None:
        """Nobody waits for this call any more: if it has not begun, it never will."""
        with self._lock:
            if call in self._waiting:
                self._waiting.remove(call)

    def late(self, call: _Call) -> ScoringTimeoutError:
        """The error of a caller that has waited long enough."""
        if call.begun:
            return _no_answer(self._timeout)
        return ScoringTimeoutError(
            f"the scorer was not called: earlier calls held all {WORKERS} workers for {self._timeout:g} s; run fewer "
            "conversations at once, or give each call more time with Rules(scoring_timeout=...)"
        )

    def _work(self) -> None:
        while (call := self._next()) is not None:
            call.make()
            with self._lock:
                self._running.discard(call)
            call.ended.set_result(None)

    def _next(self) -> _Call | None:
        with self._lock:
            while self._waiting:
                call = self._waiting.popleft()
                if not call.overdue():  # else its caller is about to leave
                    call.begun = True
                    self._running.add(call)
                    return call
            self._threads.discard(threading.current_thread())
            return None


def _no_answer(timeout: float) -> ScoringTimeoutError:
    return ScoringTimeoutError(
        f"the scorer gave no answer within {timeout:g} s; find out what holds it up, or give it more time with "
        "Rules(scoring_timeout=...)"
    )


def _unpassable(error: BaseException) -> ScoringError:
    """In place of an error that means something else to whoever waits."""
    return ScoringError(f"the scorer raised {type(error).__name__}")
