"""Scores and a whole agent on real vLLM servers: runs where PA_VLLM names its Python (`make test-engines`)."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from typing import Any, get_args

import numpy as np
import pytest
from live_engines.taxi import APART, episode_steps, furthest
from pa_demos.taxi.agent import build_agent, first_messages, shown
from pa_demos.taxi.environment import Taxi
from pa_demos.taxi.episode import PAIR, RULES
from pa_demos.taxi.on_vllm import POLICY, REFERENCE, driver_on
from pa_demos.taxi.on_vllm import main as run_demo
from pa_vllm import VLLM
from pa_vllm.ways import WayName

from benchmarks.engine_serving import vllm
from pa_middleware import Guard, ModelPair, Step, StepScore
from pa_middleware.engines.errors import EngineError
from pa_middleware.engines.findings import SelfTestError
from pa_middleware.engines.pair import EnginePair
from pa_middleware.engines.source import Floats
from pa_middleware.engines.trust import FIRST
from pa_middleware.scoring.reading import Query

PYTHON = os.environ.get("PA_VLLM", "")
pytestmark = pytest.mark.skipif(not PYTHON, reason="PA_VLLM names no Python with vLLM; see make test-engines")


@pytest.fixture(scope="module")
def urls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    with ExitStack() as stack:
        policy, reference = (
            stack.enter_context(vllm(PYTHON, PAIR / folder, name, tmp_path_factory.mktemp(folder)))
            for folder, name in (("policy", POLICY), ("reference", REFERENCE))
        )
        yield policy, reference


class Counting(VLLM):
    """Counts the queries that reach its server."""

    queries = 0

    async def log_probs(self, queries: Sequence[Query]) -> list[Floats]:
        self.queries += len(queries)
        return await super().log_probs(queries)


class Heard(EnginePair):
    """Remembers what it was asked and what it answered."""

    def __init__(self, policy: Counting, reference: Counting, *args: Any, **settings: Any) -> None:
        self.policy, self.reference = policy, reference
        self.heard: list[tuple[Step, Future[list[StepScore]]]] = []
        super().__init__(policy, reference, *args, **settings)

    def submit(self, steps: Sequence[Step]) -> Future[list[StepScore]]:
        answer = super().submit(steps)
        self.heard += [(step, answer) for step in steps[:1]]
        return answer


def on_servers(urls: tuple[str, str], local: ModelPair, way: WayName | None = None, **settings: Any) -> Heard:
    policy, reference = (Counting(url, name, way=way) for url, name in zip(urls, (POLICY, REFERENCE), strict=True))
    return Heard(policy, reference, local.tokenizer, **settings)


@pytest.mark.parametrize("way", get_args(WayName))
def test_scores_are_those_of_the_pair_in_this_process_in_each_way_of_asking(
    urls: tuple[str, str], local: ModelPair, way: WayName, record_property: Any
) -> None:
    try:
        pair = on_servers(urls, local, way)
    except EngineError as error:
        if "cannot be asked in the way 'ids'" not in str(error):
            raise
        pytest.skip(str(error))
    with pair:
        steps = [step for seed in (40, 41, 42) for step in episode_steps(local, seed)]
        # One by one, as an agent asks, and then all at once.
        one_by_one = [score for step in steps for score in pair.score([step])]
        expected = local.score(steps)
        apart = furthest(one_by_one, expected), furthest(pair.score(steps), expected)
        record_property("nats apart", apart)
        print(f"{way}: apart by up to {max(apart):.2g} nats a token over {len(steps)} steps")
        assert max(apart) < APART


def test_the_self_test_finds_nothing_wrong_and_the_cheapest_way_that_works(
    urls: tuple[str, str], local: ModelPair
) -> None:
    pair = on_servers(urls, local)
    with pair:
        assert {check.outcome for check in pair.self_test.checks} == {"ok"}
        assert [served.pays_for for served in pair.served] == ["new tokens"] * 2


def test_one_server_given_as_policy_and_as_reference_is_refused(urls: tuple[str, str], local: ModelPair) -> None:
    with pytest.raises(SelfTestError, match="Both addresses serve the same model"):
        EnginePair(VLLM(urls[0], POLICY), VLLM(urls[0], POLICY), local.tokenizer)


def test_guarded_episodes_run_on_what_the_server_tells_of_its_own_tokens(
    urls: tuple[str, str], local: ModelPair
) -> None:
    pair = on_servers(urls, local, recheck=3600.0)
    with pair:
        before = pair.policy.queries, pair.reference.queries
        records = [record for seed in (40, 41, 42) for record in _episode(pair, urls[1], seed)]
        records += asyncio.run(_episode_in_a_loop(pair, urls[1], 43))
        policy, reference = (
            source.queries - count for source, count in zip((pair.policy, pair.reference), before, strict=True)
        )
    # The agent is the reference: it is asked until its word is found to be good, and now and then to be sure.
    assert FIRST <= reference < policy / 2
    assert len(records) >= 12
    for record in records:
        assert record["decision"] in ("pass", "flag")
        assert all(np.isfinite(entry["score"]) for entry in record["candidates"] if entry["same_as"] is None)
    for step, answer in pair.heard:
        [ours], [theirs] = answer.result(), local.score([step])
        assert not any(candidate.retokenized for candidate in ours.candidates)
        assert furthest([ours], [theirs]) < APART


def test_the_demo_runs_end_to_end_and_the_guard_helps(urls: tuple[str, str]) -> None:
    delivered = run_demo(["--policy", urls[0], "--reference", urls[1], "--episodes", "20"])
    assert delivered["guarded"] > delivered["unguarded"]


def _episode(pair: EnginePair, url: str, seed: int) -> list[dict[str, Any]]:
    return list(_graph(pair, url, seed).invoke(*_run(seed))["pa"])


async def _episode_in_a_loop(pair: EnginePair, url: str, seed: int) -> list[dict[str, Any]]:
    return list((await _graph(pair, url, seed).ainvoke(*_run(seed)))["pa"])


class Short(Taxi):
    """Over after a few steps."""

    @property
    def done(self) -> bool:
        return super().done or self.steps >= 5


def _graph(pair: EnginePair, url: str, seed: int) -> Any:
    taxi = Short(seed)
    builder = build_agent(driver_on(url), taxi)
    Guard(pair, RULES["guarded"], tools=taxi.tools(), history=shown).install(builder)
    return builder.compile()


def _run(seed: int) -> tuple[Any, Any]:
    return {"messages": first_messages(Taxi(seed))}, {"configurable": {"thread_id": str(seed)}}
