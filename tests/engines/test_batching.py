"""Items leave in batches, in turn and in time; the clock is virtual, so every moment is exact."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Hashable, Sequence
from contextvars import ContextVar
from typing import Any

import pytest
from engines.virtual_time import VirtualTimeLoop, run

from pa_middleware.engines.batching import MicroBatches
from pa_middleware.engines.errors import EngineAnswerError, EngineError, EngineUnavailableError

Batches = MicroBatches[str, str]

_whose = ContextVar("_whose", default="nobody's")


class Engine:
    """Takes a second for a batch, and answers each item in capitals.

    Args:
        before: awaited with each batch first; what it raises fails the batch.
    """

    def __init__(self, before: Callable[[list[str]], Awaitable[object]] | None = None) -> None:
        self._before = before
        self.batches: list[tuple[float, list[str]]] = []
        """When each batch came, and what was in it."""
        self.at_once = self.most_at_once = 0
        self.ended: list[float] = []

    async def run(self, items: list[str]) -> Sequence[str]:
        clock = asyncio.get_running_loop().time
        self.batches.append((clock(), list(items)))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            if self._before is not None:
                await self._before(items)
            await asyncio.sleep(1)
        finally:
            self.at_once -= 1
            self.ended.append(clock())
        return [item.upper() for item in items]

    def of(self, **settings: Any) -> Batches:
        return MicroBatches(self.run, **{"size": 4, "wait": 0.0, "in_flight": 1, "waiting": 10_000, **settings})


async def _later(seconds: float, work: Callable[[], Coroutine[Any, Any, str]]) -> str:
    await asyncio.sleep(seconds)
    return await work()


def _many(batches: Batches, key: Hashable, items: Sequence[str]) -> list[asyncio.Task[str]]:
    return [asyncio.ensure_future(batches.put(key, item)) for item in items]


def test_each_gets_its_own_answer_and_every_item_is_asked_once() -> None:
    engine = Engine()

    async def work() -> list[str]:
        batches = engine.of(in_flight=3)
        return await asyncio.gather(*(batches.put(number % 7, f"i{number}") for number in range(50)))

    assert run(work()) == [f"I{number}" for number in range(50)]
    assert sorted(item for _, batch in engine.batches for item in batch) == sorted(f"i{n}" for n in range(50))
    assert max(len(batch) for _, batch in engine.batches) == 4
    assert engine.most_at_once == 3


def test_a_free_slot_is_taken_at_once_without_a_wait() -> None:
    engine = Engine()

    async def work() -> None:
        await engine.of().put("a", "x")

    run(work())
    assert engine.batches == [(0.0, ["x"])]


def test_an_item_waits_for_company_no_longer_than_it_may() -> None:
    engine = Engine()

    async def work() -> None:
        batches = engine.of(wait=0.5)
        late = [_later(at, lambda at=at: batches.put(at, f"{at}")) for at in (0.2, 0.4, 0.6)]  # type: ignore[misc]
        await asyncio.gather(batches.put("a", "first"), *late)

    run(work())
    assert engine.batches == [(0.5, ["first", "0.2", "0.4"]), (1.5, ["0.6"])]


def test_a_full_batch_does_not_wait() -> None:
    engine = Engine()

    async def work() -> None:
        batches = engine.of(size=2, wait=0.5)
        await asyncio.gather(batches.put("a", "x"), _later(0.1, lambda: batches.put("b", "y")))

    run(work())
    assert engine.batches == [(0.1, ["x", "y"])]


def test_items_collect_while_all_slots_are_taken() -> None:
    engine = Engine()

    async def work() -> None:
        batches = engine.of(size=16)
        late = [_later(0.1 * n, lambda n=n: batches.put(n, f"{n}")) for n in range(1, 10)]  # type: ignore[misc]
        await asyncio.gather(batches.put("a", "first"), *late)

    run(work())
    assert engine.batches == [(0.0, ["first"]), (1.0, [f"{n}" for n in range(1, 10)])]


def test_nothing_is_looked_after_while_nothing_can_change() -> None:
    async def work() -> int:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)
        batches = Engine().of(wait=0.5)
        before = loop.rounds
        await batches.put("a", "x")
        return loop.rounds - before

    assert run(work()) < 12


# Fairness


def test_one_item_leaves_with_the_next_batch_whatever_another_key_has_waiting() -> None:
    engine = Engine()

    async def work() -> None:
        batches = engine.of()
        greedy = _many(batches, "greedy", [f"g{number}" for number in range(1000)])
        await asyncio.sleep(0.5)
        await batches.put("modest", "m")
        assert asyncio.get_running_loop().time() == 2.0
        for task in greedy:
            task.cancel()
        await asyncio.gather(*greedy, return_exceptions=True)

    run(work())
    assert engine.batches[1] == (1.0, ["g1", "m", "g2", "g3"])


def test_keys_take_turns_and_each_keeps_its_order() -> None:
    engine = Engine()

    async def work() -> None:
        batches = engine.of()
        tasks = [task for key in "abc" for task in _many(batches, key, [f"{key}{number}" for number in range(4)])]
        await asyncio.gather(*tasks)

    run(work())
    order = [item for _, batch in engine.batches for item in batch]
    assert order == ["a0", "a1", "b0", "c0", "a2", "b1", "c1", "a3", "b2", "c2", "b3", "c3"]


# Back-pressure


def test_more_than_may_wait_are_refused_at_once_and_nobody_else_is() -> None:
    engine = Engine()

    async def work() -> list[str]:
        batches = engine.of(size=1, waiting=2)
        admitted = _many(batches, "a", ["x", "y", "z"])
        await asyncio.sleep(0.5)
        with pytest.raises(EngineUnavailableError, match="2 steps wait for this engine already"):
            await batches.put("b", "too many")
        assert asyncio.get_running_loop().time() == 0.5
        answers = await asyncio.gather(*admitted)
        return [*answers, await batches.put("b", "again")]

    assert run(work()) == ["X", "Y", "Z", "AGAIN"]


def test_where_none_may_wait_a_free_slot_is_still_taken() -> None:
    async def work() -> str:
        return await Engine().of(size=1, waiting=0).put("a", "x")

    assert run(work()) == "X"


# Cancelled items


def test_a_cancelled_item_that_waits_is_never_asked_and_makes_room() -> None:
    engine = Engine()

    async def work() -> None:
        batches = engine.of(size=1, waiting=2)
        running, dropped, kept = _many(batches, "a", ["x", "dropped", "kept"])
        await asyncio.sleep(0.5)
        dropped.cancel()
        await asyncio.wait([dropped])
        await asyncio.gather(running, kept, batches.put("b", "y"))

    run(work())
    assert [batch for _, batch in engine.batches] == [["x"], ["kept"], ["y"]]


def test_an_item_cancelled_in_the_moment_its_batch_would_leave_is_not_asked() -> None:
    asked = []
    tasks: list[asyncio.Task[str]] = []

    async def answer(items: list[str]) -> list[str]:
        asked.append(items)
        await asyncio.sleep(1)
        asyncio.get_running_loop().call_soon(tasks[1].cancel)  # just before the slot is free
        return items

    async def work() -> None:
        tasks.extend(_many(MicroBatches(answer, size=1, wait=0.0, in_flight=1, waiting=1), "a", ["x", "dropped"]))
        await asyncio.wait(tasks)
        assert tasks[1].cancelled()

    run(work())
    assert asked == [["x"]]


def test_a_running_batch_goes_on_for_those_who_still_wait() -> None:
    engine = Engine()

    async def work() -> str:
        batches = engine.of(wait=0.1)
        dropped, kept = _many(batches, "a", ["x", "y"])
        await asyncio.sleep(0.5)
        dropped.cancel()
        answer = await kept
        assert dropped.cancelled()
        return answer

    assert run(work()) == "Y"
    assert engine.batches == [(0.1, ["x", "y"])]


def test_a_running_batch_that_nobody_waits_for_is_cancelled_and_its_slot_is_free() -> None:
    engine = Engine()

    async def work() -> None:
        batches = engine.of(wait=0.1)
        tasks = _many(batches, "a", ["x", "y"])
        await asyncio.sleep(0.5)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        assert await batches.put("b", "z") == "Z"

    run(work())
    assert engine.ended == [0.5, 1.6]


# Failures


async def _refuse_bad(items: list[str]) -> None:
    if "bad" in items:
        raise EngineError("bad")


def test_one_bad_item_fails_alone_and_the_rest_are_asked_again_each_by_itself() -> None:
    engine = Engine(_refuse_bad)

    async def work() -> list[str | BaseException]:
        batches = engine.of(wait=0.1)
        items = ("x", "bad", "y")
        return await asyncio.gather(*(batches.put(item, item) for item in items), return_exceptions=True)

    first, failed, last = run(work())
    assert (first, last) == ("X", "Y")
    assert isinstance(failed, EngineError)
    assert [batch for _, batch in engine.batches] == [["x", "bad", "y"], ["x"], ["bad"], ["y"]]


def test_nobody_waits_for_a_bad_items_end() -> None:
    async def stall(items: list[str]) -> None:
        if len(items) > 1:
            raise EngineError("one is bad")
        if items == ["bad"]:
            await asyncio.sleep(1000)
            raise EngineUnavailableError("late")

    engine = Engine(stall)

    async def work() -> None:
        batches = engine.of(wait=0.1, size=16)
        bad = asyncio.ensure_future(batches.put("bad", "bad"))
        others = [await each for each in _many(batches, "a", [f"i{n}" for n in range(15)])]
        assert (others, asyncio.get_running_loop().time()) == ([f"I{n}" for n in range(15)], 1.0)
        with pytest.raises(EngineUnavailableError, match="late"):
            await bad

    run(work())
    assert engine.most_at_once == 16


def test_an_item_cancelled_before_its_batch_is_taken_apart_is_not_asked_again() -> None:
    async def fail(items: list[str]) -> None:
        if len(items) > 1:
            await asyncio.sleep(1)
            raise EngineError("bad")

    engine = Engine(fail)

    async def work() -> None:
        tasks = _many(engine.of(wait=0.1), "a", ["x", "y", "z"])
        await asyncio.sleep(0.5)
        tasks[1].cancel()
        await asyncio.wait(tasks)

    run(work())
    assert [batch for _, batch in engine.batches] == [["x", "y", "z"], ["x"], ["z"]]


def test_an_item_cancelled_while_its_batch_is_taken_apart_is_cancelled_there_and_no_other_is() -> None:
    engine = Engine(_refuse_bad)

    async def work() -> None:
        batches = engine.of(wait=0.1)
        tasks = _many(batches, "a", ["x", "bad", "y"])
        await asyncio.sleep(0.5)
        tasks[2].cancel()
        await asyncio.wait(tasks)
        assert tasks[0].result() == "X"
        assert tasks[1].exception()

    run(work())
    assert engine.ended == [0.1, 0.1, 0.5, 1.1], "the batch, the bad one, the cancelled one, and the one that is left"


def test_the_slot_of_a_batch_that_is_taken_apart_is_free_once_nobody_waits_any_more() -> None:
    engine = Engine(_refuse_bad)

    async def work() -> str:
        batches = engine.of(wait=0.1)
        tasks = _many(batches, "a", ["bad", "x", "y"])
        await asyncio.sleep(0.5)
        for task in tasks[1:]:
            task.cancel()
        await asyncio.wait(tasks)
        assert tasks[0].exception()
        return await batches.put("b", "z")

    assert run(work()) == "Z"
    assert engine.batches[-1] == (0.6, ["z"])


def test_an_engine_that_cannot_be_had_fails_the_batch_and_is_not_asked_again() -> None:
    async def away(items: list[str]) -> None:
        raise EngineUnavailableError("away")

    engine = Engine(away)

    async def work() -> list[str | BaseException]:
        batches = engine.of(wait=0.1)
        return await asyncio.gather(*(batches.put(item, item) for item in "xyz"), return_exceptions=True)

    assert [type(error) for error in run(work())] == [EngineUnavailableError] * 3
    assert len(engine.batches) == 1


def test_an_engine_that_cannot_be_had_for_one_item_fails_that_one_alone() -> None:
    async def fail(items: list[str]) -> None:
        if len(items) > 1:
            raise EngineError("too many")
        if items == ["y"]:
            raise EngineUnavailableError("away")

    engine = Engine(fail)

    async def work() -> list[str | BaseException]:
        batches = engine.of(wait=0.1)
        return await asyncio.gather(*(batches.put(item, item) for item in "wxyz"), return_exceptions=True)

    answers = run(work())
    assert isinstance(answers.pop(2), EngineUnavailableError)
    assert answers == ["W", "X", "Z"]


def test_another_number_of_answers_than_items_is_an_error() -> None:
    async def short(items: list[str]) -> list[str]:
        return items[1:]

    async def work() -> None:
        await MicroBatches(short, size=4, wait=0.0, in_flight=1, waiting=1).put("a", "x")

    with pytest.raises(EngineAnswerError, match="1 items were asked and 0 answered"):
        run(work())


def test_a_batch_that_ends_without_an_answer_leaves_nobody_waiting() -> None:
    async def give_up(items: list[str]) -> None:
        raise asyncio.CancelledError

    async def work() -> None:
        await Engine(give_up).of().put("a", "x")

    with pytest.raises(EngineUnavailableError, match="given up"):
        run(work())


def test_a_batch_runs_in_the_context_of_whoever_put_its_first_item() -> None:
    seen = []

    async def see(items: list[str]) -> None:
        seen.append((_whose.get(), *items))

    async def work() -> None:
        batches = Engine(see).of(size=1)

        async def put(whose: str) -> None:
            _whose.set(whose)
            await batches.put(whose, whose)

        await asyncio.gather(*map(put, ("a", "b", "c")))

    run(work())
    assert seen == [("a", "a"), ("b", "b"), ("c", "c")]


def test_an_item_that_is_asked_alone_runs_in_the_context_of_whoever_put_it() -> None:
    seen = []

    async def see(items: list[str]) -> None:
        seen.append((_whose.get(), *items))
        if len(items) > 1:
            raise EngineError("bad")

    async def work() -> None:
        batches = Engine(see).of(wait=0.1)

        async def put(whose: str) -> None:
            _whose.set(whose)
            await batches.put(whose, whose)

        await asyncio.gather(*map(put, ("a", "b")))

    run(work())
    assert seen == [("a", "a", "b"), ("a", "a"), ("b", "b")]
