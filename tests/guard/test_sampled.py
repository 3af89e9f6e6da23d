"""`stop_at` reckons with samples at temperature 1: where messages tell of others, all draws are made."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from guard.agents import How, Scripted, World, agent_node, build, enforced, run, say
from guard.test_enough import Known, Pair
from langchain_core.messages import AIMessage

from pa_middleware import Guard, Rules
from pa_middleware.scoring.generated import GENERATED, Generated, with_generated

PAIR = Pair([0.9, 0.05, 0.05], [0.9, 0.05, 0.05])


def told(sampling: str | None) -> AIMessage:
    """The likeliest answer, as a model that tells how it sampled; None: one that tells nothing."""
    answer = say(0)
    return answer if sampling is None else with_generated(answer, Generated((1, 2), sampling=sampling))


def rules(by: Any) -> Rules:
    return enforced(draws=4, select="best", stop_at=0.3, drawn_by=by)


def draws_made(guard: Guard, *samplings: str | None, how: How = "sync") -> int:
    model = Scripted(replies=[told(samplings[min(number, len(samplings) - 1)]) for number in range(4)])
    (record,) = run(build(guard, agent_node(model, how=how), World()).compile(), how=how)["pa"]
    assert len(record["candidates"]) == len(model.asked)
    return len(model.asked)


@pytest.mark.parametrize("how", ["sync", "async"])
@pytest.mark.parametrize("by", ["policy", "reference"])
@pytest.mark.parametrize(
    "sampling", [None, "", "temperature=1", "temperature=1.0,top_p=1,top_k=-1", "min_p=0,presence_penalty=0,top_k=0"]
)
def test_a_step_stops_early_where_nothing_else_is_told(
    sampling: str | None, by: Any, how: How, caplog: pytest.LogCaptureFixture
) -> None:
    assert draws_made(Guard(Known(PAIR), rules(by)), sampling, how=how) == 1
    assert caplog.messages == []


@pytest.mark.parametrize("by", ["policy", "reference"])
@pytest.mark.parametrize(
    "sampling",
    ["temperature=0.7", "temperature=0", "temperature=1.5,top_p=0.9", "repetition_penalty=1.1,temperature=1",
     "logit_bias=44136fa3,temperature=1", "logit_bias=12345678", "temperature=warm", "anything"],
)  # fmt: skip
def test_all_draws_are_made_where_the_bound_does_not_hold(sampling: str, by: Any) -> None:
    assert draws_made(Guard(Known(PAIR), rules(by)), sampling) == 4


@pytest.mark.parametrize("sampling", ["temperature=1,top_p=0.9", "top_k=20", "min_p=0.1,temperature=1"])
def test_a_tail_that_is_cut_off_keeps_the_bound_for_the_policys_draws_only(sampling: str) -> None:
    assert draws_made(Guard(Known(PAIR), rules("policy")), sampling) == 1
    assert draws_made(Guard(Known(PAIR), rules("reference")), sampling) == 4


def test_one_draw_of_another_kind_is_enough() -> None:
    strict = enforced(draws=4, select="best", stop_at=0.2, drawn_by="policy")
    assert draws_made(Guard(Known(PAIR), strict), "temperature=1") == 2
    assert draws_made(Guard(Known(PAIR), strict), "temperature=0.7", "temperature=1") == 4


def test_a_guard_says_so_once_with_what_it_found_and_what_it_needs(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    guard = Guard(Known(PAIR), rules("reference"))
    for sampling in ("temperature=0.7", "temperature=0.7", "temperature=0.5"):
        draws_made(guard, sampling)
    (said,) = caplog.messages
    assert said == (
        "stop_at=0.3 reckons with samples at temperature 1, and draws are sampled with temperature=0.7: all draws are "
        "made. Have the model sample at temperature 1, without penalties and without top_k, top_p and min_p, or leave "
        "stop_at out"
    )


def test_what_is_told_is_taken_off_the_message_all_the_same() -> None:
    guard = Guard(Known(PAIR), rules("policy"))
    model = Scripted(replies=[told("temperature=0.7")] * 4)
    final = run(build(guard, agent_node(model), World()).compile())
    assert GENERATED not in final["messages"][-1].response_metadata
