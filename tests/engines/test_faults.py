"""Whatever an engine does, a guarded step ends as the rules say, and nothing runs unscored."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import wait
from typing import Any

import pytest
from engines.faulty import FAULTS, Fault, Faulty
from engines.taxi_steps import taxi_step
from engines.vllm_server import VLLMServer
from guard.agents import How, act, enforced, run, say, simple
from langgraph.checkpoint.memory import InMemorySaver
from pa_vllm import VLLM

from pa_middleware import ModelPair
from pa_middleware.engines.breaker import Breaker
from pa_middleware.engines.errors import EngineError, EngineUnavailableError
from pa_middleware.engines.pair import EnginePair

Servers = tuple[VLLMServer, VLLMServer]
Standing = tuple[EnginePair, Faulty]
BOTH = pytest.mark.parametrize("how", ["sync", "async"])
EACH = pytest.mark.parametrize("fault", FAULTS)
SOON = 0.3
"""Seconds that an engine is given; it takes a hundredth of that."""
PASSES = -1e6
"""A threshold that every score is above."""
_AGAIN: list[float] = []
"""A number for each attempt behind a first one."""


@pytest.fixture(scope="module")
def standing(local: ModelPair) -> Iterator[Standing]:
    """A pair that was sound when it was made, and the proxy before its policy."""
    with (
        VLLMServer(local.policy.model, local.tokenizer, name="policy") as policy,
        VLLMServer(local.reference.model, local.tokenizer, name="reference") as reference,
        Faulty(policy.url, swapped=reference.url) as proxy,
    ):
        client: dict[str, Any] = {"attempts": 2, "sleep": _at_once, "breaker": Breaker(failures=1_000_000)}
        with EnginePair(
            VLLM(proxy.url, "policy", way="completions", **client),
            VLLM(reference.url, "reference", way="completions", **client),
            local.tokenizer,
            recheck=0.0,
        ) as pair:
            yield pair, proxy


@pytest.fixture
def sound(standing: Standing) -> Iterator[Standing]:
    """The same, with no fault yet."""
    yield standing
    standing[1].fault = standing[1].left = None


async def _at_once(seconds: float) -> None:
    """No time passes between attempts."""
    _AGAIN.append(seconds)


@EACH
@BOTH
def test_a_fault_ends_in_the_rules_decision_and_nothing_runs(sound: Standing, fault: Fault, how: How) -> None:
    pair, proxy = sound
    builder, world = simple([act(1.0), say(1.0)], enforced(threshold=PASSES, scoring_timeout=SOON), pair)
    proxy.fault = fault
    state = run(builder.compile(), how=how)
    [record] = state["pa"]
    assert (record["decision"], record["reason"]) == ("abstain", "scorer_error")
    assert record["error"]
    assert world.ran == []
    assert state["messages"][-1].text.startswith("I am not confident enough")


@EACH
def test_a_human_is_asked_where_the_rules_say_so_and_nothing_runs_before(sound: Standing, fault: Fault) -> None:
    pair, proxy = sound
    rules = enforced(threshold=PASSES, scoring_timeout=SOON, on_scorer_error="escalate")
    builder, world = simple([act(1.0), say(1.0)], rules, pair)
    proxy.fault = fault
    state = run(builder.compile(InMemorySaver()), config={"configurable": {"thread_id": "t"}})
    assert "__interrupt__" in state
    assert world.ran == []


@EACH
def test_what_runs_unscored_because_the_rules_say_so_says_so(sound: Standing, fault: Fault) -> None:
    pair, proxy = sound
    rules = enforced(threshold=PASSES, scoring_timeout=SOON, on_scorer_error="flag")
    builder, world = simple([act(1.0), say(1.0)], rules, pair)
    proxy.fault = fault
    state = run(builder.compile())
    assert [(record["decision"], record["score"]) for record in state["pa"]] == [("flag", None)] * 2
    assert world.ran == [1.0]


@EACH
def test_when_the_engine_is_well_again_the_next_step_is_scored(sound: Standing, local: ModelPair, fault: Fault) -> None:
    pair, proxy = sound
    proxy.fault = fault
    assert wait([pair.submit([taxi_step(1)])], SOON)
    proxy.fault = None
    [ours], [theirs] = pair.score([taxi_step(1)]), local.score([taxi_step(1)])
    assert ours.candidates[0].score == pytest.approx(theirs.candidates[0].score, abs=1e-3)


@pytest.mark.parametrize("fault", ["reset", "429", "500", "half a body"])
def test_a_fault_that_passes_costs_one_more_attempt_and_no_score(sound: Standing, fault: Fault) -> None:
    pair, proxy = sound
    before = proxy.seen
    proxy.fault, proxy.left = fault, 1
    assert len(pair.score([taxi_step(1)])) == 1
    assert proxy.seen - before == 3, "the step, the known question, and one of them again"


@pytest.mark.parametrize("fault", ["no JSON", "a token too few", "NaN", "redirect", "swap"])
def test_an_answer_that_is_wrong_is_not_asked_for_again(sound: Standing, fault: Fault) -> None:
    pair, proxy = sound
    proxy.fault = fault
    # Requests are not counted: one that was cancelled in an earlier step may arrive in this one.
    _AGAIN.clear()
    with pytest.raises(EngineError):
        pair.score([taxi_step(1)])
    assert not _AGAIN


@BOTH
def test_an_engine_that_stalls_is_given_no_more_time_than_the_rules_say(sound: Standing, how: How) -> None:
    pair, proxy = sound
    builder, _ = simple([act(1.0)], enforced(threshold=PASSES, scoring_timeout=SOON), pair)
    proxy.fault = "stall"
    [record] = run(builder.compile(), how=how)["pa"]
    assert record["error"].startswith("ScoringTimeoutError: the scorer gave no answer within 0.3 s")


def test_an_engine_that_stalls_is_given_no_more_time_than_the_client_has(servers: Servers, local: ModelPair) -> None:
    with Faulty(servers[0].url) as proxy:
        sources = (VLLM(proxy.url, "policy", way="completions", timeout=2.0), VLLM(servers[1].url, "reference"))
        with EnginePair(*sources, local.tokenizer) as pair:
            proxy.fault = "stall"
            with pytest.raises(EngineUnavailableError, match="gave no answer within 2 s"):
                pair.score([taxi_step(1)])


def test_an_engine_that_failed_again_and_again_is_left_alone_and_steps_fail_at_once(
    servers: Servers, local: ModelPair
) -> None:
    with Faulty(servers[0].url) as proxy:
        sources = (VLLM(proxy.url, "policy", way="completions", attempts=1), VLLM(servers[1].url, "reference"))
        with EnginePair(*sources, local.tokenizer) as pair:
            proxy.fault = "500"
            for _ in range(5):
                with pytest.raises(EngineUnavailableError, match="status 500: broken"):
                    pair.score([taxi_step(1)])
            before = proxy.seen
            with pytest.raises(EngineUnavailableError, match="failed again and again"):
                pair.score([taxi_step(1)])
            assert proxy.seen == before
