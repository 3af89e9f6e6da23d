"""The guard's calls of its scorer: who runs them, how long anybody waits, and what becomes of a scorer that hangs."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import subprocess
import sys
import textwrap
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from typing import Any

import pytest
from guard.agents import ByArgument, How, act, enforced, run, say, simple
from langgraph.config import get_config
from langgraph.errors import GraphInterrupt

from pa_middleware import Step, StepScore
from pa_middleware.guard.timed import WORKERS, ScorerCalls
from pa_middleware.guard.way import run_immediately
from pa_middleware.scoring.errors import ScoringError, ScoringTimeoutError

PATIENCE = 60.0
"""A limit that no test reaches unless it fails."""
SOON = 0.05
SOON_ENOUGH = 0.5
"""A limit that is reached by a scorer that hangs, and by no other."""

BOTH = pytest.mark.parametrize("how", ["sync", "async"])
LIMITS = pytest.mark.parametrize("limit", [None, PATIENCE])
VARIABLE: ContextVar[str] = ContextVar("VARIABLE", default="unset")


class Held:
    """Answers a step with the number in its conversation; steps named `held ...` not before it is let go."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.entered = threading.Semaphore(0)
        self.go = threading.Event()
        self.threads: set[threading.Thread] = set()
        self.meanwhile: Callable[[], None] = lambda: None

    def score(self, steps: Sequence[Step]) -> list[StepScore]:
        (step,) = steps
        name = str(step.conversation)
        self.seen.append(name)
        self.threads.add(threading.current_thread())
        self.entered.release()
        self.meanwhile()
        if name.startswith("held"):
            assert self.go.wait(PATIENCE)
        return answer(float(name.split()[-1]))

    def let_go(self) -> None:
        """Let all held steps be answered, and wait until every worker has gone home."""
        self.go.set()
        go_home()


class Does:
    """Calls a function instead of scoring."""

    def __init__(self, function: Callable[[], object]) -> None:
        self._function = function

    def score(self, steps: Sequence[Step]) -> list[StepScore]:
        self._function()
        return answer(1.0)


def answer(number: float) -> list[StepScore]:
    return [StepScore((), number)]


def steps(name: str) -> list[Step]:
    return [Step((), (), conversation=name)]


def ask(calls: ScorerCalls, name: str = "1", how: How = "sync") -> list[StepScore]:
    if how == "sync":
        return run_immediately(calls.now(steps(name)))
    return asyncio.run(calls.aside(steps(name)))


async def ask_all(calls: ScorerCalls, names: Sequence[str]) -> list[Any]:
    return await asyncio.gather(*(calls.aside(steps(name)) for name in names), return_exceptions=True)


def fill(calls: ScorerCalls) -> list[Any]:
    """Give every worker a step that is held, until its time is over."""
    return asyncio.run(ask_all(calls, [f"held {index}" for index in range(WORKERS)]))


def workers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "pa-scoring"]


def go_home() -> None:
    for thread in workers():
        thread.join(PATIENCE)
    assert workers() == []


@pytest.fixture
def held() -> Iterator[Held]:
    scorer = Held()
    yield scorer
    scorer.let_go()


@pytest.fixture(autouse=True)
def _threads_end() -> Iterator[None]:
    yield
    go_home()


@LIMITS
@BOTH
def test_the_answer_is_the_scorers(held: Held, how: How, limit: float | None) -> None:
    calls = ScorerCalls(held, limit)
    assert [ask(calls, f"{number}", how) for number in range(20)] == [answer(float(number)) for number in range(20)]


def test_without_a_limit_a_sync_node_scores_in_its_own_thread_and_an_async_node_in_another(held: Held) -> None:
    calls = ScorerCalls(held, None)
    ask(calls, how="sync")
    assert held.threads == {threading.current_thread()}
    held.threads.clear()
    ask(calls, how="async")
    assert threading.current_thread() not in held.threads


@BOTH
def test_threads_of_calls_with_a_limit_end_when_nothing_is_left_to_do(held: Held, how: How) -> None:
    ask(ScorerCalls(held, PATIENCE), how=how)
    go_home()
    (thread,) = held.threads
    assert (thread.name, thread.daemon) == ("pa-scoring", True)


