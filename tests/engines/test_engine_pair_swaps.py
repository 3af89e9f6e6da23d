"""Another model at an engine's address scores nothing, and is noticed without asking much."""

from __future__ import annotations

import os

import pytest
from engines.pairs import MakePair, Servers, requests, written_step
from engines.taxi_steps import taxi_step

from pa_middleware.engines.errors import EngineError
from pa_middleware.engines.trust import FIRST


def test_models_that_are_swapped_later_score_nothing(make_pair: MakePair, servers: Servers) -> None:
    pair = make_pair(recheck=0.0)
    pair.score([taxi_step(1)])
    policy, reference = (server.model for server in servers)
    servers[0].answers.model, servers[1].answers.model = reference, policy
    with pytest.raises(EngineError, match="otherwise than when it was tested"):
        pair.score([taxi_step(1)])
    servers[0].answers.model, servers[1].answers.model = policy, reference
    pair.score([taxi_step(1)])


def test_a_model_that_told_everything_is_known_again_all_the_same(make_pair: MakePair, servers: Servers) -> None:
    pair = make_pair(recheck=0.0)
    steps = [written_step(pair, seed) for seed in range(FIRST + 1)]
    asked = [requests(servers, lambda step=step: pair.score([step]))[0] for step in steps]  # type: ignore[misc]
    assert asked == [2] * FIRST + [1], "in the end the known question alone"
    servers[0].answers.model = servers[1].model
    with pytest.raises(EngineError, match="otherwise than when it was tested"):
        pair.score([steps[0]])


def test_a_model_that_is_swapped_before_a_fork_scores_nothing_after_it(make_pair: MakePair, servers: Servers) -> None:
    pair = make_pair(recheck=3600.0)
    pair.score([taxi_step(1)])
    servers[0].answers.model = servers[1].model
    child = os.fork()
    if not child:
        try:
            pair.score([taxi_step(1)])
        except EngineError as error:
            os._exit(0 if "otherwise than when it was tested" in str(error) else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_after_new_connections_the_known_question_comes_once_and_then_when_its_time_has_come(
    make_pair: MakePair, servers: Servers
) -> None:
    pair = make_pair(recheck=3600.0)
    for _ in range(2):
        pair.start_anew()
        with_connecting = requests(servers, lambda: pair.score([taxi_step(1)]))
        assert requests(servers, lambda: pair.score([taxi_step(1)])) == (1, 1)
        assert with_connecting == (3, 3), "to open, the known question, and the step"


def test_another_model_found_with_new_connections_is_named_and_scores_nothing(
    make_pair: MakePair, servers: Servers
) -> None:
    pair = make_pair(recheck=3600.0)
    servers[1].answers.root = "/models/other"
    pair.start_anew()
    with pytest.raises(EngineError, match=r"serves 'reference root=/models/other.*it was 'reference root=reference"):
        pair.score([taxi_step(1)])
    servers[1].answers.root = "reference"
    assert len(pair.score([taxi_step(1)])) == 1


def test_a_known_question_is_asked_again_only_when_its_time_has_come(make_pair: MakePair, servers: Servers) -> None:
    rare, often = make_pair(recheck=3600.0), make_pair(recheck=0.0)
    assert requests(servers, lambda: rare.score([taxi_step(1, candidates=1)])) == (1, 1)
    assert requests(servers, lambda: often.score([taxi_step(1, candidates=1)])) == (2, 2)
