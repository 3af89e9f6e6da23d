"""Whatever an engine does, a guarded step ends as the rules say, and nothing runs unscored."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import wait
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from engines.faulty import FAULTS, Fault, Faulty
from engines.taxi_steps import taxi_step
from engines.vllm_server import VLLMServer
from guard.agents import How, act, enforced, run, say, simple
from langgraph.checkpoint.memory import InMemorySaver
from pa_vllm import VLLM
from pa_vllm.ways import WayName

from pa_middleware import ModelPair
from pa_middleware.engines.breaker import Breaker
from pa_middleware.engines.errors import EngineError, EngineUnavailableError
from pa_middleware.engines.pair import EnginePair

Servers = tuple[VLLMServer, VLLMServer]
Standing = tuple[EnginePair, Faulty]
BOTH = pytest.mark.parametrize("how", ["sync", "async"])
EACH = pytest.mark.parametrize("fault", FAULTS)
SOON, LONG = 0.3, 60.0
"""Seconds that an engine is given that stalls, and one that does not, however slow the machine is."""
PASSES = -1e6
"""A threshold that every score is above."""
_AGAIN: list[float] = []
"""A number for each attempt behind a first one."""


@contextmanager
def _made(
    local: ModelPair, broken: str = "policy", way: WayName = "completions", **settings: Any
) -> Iterator[Standing]:
    """A pair that is sound when it is made, and the proxy before one of its models."""
    models = {"policy": local.policy.model, "reference": local.reference.model}
    with ExitStack() as stack:
        urls = {
            name: stack.enter_context(VLLMServer(model, local.tokenizer, name=name)).url
            for name, model in models.items()
        }
        # Under the same name, so that nothing but the numbers tells.
        other = next(model for name, model in models.items() if name != broken)
        swapped = stack.enter_context(VLLMServer(other, local.tokenizer, name=broken))
        proxy = stack.enter_context(Faulty(urls[broken], swapped=swapped.url))
        urls[broken] = proxy.url
        sources = [
            VLLM(url, name, way=way, attempts=2, sleep=_at_once, breaker=Breaker(failures=1_000_000))
            for name, url in urls.items()
        ]
        yield stack.enter_context(EnginePair(sources[0], sources[1], local.tokenizer, **settings)), proxy


@pytest.fixture(scope="module")
def standing(local: ModelPair) -> Iterator[Standing]:
    """A pair that asks its known questions beside every step, and the proxy before its policy."""
    with _made(local, recheck=0.0) as standing:
        yield standing


@pytest.fixture(
    scope="module", params=[("policy", "generate"), ("reference", "completions"), ("reference", "generate")]
)
def elsewhere(local: ModelPair, request: pytest.FixtureRequest) -> Iterator[Standing]:
    """A pair with all its defaults, broken before the other model or asked in another way."""
    with _made(local, *request.param) as standing:
        yield standing


@pytest.fixture
def sound(standing: Standing) -> Iterator[Standing]:
    """The same, with no fault yet."""
    yield standing
    standing[1].fault = standing[1].left = None


def _time_for(fault: Fault) -> float:
    return SOON if fault == "stall" else LONG


async def _at_once(seconds: float) -> None:
    """No time passes between attempts."""
    _AGAIN.append(seconds)


@EACH
@BOTH
def test_a_fault_ends_in_the_rules_decision_and_nothing_runs(sound: Standing, fault: Fault, how: How) -> None:
    pair, proxy = sound
    rules = enforced(threshold=PASSES, scoring_timeout=_time_for(fault))
    builder, world = simple([act(1.0), say(1.0)], rules, pair)
    proxy.fault = fault
    state = run(builder.compile(), how=how)
    [record] = state["pa"]
    assert (record["decision"], record["reason"]) == ("abstain", "scorer_error")
    assert record["error"]
    assert world.ran == []
    assert state["messages"][-1].text.startswith("I am not confident enough")


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault != "swap"])
def test_it_is_the_same_before_the_other_model_and_asked_in_another_way(elsewhere: Standing, fault: Fault) -> None:
    pair, proxy = elsewhere
    rules = enforced(threshold=PASSES, scoring_timeout=_time_for(fault))
    builder, world = simple([act(1.0), say(1.0)], rules, pair)
    proxy.fault = fault
    try:
        [record] = run(builder.compile())["pa"]
    finally:
        proxy.fault = None
    assert (record["decision"], record["reason"]) == ("abstain", "scorer_error")
    assert world.ran == []


@pytest.mark.parametrize("broken", ["policy", "reference"])
@pytest.mark.parametrize("way", ["completions", "generate"])
def test_another_model_under_the_same_name_is_noticed_whichever_it_is(
    local: ModelPair, broken: str, way: WayName
) -> None:
    with _made(local, broken, way, recheck=0.0) as (pair, proxy):
        proxy.fault = "swap"
        with pytest.raises(EngineError, match="answers a known question otherwise than when it was tested"):
            pair.score([taxi_step(1)])


@EACH
def test_a_human_is_asked_where_the_rules_say_so_and_nothing_runs_before(sound: Standing, fault: Fault) -> None:
    pair, proxy = sound
    rules = enforced(threshold=PASSES, scoring_timeout=_time_for(fault), on_scorer_error="escalate")
    builder, world = simple([act(1.0), say(1.0)], rules, pair)
    proxy.fault = fault
    state = run(builder.compile(InMemorySaver()), config={"configurable": {"thread_id": "t"}})
    assert "__interrupt__" in state
    assert world.ran == []


@EACH
def test_what_runs_unscored_because_the_rules_say_so_says_so(sound: Standing, fault: Fault) -> None:
    pair, proxy = sound
    rules = enforced(threshold=PASSES, scoring_timeout=_time_for(fault), on_scorer_error="flag")
    builder, world = simple([act(1.0), say(1.0)], rules, pair)
    proxy.fault = fault
    state = run(builder.compile())
    assert [(record["decision"], record["score"]) for record in state["pa"]] == [("flag", None)] * 2
    assert world.ran == [1.0]


@EACH
def test_when_the_engine_is_well_again_the_next_step_is_scored(sound: Standing, local: ModelPair, fault: Fault) -> None:
    pair, proxy = sound
    proxy.fault = fault
    step = pair.submit([taxi_step(1)])
    if fault == "stall":
        assert proxy.stalled.wait(LONG)
        assert step.cancel()
    else:
        assert wait([step], LONG).done
        assert isinstance(step.exception(), EngineError)
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


def test_an_engine_that_stalls_is_given_no_more_time_than_the_client_has(
    servers: Servers, local: ModelPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Faulty(servers[0].url) as proxy:
        policy, reference = VLLM(proxy.url, "policy", way="completions"), VLLM(servers[1].url, "reference")
        with EnginePair(policy, reference, local.tokenizer) as pair:
            proxy.fault = "stall"
            # Not before: while it is well it has as long as it needs.
            monkeypatch.setattr(policy._client, "_timeout", SOON)
            with pytest.raises(EngineUnavailableError, match=r"gave no answer within 0\.3 s"):
                pair.score([taxi_step(1)])


def test_an_engine_that_failed_again_and_again_is_left_alone_and_steps_fail_at_once(
    servers: Servers, local: ModelPair
) -> None:
    with Faulty(servers[0].url) as proxy:
        sources = (VLLM(proxy.url, "policy", way="completions", attempts=1), VLLM(servers[1].url, "reference"))
        with EnginePair(*sources, local.tokenizer, recheck=3600.0) as pair:  # each step is one call
            proxy.fault = "500"
            for _ in range(5):
                with pytest.raises(EngineUnavailableError, match="status 500: broken"):
                    pair.score([taxi_step(1)])
            before = proxy.seen
            with pytest.raises(EngineUnavailableError, match="failed again and again"):
                pair.score([taxi_step(1)])
            assert proxy.seen == before
