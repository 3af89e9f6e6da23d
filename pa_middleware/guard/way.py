"""The two ways a step can run: in a thread that waits, or in an event loop that goes on meanwhile.

A step is written once, as a coroutine over these operations; in the first way none of them ever suspends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import FIRST_EXCEPTION, wait
from dataclasses import dataclass
from typing import Any, TypeVar

from langchain_core.runnables.config import ContextThreadPoolExecutor

from pa_middleware.guard.unsettled import Unsettled
from pa_middleware.scoring.scorer import Step, StepScore

Result = TypeVar("Result")
Making = Callable[[], Coroutine[Any, Any, Result]]
"""Begins to make something."""

AskScorer = Callable[[Sequence[Step]], Awaitable[list[StepScore]]]


@dataclass(frozen=True, slots=True)
class Way:
    """How a step asks its scorer, and makes several draws at once."""

    ask: AskScorer
    at_once: int | None
    """Most draws made at the same time; None: all there are to make."""
    several: Callable[[Sequence[Making[Any]], int], Awaitable[list[Any]]]
    """Makes all of them, so many at the same time, and answers in their order."""
    store: Callable[[Unsettled], Awaitable[None]]
    """Passes on to the thread what a draw has stored."""


def run_immediately(coroutine: Coroutine[Any, Any, Result]) -> Result:
    """The result of a coroutine that never suspends."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        result: Result = done.value
        return result
    coroutine.close()
    raise RuntimeError("a synchronous step was suspended")


def _make(begin: Making[Result]) -> Result:
    return run_immediately(begin())


async def in_threads(making: Sequence[Making[Result]], at_once: int) -> list[Result]:
    """All of them, each in a thread with a copy of the caller's context; the calling thread waits. One at a time, it
    makes them itself.

    Raises:
        Exception: what the first of them that failed raised, in their order; those not begun by then never are.
    """
    if at_once == 1:
        return [await begin() for begin in making]
    with ContextThreadPoolExecutor(max_workers=at_once) as pool:
        futures = [pool.submit(_make, begin) for begin in making]
        try:
            wait(futures, return_when=FIRST_EXCEPTION)
        finally:
            for future in futures:
                future.cancel()  # those that have not begun
        wait(futures)
        begun = [future for future in futures if not future.cancelled()]
        return [future.result() for future in begun]


async def in_tasks(making: Sequence[Making[Result]], at_once: int) -> list[Result]:
    """All of them, each in a task with a copy of the caller's context.

    Raises:
        Exception: what the first of them that failed raised; the others are cancelled.
    """
    free = asyncio.Semaphore(at_once)
    failed = False

    async def make(begin: Making[Result]) -> Result:
        nonlocal failed
        async with free:
            if failed:  # its turn came before it could be cancelled
                raise asyncio.CancelledError
            try:
                return await begin()
            except BaseException:
                failed = True
                raise

    tasks = [asyncio.ensure_future(make(begin)) for begin in making]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise


async def store_now(unsettled: Unsettled) -> None:
    """Pass on what a draw has stored; the calling thread waits."""
    unsettled.settle()


async def store_aside(unsettled: Unsettled) -> None:
    """Pass on what a draw has stored; the event loop goes on meanwhile."""
    await unsettled.asettle()
