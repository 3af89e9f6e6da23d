"""A scorer that fails or breaks its protocol: the rules' answer, a degraded state on record, nothing run unscored."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from guard.agents import (
    ByArgument,
    Failing,
    How,
    Scripted,
    World,
    act,
    agent_node,
    build,
    enforced,
    run,
    say,
    simple,
)
from langchain_core.messages import AIMessage

from pa_middleware import Guard, GuardError, Step, StepScore
from pa_middleware.scoring.errors import UnscorableActionError
from pa_middleware.scoring.scorer import CallScore, CandidateScore


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise OSError


def answered(score: Any = 1.0, calls: Any = None, **changes: Any) -> Any:
    """A scorer's answer that is right but for one thing."""

    def answer(steps: Sequence[Step]) -> list[StepScore]:
        own = tuple(CallScore(call["id"], call["name"], 1.0, 1) for call in steps[0].candidates[0].tool_calls)
        parts = {"policy_log_prob": -1.0, "reference_log_prob": -1.0, "token_log_ratios": (1.0,), **changes}
        return [StepScore((CandidateScore(score, calls=own if calls is None else calls, **parts),))]

    return answer


FAILURES: dict[str, Any] = {
    "Exception": ValueError("no"),
    "KeyError": KeyError("no"),
    "MemoryError": MemoryError(),
    "StopIteration": StopIteration(),
    "TimeoutError": TimeoutError(),
    "no message": Unspeakable(),
    "surrogates": ValueError("\ud800" * 9999),
    "nan": answered(math.nan),
    "inf": answered(math.inf),
    "minus inf": answered(-math.inf),
    "int": answered(1),
    "bool": answered(True),
    "text": answered("1.0"),
    "none": answered(None),
    "float64": answered(np.float64(1.0)),
    "float32": answered(np.float32(1.0)),
    "nan log-prob": answered(policy_log_prob=math.nan),
    "float64 log-prob": answered(reference_log_prob=np.float64(-1.0)),
    "log-ratios without a length": answered(token_log_ratios=iter(())),
    "nan in a call": answered(calls=(CallScore("c", "act", math.nan, 1),)),
    "int in a call": answered(calls=(CallScore("c", "act", 1, 1),)),
    "too many calls": answered(calls=(CallScore("c", "act", 1.0, 1),) * 2),
    "another call": answered(calls=(CallScore("c", "other", 1.0, 1),)),
    "calls of another type": answered(calls=(1.0,)),
    "nothing": [],
    "no list": None.__class__,
    "a number": 1.0,
    "two steps": [StepScore((CandidateScore(1.0, -1.0, -1.0, (1.0,)),))] * 2,
    "two candidates": [StepScore((CandidateScore(1.0, -1.0, -1.0, (1.0,)),) * 2)],
    "no candidate": [StepScore(())],
    "floats for candidates": [StepScore((1.0,))],  # type: ignore[arg-type]
    "a mapping": {0: StepScore(())},
}


@pytest.mark.parametrize("how", ["sync", "async"])
@pytest.mark.parametrize("name", FAILURES)
def test_nothing_runs_when_the_scorer_fails(name: str, how: How) -> None:
    builder, world = simple([act(1)], enforced(threshold=0.0), Failing(FAILURES[name]))
    final = run(builder.compile(), how=how)
    (record,) = final["pa"]
    assert world.ran == []
    assert (record["decision"], record["reason"], record["score"]) == ("abstain", "scorer_error", None)
    assert record["error"]
    assert len(record["error"]) < 6000
    assert final["messages"][-1].text == enforced().abstain_message


@pytest.mark.parametrize("how", ["sync", "async"])
@pytest.mark.parametrize("name", FAILURES)
def test_under_flag_actions_run_unscored_and_say_so(name: str, how: How) -> None:
    rules = enforced(threshold=0.0, draws=2, on_scorer_error="flag")
    builder, world = simple([act(1), say(1)], rules, Failing(FAILURES[name], ValueError("still")))
    final = run(builder.compile(), how=how)
    assert world.ran == [1.0]
    for record in final["pa"]:
        assert (record["decision"], record["reason"], record["score"]) == ("flag", "scorer_error", None)
        assert record["error"]
        assert len(record["candidates"]) == 1, "nobody draws again for a scorer that fails"


