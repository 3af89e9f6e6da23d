"""A call of the scorer that nobody waits for any more disturbs no other."""

from __future__ import annotations

import asyncio

import pytest
from guard.held import PATIENCE, Held, answer, ask_all, go_home, steps

from pa_middleware import StepScore
from pa_middleware.guard.timed import WORKERS, ScorerCalls

pytestmark = pytest.mark.usefixtures("workers_go_home")


def test_cancelling_leaves_a_call_that_runs_and_the_next_gets_its_own_answer(held: Held) -> None:
    calls = ScorerCalls(held, PATIENCE)

    async def main() -> list[StepScore]:
        task = asyncio.ensure_future(calls.aside(steps("held 1")))
        await asyncio.to_thread(held.entered.acquire)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return await calls.aside(steps("2"))

    assert asyncio.run(main()) == answer(2.0)
    assert held.seen == ["held 1", "2"]


def test_cancelling_takes_back_a_call_that_waits(held: Held) -> None:
    calls = ScorerCalls(held, PATIENCE)

    async def main() -> None:
        first = asyncio.ensure_future(ask_all(calls, [f"held {index}" for index in range(WORKERS)]))
        await asyncio.to_thread(lambda: [held.entered.acquire() for _ in range(WORKERS)])
        queued = asyncio.ensure_future(calls.aside(steps("99")))
        await asyncio.sleep(0)
        queued.cancel()
        with pytest.raises(asyncio.CancelledError):
            await queued
        held.go.set()
        await first

    asyncio.run(main())
    go_home()
    assert "99" not in held.seen


def test_cancelled_calls_are_not_stuck_before_their_time_is_over(held: Held) -> None:
    calls = ScorerCalls(held, PATIENCE)

    async def main() -> list[StepScore]:
        tasks = [asyncio.ensure_future(calls.aside(steps(f"held {index}"))) for index in range(WORKERS)]
        await asyncio.to_thread(lambda: [held.entered.acquire() for _ in range(WORKERS)])
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        ninth = asyncio.ensure_future(calls.aside(steps("9")))
        await asyncio.sleep(0)
        held.go.set()
        return await ninth

    assert asyncio.run(main()) == answer(9.0)


def test_a_cancellation_that_meets_the_answer_is_not_lost(held: Held) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        task = asyncio.ensure_future(ScorerCalls(held, PATIENCE).aside(steps("held 1")))
        await asyncio.to_thread(held.entered.acquire)
        held.let_go()  # the loop stands still meanwhile, and finds the answer and the cancellation at once
        loop.call_soon(task.cancel)
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
