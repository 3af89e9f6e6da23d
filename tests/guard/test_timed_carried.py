"""What a call of the scorer carries: the caller's context to it, and its errors back, whoever runs it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import sys
import weakref
from contextvars import ContextVar

import pytest
from guard.agents import How
from guard.held import BOTH, LIMITS, PATIENCE, Does, Held, ask, go_home, steps
from langgraph.errors import GraphInterrupt

from pa_middleware.guard.timed import ScorerCalls
from pa_middleware.scoring.errors import ScoringError

pytestmark = pytest.mark.usefixtures("workers_go_home")
VARIABLE: ContextVar[str] = ContextVar("VARIABLE", default="unset")


@LIMITS
@BOTH
def test_the_scorer_sees_the_callers_context(how: How, limit: float | None) -> None:
    seen: list[str] = []
    calls = ScorerCalls(Does(lambda: seen.append(VARIABLE.get())), limit)
    for value in ("one", "two"):
        token = VARIABLE.set(value)
        ask(calls, how=how)
        VARIABLE.reset(token)
    assert seen == ["one", "two"]


@BOTH
def test_under_a_limit_the_scorer_changes_no_callers_context(how: How) -> None:
    ask(ScorerCalls(Does(lambda: VARIABLE.set("changed")), PATIENCE), how=how)
    assert VARIABLE.get() == "unset"


ERRORS = [ValueError("no"), TimeoutError("its own"), ScoringError("no"), GraphInterrupt(()), SystemError(), OSError(1)]


@LIMITS
@BOTH
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_what_the_scorer_raises_arrives_as_it_is(error: Exception, how: How, limit: float | None) -> None:
    def fail() -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        ask(ScorerCalls(Does(fail), limit), how=how)
    assert caught.value is error


@BOTH
def test_an_error_that_is_forgotten_keeps_nothing_of_the_scorers_alive(how: How) -> None:
    kept: list[weakref.ref[Held]] = []

    def fail() -> None:
        tensors = Held()
        kept.append(weakref.ref(tensors))
        raise ValueError("no")

    async def main() -> None:
        calls = ScorerCalls(Does(fail), PATIENCE)
        with contextlib.suppress(ValueError):
            await (calls.now(steps("1")) if how == "sync" else calls.aside(steps("1")))
        go_home()
        assert kept[0]() is None

    gc.disable()
    try:
        asyncio.run(main())
    finally:
        gc.enable()


@LIMITS
def test_an_error_that_is_no_exception_arrives_too(limit: float | None) -> None:
    with pytest.raises(SystemExit, match="3"):
        ask(ScorerCalls(Does(lambda: sys.exit(3)), limit))


@LIMITS
@BOTH
def test_a_stop_iteration_is_a_scoring_error(how: How, limit: float | None) -> None:
    with pytest.raises(ScoringError, match="StopIteration") as caught:
        ask(ScorerCalls(Does(lambda: next(iter(()))), limit), how=how)
    assert isinstance(caught.value.__cause__, StopIteration)
