"""What becomes of the guard's workers when a scorer hangs, and who waits for one how long."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from guard.agents import How
from guard.held import BOTH, PATIENCE, SOON_ENOUGH, Does, Held, answer, ask, ask_all, fill, go_home, steps, workers

from pa_middleware.guard.timed import WORKERS, ScorerCalls
from pa_middleware.scoring.errors import ScoringTimeoutError

pytestmark = pytest.mark.usefixtures("workers_go_home")


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
