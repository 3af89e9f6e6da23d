"""Many steps at once on one pair, cancelled ones, forks, and the end of the pair."""

from __future__ import annotations

import asyncio
import os
import threading
from concurrent.futures import FIRST_COMPLETED, wait

import pytest
from engines.pairs import Hold, MakePair, Servers, same
from engines.taxi_steps import taxi_step

from pa_middleware import ModelPair, StepScore
from pa_middleware.engines.errors import EngineUnavailableError


def test_many_steps_at_once_get_the_scores_they_get_alone(make_pair: MakePair, local: ModelPair) -> None:
    pair = make_pair("completions", steps_at_once=4)
    steps = [taxi_step(seed % 5, conversation=f"c{seed}") for seed in range(20)]

    async def all_of_them() -> list[list[StepScore]]:
        return await asyncio.gather(*(asyncio.wrap_future(pair.submit([step])) for step in steps))

    for [ours], theirs in zip(asyncio.run(all_of_them()), local.score(steps), strict=True):
        same(ours, theirs)


def test_a_call_of_more_steps_than_may_wait_is_scored(make_pair: MakePair) -> None:
    pair = make_pair(steps_at_once=2, waiting=1)
    assert len(pair.score([taxi_step(seed, candidates=1) for seed in range(8)])) == 8


def test_more_steps_than_may_wait_are_refused_at_once_and_the_others_are_scored(
    make_pair: MakePair, servers: Servers
) -> None:
    pair = make_pair("generate", steps_at_once=1, waiting=1)
    hold = Hold()
    servers[0].rewrite = hold
    first = pair.submit([taxi_step(0, candidates=1)])
    assert hold.entered.wait(30)
    others = [pair.submit([taxi_step(seed, candidates=1)]) for seed in (1, 2)]
    done, _ = wait(others, return_when=FIRST_COMPLETED)
    [refused] = done
    with pytest.raises(EngineUnavailableError, match="wait for this engine already"):
        refused.result()
    hold.go.set()
    [waited] = [future for future in others if future is not refused]
    assert [len(future.result()) for future in (first, waited)] == [1, 1]


def test_a_cancelled_step_is_not_waited_for(make_pair: MakePair, servers: Servers) -> None:
    pair = make_pair()
    hold = Hold()
    servers[0].rewrite = hold
    future = pair.submit([taxi_step(1)])
    assert hold.entered.wait(30)
    assert future.cancel()
    pair.close()  # returns although the server holds the request
    hold.go.set()


def test_a_forked_child_connects_for_itself(make_pair: MakePair) -> None:
    pair = make_pair()
    [expected] = pair.score([taxi_step(1)])
    child = os.fork()
    if not child:
        try:
            [score] = pair.score([taxi_step(1)])
            os._exit(0 if score.candidates[0].score == expected.candidates[0].score else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert pair.score([taxi_step(1)])[0].candidates[0].score == pytest.approx(expected.candidates[0].score, abs=1e-4)


@pytest.mark.parametrize("how", ["sync", "async"])
def test_steps_that_are_being_scored_when_the_pair_is_closed_fail_with_an_error_of_scoring(
    make_pair: MakePair, servers: Servers, how: str
) -> None:
    pair, hold = make_pair(), Hold()
    servers[0].rewrite = hold

    async def ask() -> None:
        await asyncio.wrap_future(pair.submit([taxi_step(1)]))

    def caller() -> None:
        with pytest.raises(EngineUnavailableError, match="the pair was closed before this was scored"):
            asyncio.run(ask()) if how == "async" else pair.score([taxi_step(1)])
        ended.set()

    ended = threading.Event()
    thread = threading.Thread(target=caller)
    thread.start()
    assert hold.entered.wait(30)
    pair.close()
    thread.join(30)
    hold.go.set()
    assert ended.is_set()


def test_a_closed_pair_scores_no_more(make_pair: MakePair) -> None:
    pair = make_pair()
    pair.close()
    pair.close()
    with pytest.raises(RuntimeError, match="closed"):
        pair.score([taxi_step(1)])