@BOTH
def test_a_late_scorer_is_an_error_that_says_the_limit_and_what_to_do(held: Held, how: How) -> None:
    with pytest.raises(ScoringTimeoutError, match=r"within 0\.05 s; .*Rules\(scoring_timeout=\.\.\.\)") as late:
        ask(ScorerCalls(held, SOON), "held 1", how)
    assert isinstance(late.value, ScoringError)
    assert late.value.__suppress_context__


@BOTH
def test_a_late_answer_is_nobodys(held: Held, how: How) -> None:
    calls = ScorerCalls(held, SOON_ENOUGH)
    with pytest.raises(ScoringTimeoutError):
        ask(calls, "held 1", how)
    (late,) = held.threads

    def while_the_next_call_runs() -> None:
        held.go.set()
        late.join(PATIENCE)
        assert not late.is_alive()

    held.meanwhile = while_the_next_call_runs
    assert ask(calls, "2", how) == answer(2.0)
    assert held.seen == ["held 1", "2"]


@pytest.mark.parametrize("caller", ["threads", "tasks"])
def test_a_stuck_scorer_never_holds_more_than_all_workers(held: Held, caller: str) -> None:
    calls = ScorerCalls(held, SOON_ENOUGH)
    names = [f"held {index}" for index in range(100)]

    def one(name: str) -> Exception | None:
        try:
            ask(calls, name)
        except ScoringTimeoutError as error:
            return error
        return None

    if caller == "threads":
        with ThreadPoolExecutor(len(names)) as pool:
            results = list(pool.map(one, names))
    else:
        results = asyncio.run(ask_all(calls, names))
    assert {type(result) for result in results} == {ScoringTimeoutError}
    assert len(workers()) == len(held.seen) == WORKERS == 8


def test_waiting_for_a_worker_counts_and_a_call_that_is_late_before_it_began_never_runs(held: Held) -> None:
    calls = ScorerCalls(held, SOON_ENOUGH)
    *begun, queued = asyncio.run(ask_all(calls, [f"held {index}" for index in range(WORKERS)] + ["99"]))
    assert {str(error)[:28] for error in begun} == {"the scorer gave no answer wi"}
    assert "the scorer was not called: earlier calls held all 8 workers for 0.5 s" in str(queued)
    held.let_go()
    assert len(held.seen) == WORKERS
    assert "99" not in held.seen


def test_a_late_call_never_begins_though_its_caller_had_no_time_to_leave(held: Held) -> None:
    calls = ScorerCalls(held, SOON_ENOUGH)

    async def main() -> list[Any]:
        names = [f"held {index}" for index in range(WORKERS)] + ["99"]
        tasks = [asyncio.ensure_future(calls.aside(steps(name))) for name in names]
        await asyncio.sleep(0)
        with pytest.raises(ScoringTimeoutError, match="was not called"):
            ask(calls, "100")  # the loop stands still meanwhile
        held.let_go()
        return await asyncio.gather(*tasks, return_exceptions=True)

    assert "was not called" in str(asyncio.run(main())[-1])
    assert len(held.seen) == WORKERS


def test_a_queued_call_runs_as_soon_as_a_worker_is_free(held: Held) -> None:
    calls = ScorerCalls(held, PATIENCE)

    async def main() -> list[Any]:
        asked = asyncio.ensure_future(ask_all(calls, [f"held {index}" for index in range(WORKERS)] + ["8", "9"]))
        await asyncio.to_thread(lambda: [held.entered.acquire() for _ in range(WORKERS)])
        assert len(held.seen) == WORKERS
        held.go.set()
        return await asked

    assert asyncio.run(main()) == [answer(float(index)) for index in range(WORKERS + 2)]


def test_with_every_worker_stuck_a_call_fails_at_once(held: Held) -> None:
    calls = ScorerCalls(held, SOON_ENOUGH)
    fill(calls)
    message = r"8 earlier calls of the scorer have not come back, each after more than 0\.5 s, .*scoring_timeout"
    with pytest.raises(ScoringTimeoutError, match=message):
        calls.now(steps("1")).send(None)
    with pytest.raises(ScoringTimeoutError, match=message):
        calls.aside(steps("1")).send(None)  # without a loop: nothing is waited for
    assert len(held.seen) == WORKERS


