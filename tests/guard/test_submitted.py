"""Scorers that work on their own: no thread waits for them, and whoever stops waiting stops them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from concurrent.futures import CancelledError, Future
from typing import Any

import pytest
from guard.agents import ByArgument, How, act, enforced, run, say, simple

from pa_middleware import Step, StepScore
from pa_middleware.guard.timed import ScorerCalls
from pa_middleware.guard.way import run_immediately
from pa_middleware.scoring.errors import ScoringError, ScoringTimeoutError
from pa_middleware.scoring.scorer import Submits

BOTH = pytest.mark.parametrize("how", ["sync", "async"])
SOON = 0.05


class OnItsOwn(ByArgument):
    """Answers at once, unless it is made to hang or to fail."""

    def __init__(self, failure: BaseException | None = None, *, hangs: bool = False) -> None:
        super().__init__()
        self.futures: list[Future[list[StepScore]]] = []
        self.threads: set[threading.Thread] = set()
        self.failure, self.hangs = failure, hangs

    def submit(self, steps: Sequence[Step]) -> Future[list[StepScore]]:
        self.threads.add(threading.current_thread())
        future: Future[list[StepScore]] = Future()
        self.futures.append(future)
        if self.failure is not None:
            future.set_exception(self.failure)
        elif not self.hangs:
            future.set_result(self.score(steps))
        return future


def _ask(scorer: Submits, limit: float | None, how: How) -> list[StepScore]:
    calls = ScorerCalls(scorer, limit)  # type: ignore[arg-type]
    steps = [Step((), [act(1.0)])]
    return run_immediately(calls.now(steps)) if how == "sync" else asyncio.run(calls.aside(steps))


@BOTH
@pytest.mark.parametrize("limit", [None, 60.0])
def test_it_is_called_in_the_callers_thread_and_no_other_waits(how: How, limit: float | None) -> None:
    scorer = OnItsOwn()
    [step] = _ask(scorer, limit, how)
    assert [candidate.score for candidate in step.candidates] == [1.0]
    assert scorer.threads == {threading.current_thread()}


@BOTH
def test_one_that_is_late_is_cancelled(how: How) -> None:
    scorer = OnItsOwn(hangs=True)
    with pytest.raises(ScoringTimeoutError, match=r"within 0\.05 s"):
        _ask(scorer, SOON, how)
    assert scorer.futures[0].cancelled()


@BOTH
@pytest.mark.parametrize("failure", [ScoringError("broken"), TimeoutError("its own"), KeyError("x")])
def test_what_it_raises_is_raised(how: How, failure: Exception) -> None:
    with pytest.raises(type(failure)) as raised:
        _ask(OnItsOwn(failure), 60.0, how)
    assert str(raised.value) == str(failure)


@BOTH
def test_a_cancellation_of_its_own_is_an_error_and_cancels_nobody(how: How) -> None:
    with pytest.raises(ScoringError, match="raised CancelledError"):
        _ask(OnItsOwn(CancelledError()), None, how)


def test_a_caller_that_is_cancelled_cancels_the_call() -> None:
    scorer = OnItsOwn(hangs=True)

    async def cancel_it() -> None:
        task = asyncio.ensure_future(ScorerCalls(scorer, None).aside([Step((), [act(1.0)])]))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled()

    asyncio.run(cancel_it())
    assert scorer.futures[0].cancelled()


@BOTH
def test_a_guard_asks_it_and_decides_as_with_any_other(how: How) -> None:
    builder, world = simple([act(-1.0), act(2.0), say(1.0)], enforced(threshold=0.0, draws=2), OnItsOwn())
    state: dict[str, Any] = run(builder.compile(), how=how)
    assert world.ran == [2.0]
    assert [record["decision"] for record in state["pa"]] == ["pass", "pass"]


@BOTH
@pytest.mark.parametrize("failure", [None, ScoringError("no engine")])
def test_nothing_runs_when_it_hangs_or_fails(how: How, failure: Exception | None) -> None:
    rules = enforced(threshold=0.0, scoring_timeout=SOON)
    builder, world = simple([act(2.0), say(1.0)], rules, OnItsOwn(failure, hangs=failure is None))
    state = run(builder.compile(), how=how)
    assert world.ran == []
    assert [(record["decision"], record["reason"]) for record in state["pa"]] == [("abstain", "scorer_error")]
