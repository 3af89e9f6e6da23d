"""What a guarded step tells the models inside it, and what they leave for its later draws."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Hashable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from threading import Barrier
from typing import Any

import pytest

from pa_middleware.guard.drawing import Itself, Together, drawing, draws_wanted, together


def test_outside_of_a_step_one_draw_is_wanted() -> None:
    assert drawing() is None
    assert draws_wanted() == 1


def test_inside_a_step_its_draws_are_told_and_go_down_as_the_guard_says() -> None:
    with together(Together(3)) as step:
        told = [draws_wanted()]
        for wanted in (2, 1):
            step.wanted = wanted
            told.append(draws_wanted())
    assert told == [3, 2, 1]
    assert draws_wanted() == 1


def test_a_step_within_a_step_has_draws_of_its_own() -> None:
    with together(Together(3)) as outer:
        with together(Together(1)) as inner:
            assert drawing() is inner
            assert draws_wanted() == 1
        assert drawing() is outer
        assert draws_wanted() == 3


def test_a_step_that_fails_is_over_all_the_same() -> None:
    with pytest.raises(KeyError), together(Together(2)):
        raise KeyError
    assert drawing() is None


@pytest.mark.parametrize("wanted", [0, -1, 1.0, True, "2", None])
def test_what_is_no_count_is_refused(wanted: Any) -> None:
    with pytest.raises(ValueError, match=r"wanted is .*; allowed: a whole number from 1 on"):
        Together(wanted)
    step = Together(2)
    with pytest.raises(ValueError, match="wanted is"):
        step.wanted = wanted
    assert step.wanted == 2


def test_what_is_left_is_handed_out_oldest_first_under_its_key_only() -> None:
    step = Together(3)
    step.keep("here", [1, 2])
    step.keep("there", [3])
    step.keep("here", [4])
    assert [step.take("here") for _ in range(4)] == [1, 2, 4, None]
    assert [step.take("there"), step.take("there"), step.take("nowhere")] == [3, None, None]


def test_a_model_that_leaves_nothing_made_nothing_at_once() -> None:
    step = Together(2)
    step.keep("key", [])
    before = step.batched
    step.keep("key", [1])
    assert (before, step.batched) == (False, True)


def test_draws_share_while_more_are_to_come_or_something_was_left() -> None:
    step = Together(2)
    shared = [Together(1).several, step.several]
    step.wanted = 1
    shared.append(step.several)
    step.keep("key", [1])
    assert [*shared, step.several] == [False, True, False, True]


def test_a_prompt_that_first_comes_up_in_a_later_draw_is_made_for_that_draw_alone() -> None:
    step = Together(3)
    assert [step.at_once("every draw's"), step.at_once("the first's")] == [3, 3]
    step.wanted = 2
    assert [step.at_once("the second's"), step.at_once("every draw's")] == [1, 2]
    step.wanted = 1
    assert [step.at_once("the second's"), step.at_once("every draw's")] == [1, 1]


def test_nothing_outlives_the_step_whatever_still_runs_in_its_context() -> None:
    with together(Together(3)) as step:
        step.keep("key", [1, 2])
        late = copy_context()

    def ask() -> tuple[Any, ...]:
        found = drawing()
        assert found is step
        before = found.take("key"), found.at_once("key"), found.several
        found.keep("key", [3])
        return (*before, found.take("key"))

    assert late.run(ask) == (None, 1, False, None)


def test_a_thing_is_equal_to_itself_only_and_stays_while_its_key_does() -> None:
    class Model:
        def __eq__(self, other: object) -> bool:
            return True

        __hash__ = None  # type: ignore[assignment]

    one, other = Model(), Model()
    assert Itself(one) == Itself(one)
    assert len({Itself(one), Itself(one), Itself(other)}) == 2
    assert Itself(one) != one
    step = Together(2)
    step.keep(Itself(Model()), [1])
    assert [step.take(Itself(Model())) for _ in range(20)] == [None] * 20


def test_threads_of_a_step_take_each_answer_once() -> None:
    step, begin, count = Together(400), Barrier(4), 100
    step.keep("key", range(4 * count))

    def take(_: int) -> list[Any]:
        begin.wait()
        return [step.take("key") for _ in range(count)]

    with ThreadPoolExecutor(4) as threads:
        taken = [answer for answers in threads.map(take, range(4)) for answer in answers]
    assert sorted(taken) == list(range(4 * count))


def test_tasks_at_once_are_in_their_own_steps() -> None:
    async def main() -> list[tuple[int, Any]]:
        entered = [asyncio.Event(), asyncio.Event()]

        async def one(index: int) -> tuple[int, Any]:
            key: Hashable = "the same"
            with together(Together(index + 2)) as step:
                step.keep(key, [index])
                entered[index].set()
                await entered[1 - index].wait()
                found = drawing()
                return draws_wanted(), found and found.take(key)

        return list(await asyncio.gather(one(0), one(1)))

    assert asyncio.run(main()) == [(2, 0), (3, 1)]


def test_the_module_is_light() -> None:
    code = "import sys, pa_middleware.guard.drawing as _; print([m for m in ('torch', 'openai') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "[]"