@BOTH
def test_it_recovers_when_stuck_calls_come_back(held: Held, how: How) -> None:
    calls = ScorerCalls(held, SOON_ENOUGH)
    fill(calls)
    held.let_go()
    assert ask(calls, "1", how) == answer(1.0)


@BOTH
def test_it_recovers_when_stuck_calls_fail_at_last(how: How) -> None:
    go = threading.Event()

    def fail() -> None:
        assert go.wait(PATIENCE)
        raise ValueError("late")

    calls = ScorerCalls(Does(fail), SOON_ENOUGH)
    assert {type(error) for error in fill(calls)} == {ScoringTimeoutError}
    go.set()
    go_home()
    with pytest.raises(ValueError, match="late"):
        ask(calls, how=how)


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


@LIMITS
def test_the_event_loop_goes_on_while_the_scorer_works(limit: float | None) -> None:
    go = threading.Event()

    def wait() -> None:
        assert go.wait(PATIENCE)

    async def main() -> list[StepScore]:
        async def other() -> None:
            go.set()

        found, _ = await asyncio.gather(ScorerCalls(Does(wait), limit).aside(steps("1")), other())
        return found

    assert asyncio.run(main()) == answer(1.0)


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


def test_an_answer_after_its_event_loop_is_gone_disturbs_nobody(held: Held, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ScoringTimeoutError):
        ask(ScorerCalls(held, SOON), "held 1", "async")
    held.let_go()
    assert caplog.records == []


def test_threads_and_event_loops_side_by_side_each_get_their_own_answers(held: Held) -> None:
    calls = ScorerCalls(held, PATIENCE)

    def conversation(index: int) -> bool:
        numbers = [100 * index + k for k in range(25)]
        expected = [answer(float(number)) for number in numbers]
        if index % 2:
            return [ask(calls, str(number)) for number in numbers] == expected
        return asyncio.run(ask_all(calls, [str(number) for number in numbers])) == expected

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(conversation, range(8)))
    assert len(held.seen) == 200


STUCK = """
    import asyncio, threading
    from pa_middleware.guard.way import run_immediately
    from pa_middleware.guard.timed import ScorerCalls
    from pa_middleware.scoring.errors import ScoringTimeoutError

    class Stuck:
        def score(self, steps):
            threading.Event().wait()

    for ask in (lambda calls: run_immediately(calls.now([])), lambda calls: asyncio.run(calls.aside([]))):
        try:
            ask(ScorerCalls(Stuck(), 0.05))
        except ScoringTimeoutError:
            print("late")
"""


def test_a_process_with_a_stuck_scorer_exits() -> None:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(STUCK)], capture_output=True, text=True, check=True, timeout=2 * PATIENCE
    )
    assert (done.stdout, done.stderr) == ("late\nlate\n", "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_has_workers_of_its_own(held: Held) -> None:
    calls = ScorerCalls(held, SOON_ENOUGH)
    fill(calls)
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if ask(calls, "1") == answer(1.0) else 2)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    with pytest.raises(ScoringTimeoutError, match="8 earlier calls"):
        ask(calls, "1")


class Hanging(ByArgument):
    """Scores when it is let go, and notes the run it is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()
        self.runs: list[str] = []

    def score(self, steps: Sequence[Step]) -> list[StepScore]:
        self.runs.append(get_config()["configurable"]["run"])
        assert self.go.wait(PATIENCE)
        return super().score(steps)


@BOTH
def test_a_guarded_agent_treats_a_late_scorer_as_failed_and_goes_on_when_it_is_back(how: How) -> None:
    scorer = Hanging()
    rules = enforced(threshold=0.0, scoring_timeout=SOON_ENOUGH)
    builder, world = simple([act(1), act(2), say(1)], rules, scorer)
    graph = builder.compile()

    def records(run_name: str) -> list[Any]:
        found: list[Any] = run(graph, config={"configurable": {"run": run_name}}, how=how)["pa"]
        return found

    (late,) = records("first")
    assert (late["decision"], late["reason"], world.ran) == ("abstain", "scorer_error", [])
    assert late["error"].startswith("ScoringTimeoutError: the scorer gave no answer within 0.5 s")
    scorer.go.set()
    go_home()
    assert [record["decision"] for record in records("second")] == ["pass", "pass"]
    assert world.ran == [2.0]
    assert scorer.runs == ["first", "second", "second"]
