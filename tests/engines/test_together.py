"""Several things at once, and no more of them than leaves room for others; the clock is virtual."""

from __future__ import annotations

import asyncio
import json

import httpx
import numpy as np
import pytest
from engines.imagined import Imagined
from engines.virtual_time import run
from pa_vllm.cached import Generate

from pa_middleware.engines.together import FEW, few_at_once
from pa_middleware.scoring.reading import Query


def test_few_are_asked_at_a_time_and_answered_in_order() -> None:
    now = most = 0

    async def ask(item: int) -> int:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(1.0 / (item + 1))
        now -= 1
        return -item

    assert run(few_at_once(ask, range(3 * FEW))) == [-item for item in range(3 * FEW)]
    assert most == FEW


def test_the_first_that_fails_ends_those_that_run_and_those_that_wait() -> None:
    begun: list[int] = []
    cancelled: list[int] = []

    async def ask(item: int) -> None:
        begun.append(item)
        try:
            await asyncio.sleep(item + 1)
        except asyncio.CancelledError:
            cancelled.append(item)
            raise
        raise LookupError(item)

    with pytest.raises(LookupError, match="0"):
        run(few_at_once(ask, range(3 * FEW)))
    assert begun[1:] == cancelled
    assert len(begun) <= FEW + 1, "the place of the one that failed was taken"


async def _generate(request: httpx.Request) -> httpx.Response:
    """After a second, what vLLM's /inference/v1/generate says of the one token that is allowed."""
    await asyncio.sleep(1)
    [token] = json.loads(request.content)["sampling_params"]["allowed_token_ids"]
    told = {"content": [{"token_id": token, "logprob": -1.0}]}
    answer = {"model": "m", "choices": [{"index": 0, "token_ids": [token], "logprobs": told}]}
    return httpx.Response(200, stream=httpx.ByteStream(json.dumps(answer).encode()))


def test_a_step_of_many_candidates_does_not_stand_before_everybody_elses() -> None:
    async def work() -> None:
        way = Generate(Imagined(_generate, in_flight=4), "m")
        many = asyncio.ensure_future(way.log_probs([Query((1, token), 1) for token in range(200)]))
        await asyncio.sleep(0.5)
        [one] = await way.log_probs([Query((1, 2), 1)])
        assert asyncio.get_running_loop().time() <= 1 + FEW / 4
        assert np.concatenate([one, *await many]).tolist() == [-1.0] * 201

    run(work())
