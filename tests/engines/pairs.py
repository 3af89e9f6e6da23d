"""Pairs on engines: how often they are asked, what they are told, and servers that hold what they are asked."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from engines.taxi_steps import taxi_step
from engines.vllm_server import VLLMServer
from pa_demos.taxi.prompt import ACTION_TEXTS

from pa_middleware import StepScore
from pa_middleware.engines.pair import EnginePair
from pa_middleware.scoring.generated import Generated, prompt_digest, with_generated
from pa_middleware.scoring.scorer import Step

Servers = tuple[VLLMServer, VLLMServer]
MakePair = Callable[..., EnginePair]


def same(ours: StepScore, theirs: StepScore) -> None:
    """Hold one step's scores to another's, but for float32's noise."""
    for one, other in zip(ours.candidates, theirs.candidates, strict=True):
        assert one.score == pytest.approx(other.score, abs=1e-3)
        np.testing.assert_allclose(one.token_log_ratios, other.token_log_ratios, atol=1e-4)
        assert one.policy_log_prob == pytest.approx(other.policy_log_prob, abs=1e-3)
        assert one.token_ids == other.token_ids
        assert [(call.name, call.token_count) for call in one.calls] == [
            (call.name, call.token_count) for call in other.calls
        ]


def requests(servers: Servers, work: Callable[[], object]) -> tuple[int, int]:
    """How many reach policy and reference while some work is done."""
    before = [len(server.asked) for server in servers]
    work()
    policy, reference = (len(server.asked) - count for server, count in zip(servers, before, strict=True))
    return policy, reference


def settle(pair: EnginePair) -> None:
    """Until nothing that was begun on the pair's loop still runs."""

    async def others() -> None:
        await asyncio.gather(*asyncio.all_tasks() - {asyncio.current_task()}, return_exceptions=True)

    pair._loop.submit(others()).result()


def written_step(pair: EnginePair, seed: int, off: float = 0.0, **told: Any) -> Step:
    """A step whose candidate tells its tokens and log-probs as the policy's server would."""
    step = taxi_step(seed)
    scores = pair.score([step])[0].candidates
    written = min(range(len(scores)), key=lambda place: scores[place].policy_log_prob)  # one it was not sure of
    ids = tuple(pair.tokenizer.encode(ACTION_TEXTS[written], add_special_tokens=False))
    assert ids == scores[written].token_ids
    log_probs = tuple(min(0.0, value - off) for value in scores[written].token_log_probs)
    prompt = prompt_digest(pair.renderer.prompt(step.history, step.tools))
    generated = Generated(ids, **{"log_probs": log_probs, "prompt": prompt, "model": "policy", **told})
    return Step(step.history, [with_generated(step.candidates[written], generated)], step.tools)


class Hold:
    """Lets nothing through until it may go."""

    def __init__(self) -> None:
        self.entered, self.go = threading.Event(), threading.Event()

    def __call__(self, path: str, answer: Any) -> Any:
        self.entered.set()
        self.go.wait(30)
        return answer
