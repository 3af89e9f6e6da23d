"""Many callers of one scorer get what they would get alone, one batch at a time and each in turn."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, wait
from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest
from engines.taxi_steps import taxi_step
from langchain_core.messages import AIMessage, HumanMessage

from pa_middleware import Guard, ModelPair, Rules, Scorer, Step, StepScore
from pa_middleware.engines.errors import EngineAnswerError, EngineUnavailableError
from pa_middleware.engines.shared import HANDED_ON, SharedScorer
from pa_middleware.scoring.errors import ScoringError, UnscorableActionError
from pa_middleware.scoring.fingerprint import Identified, fingerprint_of
from pa_middleware.scoring.scorer import CandidateScore, ReadsAhead, Submits

Make = Callable[..., SharedScorer]


class Lengths:
    """Scores an action with its length, and refuses an empty one. While `go` is not set it does not come back."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        """The actions of each call."""
        self.threads: set[threading.Thread] = set()
        self.at_once = self.most_at_once = 0
        self.entered, self.go = threading.Event(), threading.Event()
        self.go.set()

    def score(self, steps: Sequence[Step]) -> list[StepScore]:
        self.batches.append([step.candidates[0].text for step in steps])
        self.threads.add(threading.current_thread())
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        self.entered.set()
        self.go.wait(30)
        self.at_once -= 1
        if not all(step.candidates[0].text for step in steps):
            raise UnscorableActionError("empty")
        return [StepScore((CandidateScore(len(step.candidates[0].text), -1.0, -1.0, (0.0,)),)) for step in steps]


@pytest.fixture
def make() -> Iterator[Make]:
    with ExitStack() as stack:
        yield lambda *given, **settings: stack.enter_context(SharedScorer(*given, **settings))


def _step(action: str, conversation: str | None = None) -> Step:
    return Step([HumanMessage("go")], [AIMessage(action)], conversation=conversation)


def _values(scores: Sequence[StepScore]) -> list[float]:
    return [score.candidates[0].score for score in scores]


def _until(shared: SharedScorer, waiting: int) -> None:
    """Until so many steps wait."""
    for _ in range(1000):
        if shared._batches._count == waiting:
            return
        shared._loop.submit(asyncio.sleep(0)).result()
    pytest.fail(f"{shared._batches._count} steps wait")


def test_each_step_has_the_score_that_the_scorer_gives_it_alone(make: Make, local: ModelPair) -> None:
    shared = make(local, size=4)
    steps = [taxi_step(seed, candidates=2, conversation=f"c{seed}" if seed % 2 else None) for seed in range(8)]

    async def all_at_once() -> list[list[StepScore]]:
        return await asyncio.gather(*(asyncio.wrap_future(shared.submit([step])) for step in steps))

    answers = asyncio.run(all_at_once())
    local.forget()
    for step, [ours] in zip(steps, answers, strict=True):
        [alone] = local.score([step])
        assert ours.least_margin == alone.least_margin
        for one, other in zip(ours.candidates, alone.candidates, strict=True):
            assert one.token_ids == other.token_ids
            assert one.score == pytest.approx(other.score, abs=1e-4)
            np.testing.assert_allclose(one.token_log_ratios, other.token_log_ratios, atol=1e-4)


def test_callers_of_many_threads_are_scored_in_one_and_in_batches(make: Make) -> None:
    scorer = Lengths()
    scorer.go.clear()
    shared = make(scorer, size=4, wait=0.0)
    first = shared.submit([_step("x" * 9)])
    assert scorer.entered.wait(10)
    others: dict[int, list[float]] = {}
    callers = [
        threading.Thread(target=lambda n=n: others.setdefault(n, _values(shared.score([_step("x" * n)]))))
        for n in range(1, 9)
    ]
    for caller in callers:
        caller.start()
    _until(shared, 8)
    scorer.go.set()
    for caller in callers:
        caller.join()
    assert others == {n: [n] for n in range(1, 9)}
    assert _values(first.result()) == [9]
    assert [len(batch) for batch in scorer.batches] == [1, 4, 4]
    assert scorer.most_at_once == len(scorer.threads) == 1
    assert threading.current_thread() not in scorer.threads


def test_steps_are_answered_in_the_order_they_were_given_and_none_with_none(make: Make) -> None:
    shared = make(Lengths(), size=3)
    assert _values(shared.score([_step("x" * n, f"c{n % 4}") for n in range(1, 30)])) == list(range(1, 30))
    assert shared.score([]) == []


def test_an_action_that_cannot_be_scored_fails_nobody_elses(make: Make) -> None:
    shared = make(Lengths(), wait=0.05)
    futures = [shared.submit([_step(action)]) for action in ("x", "", "xx")]
    with pytest.raises(UnscorableActionError):
        futures[1].result()
    assert [_values(futures[place].result()) for place in (0, 2)] == [[1], [2]]


def test_of_a_batch_that_is_taken_apart_one_is_scored_at_a_time_and_none_that_was_taken_back(make: Make) -> None:
    apart = threading.Event()

    class Held(Lengths):
        """What comes after the batch of four is held up again."""

        def score(self, steps: Sequence[Step]) -> list[StepScore]:
            try:
                return super().score(steps)
            finally:
                if len(steps) == 4:
                    self.entered.clear()
                    self.go.clear()
                    apart.set()

    scorer = Held()
    scorer.go.clear()
    shared = make(scorer, wait=0.0)
    first = shared.submit([_step("first")])
    assert scorer.entered.wait(10)
    futures = []
    for count, action in enumerate(("", "x", "xx", "xxx"), 1):
        futures.append(shared.submit([_step(action)]))
        _until(shared, count)
    scorer.go.set()
    assert apart.wait(10)
    assert scorer.entered.wait(10)
    assert futures[2].cancel()
    for _ in range(50):
        shared._loop.submit(asyncio.sleep(0)).result()
    scorer.go.set()
    assert _values(first.result()) == [5]
    with pytest.raises(UnscorableActionError):
        futures[0].result()
    assert [_values(futures[place].result()) for place in (1, 3)] == [[1], [3]]
    assert scorer.batches == [["first"], ["", "x", "xx", "xxx"], [""], ["x"], ["xxx"]]
    assert scorer.most_at_once == 1


def test_a_long_call_is_neither_refused_nor_in_anybodys_way(make: Make) -> None:
    scorer = Lengths()
    scorer.go.clear()
    shared = make(scorer, size=4, wait=0.0, waiting=16)
    long = shared.submit([_step("long") for _ in range(500)])
    assert scorer.entered.wait(10)
    _until(shared, 7)
    short = shared.submit([_step("short")])
    _until(shared, 8)
    scorer.go.set()
    assert _values(short.result()) == [5]
    assert len(long.result()) == 500
    assert "short" in scorer.batches[1]


def test_more_steps_than_may_wait_are_refused_at_once(make: Make) -> None:
    scorer = Lengths()
    scorer.go.clear()
    shared = make(scorer, size=1, waiting=1)
    admitted = [shared.submit([_step("x")])]
    assert scorer.entered.wait(10)
    admitted.append(shared.submit([_step("xx")]))
    _until(shared, 1)
    with pytest.raises(EngineUnavailableError, match="1 steps wait"):
        shared.score([_step("too many")])
    scorer.go.set()
    assert [_values(future.result()) for future in admitted] == [[1], [2]]


def test_a_cancelled_step_that_waits_never_reaches_the_scorer_and_one_that_runs_holds_its_place(make: Make) -> None:
    scorer = Lengths()
    scorer.go.clear()
    shared = make(scorer, wait=0.0)
    running = shared.submit([_step("running")])
    assert scorer.entered.wait(10)
    waits = shared.submit([_step("waits")])
    _until(shared, 1)
    assert running.cancel()
    assert waits.cancel()
    _until(shared, 0)
    others = [shared.submit([_step(action)]) for action in ("x", "xx")]
    _until(shared, 2)
    scorer.go.set()
    assert [_values(other.result()) for other in others] == [[1], [2]]
    assert scorer.batches == [["running"], ["x", "xx"]]
    assert scorer.most_at_once == 1


# What guards look for


def test_it_is_all_that_the_scorer_is_for_a_guard(make: Make, local: ModelPair) -> None:
    shared = make(local)
    for protocol in (Scorer, Submits, Identified, ReadsAhead):
        assert isinstance(shared, protocol)
    assert fingerprint_of(shared) == local.fingerprint()
    for name in HANDED_ON:
        assert getattr(shared, name) == getattr(local, name)
    Guard(shared, Rules(mode="shadow"))


def test_it_is_no_more_than_the_scorer_is(make: Make) -> None:
    shared = make(Lengths())
    assert not isinstance(shared, Identified | ReadsAhead)
    assert not any(hasattr(shared, name) for name in HANDED_ON)


# Scorers that do what they should not


def test_an_error_that_would_mean_something_else_to_whoever_waits_is_a_scoring_error(make: Make) -> None:
    class Odd:
        def score(self, steps: Sequence[Step]) -> list[StepScore]:
            raise error

    for error in (StopIteration(), asyncio.CancelledError(), CancelledError()):
        with pytest.raises(ScoringError, match=f"the scorer raised {type(error).__name__}"):
            make(Odd()).score([_step("x")])


def test_another_number_of_scores_than_steps_is_an_error(make: Make) -> None:
    class Short:
        def score(self, steps: Sequence[Step]) -> list[StepScore]:
            return []

    with pytest.raises(EngineAnswerError, match="1 items were asked and 0 answered"):
        make(Short()).score([_step("x")])


def test_an_unknown_setting_is_refused() -> None:
    class Later:
        async def score(self, steps: Sequence[Step]) -> list[StepScore]:
            return []

    wrong: list[dict[str, Any]] = [{"size": 0}, {"size": 1.5}, {"wait": -1.0}, {"wait": float("nan")}, {"waiting": -1}]
    for setting in wrong:
        [(name, value)] = setting.items()
        with pytest.raises(ValueError, match=f"{name} is {value!r}; allowed: "):
            SharedScorer(Lengths(), **setting)
    for scorer in (None, Lengths, Later()):
        with pytest.raises(ValueError, match=r"scorer is .*; allowed: an object with a plain method"):
            SharedScorer(scorer)  # type: ignore[arg-type]


# Ends


def test_closing_waits_for_the_batch_that_runs_and_fails_what_waits() -> None:
    scorer = Lengths()
    scorer.go.clear()
    shared = SharedScorer(scorer, size=1, wait=0.0)
    futures = [shared.submit([_step("x")]) for _ in range(3)]
    assert scorer.entered.wait(10)
    closing = threading.Thread(target=shared.close)
    closing.start()
    wait(futures)
    assert closing.is_alive()
    scorer.go.set()
    closing.join(10)
    assert not closing.is_alive()
    assert not any(thread.is_alive() for thread in scorer.threads)
    assert [type(future.exception()) for future in futures] == [EngineUnavailableError] * 3
    assert len(scorer.batches) == 1
    with pytest.raises(RuntimeError, match="closed"):
        shared.score([_step("x")])


def test_a_forked_child_scores_with_threads_of_its_own(make: Make) -> None:
    scorer = Lengths()
    scorer.go.clear()
    shared = make(scorer)
    held = shared.submit([_step("x")])
    assert scorer.entered.wait(10)
    child = os.fork()
    if not child:
        try:
            scorer.go = threading.Event()
            scorer.go.set()
            os._exit(0 if _values(shared.score([_step("xx")])) == [2] else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    scorer.go.set()
    assert _values(held.result()) == [1]
