"""The guard's calls of its scorer: who runs them, how long anybody waits, and whose the answer is."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from guard.agents import ByArgument, How, act, enforced, run, say, simple
from guard.held import BOTH, LIMITS, PATIENCE, SOON, SOON_ENOUGH, Does, Held, answer, ask, ask_all, go_home, steps
from langgraph.config import get_config

from pa_middleware import Step, StepScore
from pa_middleware.guard.timed import ScorerCalls
from pa_middleware.scoring.errors import ScoringError, ScoringTimeoutError

pytestmark = pytest.mark.usefixtures("workers_go_home")


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
