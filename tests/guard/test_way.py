"""Many things made at once, in threads or in tasks: order, limit, errors, and nothing left behind."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from typing import Any

import pytest

from pa_middleware.guard.way import in_tasks, in_threads, run_immediately

TIMEOUT = 30.0
HERE: ContextVar[str] = ContextVar("here", default="nowhere")


def threads(*making: Callable[[], Coroutine[Any, Any, Any]], at_once: int) -> list[Any]:
    return run_immediately(in_threads(making, at_once))


def tasks(*making: Callable[[], Coroutine[Any, Any, Any]], at_once: int) -> list[Any]:
    return asyncio.run(in_tasks(making, at_once))


def test_threads_answer_in_the_order_given_whatever_order_they_end_in() -> None:
    ended = [threading.Event() for _ in range(3)]
    order: list[int] = []

    def making(number: int) -> Callable[[], Coroutine[Any, Any, int]]:
        async def make() -> int:
            if number < 2:
                assert ended[number + 1].wait(TIMEOUT)
            order.append(number)
            ended[number].set()
            return number

        return make

    assert threads(*map(making, range(3)), at_once=3) == [0, 1, 2]
    assert order == [2, 1, 0]


def test_tasks_answer_in_the_order_given_whatever_order_they_end_in() -> None:
    order: list[int] = []

    async def main() -> list[int]:
        ended = [asyncio.Event() for _ in range(3)]

        async def make(number: int) -> int:
            if number < 2:
                await ended[number + 1].wait()
            order.append(number)
            ended[number].set()
            return number

        return await in_tasks([lambda number=number: make(number) for number in range(3)], 3)  # type: ignore[misc]

    assert asyncio.run(main()) == [0, 1, 2]
    assert order == [2, 1, 0]


class Counted:
    """How many run at the same time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.now = self.most = self.begun = 0

    def __enter__(self) -> None:
        with self._lock:
            self.begun += 1
            self.now += 1
            self.most = max(self.most, self.now)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self.now -= 1


def test_threads_run_as_many_at_once_as_allowed_and_no_more() -> None:
    counted, meet = Counted(), threading.Barrier(2)

    async def make() -> None:
        with counted:
            meet.wait(TIMEOUT)

    threads(*[make] * 6, at_once=2)
    assert (counted.most, counted.begun) == (2, 6)


def test_tasks_run_as_many_at_once_as_allowed_and_no_more() -> None:
    counted = Counted()

    async def main() -> None:
        meet = asyncio.Barrier(2)

        async def make() -> None:
            with counted:
                await meet.wait()

        await in_tasks([make] * 6, 2)

    asyncio.run(main())
    assert (counted.most, counted.begun) == (2, 6)


@pytest.mark.parametrize("several", [threads, tasks])
def test_each_has_a_copy_of_the_callers_context(several: Callable[..., list[Any]]) -> None:
    async def make() -> tuple[str, str]:
        before = HERE.get()
        HERE.set("inside")
        return before, HERE.get()

    token = HERE.set("outside")
    try:
        assert several(make, make, at_once=2) == [("outside", "inside")] * 2
        assert HERE.get() == "outside"
    finally:
        HERE.reset(token)


def test_one_at_a_time_they_are_made_in_the_callers_own_thread() -> None:
    async def make() -> threading.Thread:
        return threading.current_thread()

    assert threads(make, make, at_once=1) == [threading.current_thread()] * 2
    assert threading.current_thread() not in threads(make, make, at_once=2)


@pytest.mark.parametrize("several", [threads, tasks])
def test_none_are_none(several: Callable[..., list[Any]]) -> None:
    assert several(at_once=3) == []


def test_the_first_thread_that_failed_is_told_and_the_rest_never_begin() -> None:
    counted, failed = Counted(), threading.Event()
    before = set(threading.enumerate())

    async def fails() -> None:
        with counted:
            failed.set()
            raise KeyError("first")

    async def waits() -> None:
        with counted:
            assert failed.wait(TIMEOUT)
            raise ValueError("second")

    async def never() -> None:
        with counted:
            raise AssertionError("begun after the first had failed")

    with pytest.raises(ValueError, match="second"):
        threads(waits, fails, at_once=2)
    assert set(threading.enumerate()) == before
    with pytest.raises(KeyError, match="first"):
        threads(fails, *[never] * 50, at_once=1)
    assert set(threading.enumerate()) == before


def test_the_first_task_that_failed_is_told_and_the_rest_are_cancelled_or_never_begin() -> None:
    told: list[str] = []

    async def main() -> set[asyncio.Task[Any]]:
        waiting = asyncio.Event()

        async def waits() -> None:
            waiting.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                told.append("cancelled")
                raise

        async def fails() -> None:
            await waiting.wait()
            raise KeyError("failed")

        async def never() -> None:
            told.append("begun after one had failed")

        with pytest.raises(KeyError, match="failed"):
            await in_tasks([waits, fails, never, never], 2)
        return {task for task in asyncio.all_tasks() if task is not asyncio.current_task()}

    assert asyncio.run(main()) == set()
    assert told == ["cancelled"]


def test_an_error_on_the_way_out_does_not_hide_the_first_one() -> None:
    async def main() -> None:
        waiting = asyncio.Event()

        async def stubborn() -> None:
            waiting.set()
            try:
                await asyncio.Event().wait()
            finally:
                raise ValueError("on the way out")

        async def fails() -> None:
            await waiting.wait()
            raise KeyError("failed")

        with pytest.raises(KeyError, match="failed"):
            await in_tasks([stubborn, fails], 2)

    asyncio.run(main())


def test_whoever_cancels_all_cancels_each_and_waits_until_they_ended() -> None:
    ended: list[int] = []

    async def main() -> None:
        begun = [asyncio.Event() for _ in range(3)]

        async def make(number: int) -> None:
            begun[number].set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.append(number)

        whole = asyncio.ensure_future(in_tasks([lambda n=n: make(n) for n in range(3)], 3))  # type: ignore[misc]
        for event in begun:
            await event.wait()
        whole.cancel()
        with pytest.raises(asyncio.CancelledError):
            await whole
        assert sorted(ended) == [0, 1, 2]

    asyncio.run(main())


def test_what_would_wait_for_an_event_loop_is_refused_without_one() -> None:
    async def suspends() -> None:
        await asyncio.Event().wait()

    with pytest.raises(RuntimeError, match="was suspended"):
        asyncio.run(_called(suspends))


async def _called(suspends: Callable[[], Coroutine[Any, Any, None]]) -> None:
    run_immediately(suspends())