def test_the_scorer_may_recover() -> None:
    builder, world = simple([act(1), act(-1), act(2), say(1)], enforced(threshold=0.0, draws=2, on_scorer_error="flag"),
                            Failing(ValueError("once"), None))  # fmt: skip
    decisions = [(record["decision"], record["error"]) for record in run(builder.compile())["pa"]]
    assert decisions == [("flag", "ValueError: once"), ("pass", None), ("pass", None)]
    assert world.ran == [1.0, 2.0]


def test_under_flag_an_action_known_to_be_low_does_not_run_in_place_of_an_unscored_one() -> None:
    rules = enforced(threshold=0.0, draws=2, on_scorer_error="flag")
    builder, world = simple([act(-1), act(-5), say(1)], rules, Failing(None, ValueError("late"), None))
    record = run(builder.compile())["pa"][0]
    assert (record["decision"], record["selected"], world.ran) == ("flag", 1, [-5.0])


def test_under_flag_an_action_that_cannot_be_scored_does_not_run() -> None:
    rules = enforced(threshold=0.0, draws=2, on_scorer_error="flag")
    builder, world = simple(
        [act(-1), act(5), say(1)], rules, Failing(UnscorableActionError("empty"), ValueError("late"), None)
    )
    assert run(builder.compile())["pa"][0]["selected"] == 1
    assert world.ran == [5.0]


def test_a_history_that_fails_counts_as_the_scorer_failing() -> None:
    def broken(state: Any) -> Any:
        raise KeyError("no history")

    builder, world = simple([act(1)], enforced(threshold=0.0), history=broken)
    (record,) = run(builder.compile())["pa"]
    assert (record["decision"], record["error"]) == ("abstain", "KeyError: 'no history'")
    assert world.ran == []


def test_scores_without_calls_of_their_own_are_enough_and_then_a_low_action_is_blocked_whole() -> None:
    builder, world = simple(
        [act(1, 2), say(1)], enforced(threshold=0.0, on_low="block"), Failing(answered(-1.0, calls=()), None)
    )
    final = run(builder.compile())
    assert world.ran == []
    assert [call["decision"] for call in final["pa"][0]["calls"]] == ["block", "block"]


def test_what_the_node_itself_raises_passes_through() -> None:
    def agent(state: Any) -> Any:
        raise ZeroDivisionError("the node's own")

    world = World()
    graph = build(Guard(ByArgument(), enforced(threshold=0.0, draws=2)), agent, world).compile()
    with pytest.raises(ZeroDivisionError, match="the node's own"):
        run(graph)


class Coroutine:
    async def score(self, steps: Sequence[Step]) -> list[StepScore]:
        raise NotImplementedError


@pytest.mark.parametrize("scorer", [None, 1.0, ByArgument, lambda steps: [], Coroutine()])
def test_what_is_no_scorer_is_refused(scorer: Any) -> None:
    with pytest.raises(GuardError, match="scorer is"):
        Guard(scorer, enforced())


def test_what_are_no_rules_is_refused() -> None:
    wrong: Any = {"threshold": 0.0}
    with pytest.raises(GuardError, match="rules is"):
        Guard(ByArgument(), wrong)


def test_an_error_of_an_earlier_draw_does_not_degrade_a_step_that_passes() -> None:
    world = World()
    model = Scripted(replies=[AIMessage(""), act(1), say(1)])
    guard = Guard(ByArgument(), enforced(threshold=0.0, draws=2))
    record = run(build(guard, agent_node(model), world).compile())["pa"][0]
    assert (record["decision"], record["error"]) == ("pass", None)
    assert record["candidates"][0]["error"].startswith("UnscorableActionError: the action is empty")
