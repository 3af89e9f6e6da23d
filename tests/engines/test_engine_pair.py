"""A pair on engines scores as the same pair in this process does, or not at all."""

from __future__ import annotations

from typing import Any

import pytest
from engines.pairs import MakePair, Servers, same
from engines.taxi_steps import taxi_step
from langchain_core.messages import AIMessage
from pa_vllm import VLLM

from pa_middleware import ModelPair, Scorer
from pa_middleware.engines.errors import EngineAnswerError
from pa_middleware.engines.pair import EnginePair
from pa_middleware.scoring.errors import ContextLengthError, UnscorableActionError
from pa_middleware.scoring.fingerprint import Identified
from pa_middleware.scoring.scorer import ReadsAhead, Step, Submits


@pytest.mark.parametrize("way", ["ids", "generate", "completions"])
def test_scores_are_those_of_the_pair_in_this_process(make_pair: MakePair, local: ModelPair, way: str) -> None:
    pair = make_pair(way)
    steps = [taxi_step(seed, conversation=f"c{seed}" if seed % 2 else None) for seed in range(4)]
    for ours, theirs in zip(pair.score(steps), local.score(steps), strict=True):
        same(ours, theirs)


def test_it_is_all_that_a_guard_looks_for_in_a_scorer(make_pair: MakePair) -> None:
    pair = make_pair()
    for protocol in (Scorer, Submits, ReadsAhead, Identified):
        assert isinstance(pair, protocol)
    assert (pair.policy_name, pair.reference_name, pair.aggregation, pair.beta) == ("policy", "reference", "sum", 1.0)
    assert pair.least_margin(8) > 0
    ids = pair.tokenizer.encode("taxi")
    assert "".join(pair.token_texts(ids)) == "taxi"


def test_settings_mean_what_they_mean_for_a_pair_in_this_process(
    make_pair: MakePair, local: ModelPair, servers: Servers
) -> None:
    settings: dict[str, Any] = {"beta": 0.5, "aggregation": "mean", "end_of_turn": False}
    ours = make_pair(**settings).score([taxi_step(1)])
    theirs = ModelPair(local.policy.model, local.reference.model, local.tokenizer, **settings).score([taxi_step(1)])
    same(ours[0], theirs[0])


def test_one_step_that_cannot_be_scored_is_an_error_for_whoever_asked_and_nobody_else(make_pair: MakePair) -> None:
    pair = make_pair()
    bad = Step(taxi_step(1).history, [AIMessage("")])
    futures = [pair.submit([bad]), pair.submit([taxi_step(1)])]
    with pytest.raises(UnscorableActionError):
        futures[0].result()
    assert len(futures[1].result()) == 1


def test_too_long_a_prompt_is_refused_or_cut(make_pair: MakePair) -> None:
    assert len(make_pair()._fitted(taxi_step(1)).prompt) > 100
    with pytest.raises(ContextLengthError, match="the pair can read 100"):
        make_pair(max_length=100).score([taxi_step(1)])
    [step] = make_pair(max_length=100, overflow="truncate").score([taxi_step(1)])
    assert all(candidate.truncated for candidate in step.candidates)


def test_an_unknown_setting_is_refused_before_any_engine_is_asked(local: ModelPair) -> None:
    nowhere = VLLM("http://127.0.0.1:9", "x")
    inf, nan = float("inf"), float("nan")
    wrong: dict[str, list[Any]] = {
        "tolerance": [0.0, inf, nan],
        "recheck": [-1.0, inf, nan],
        "wait": [-1.0, inf, nan],
        "steps_at_once": [0, 1.5, True],
        "waiting": [-1, 1.5, True],
    }
    for name, values in wrong.items():
        for value in values:
            with pytest.raises(ValueError, match=f"{name} is {value!r}; allowed: a (finite|whole) number"):
                EnginePair(nowhere, nowhere, local.tokenizer, **{name: value})
    with pytest.raises(ValueError, match="aggregation"):
        EnginePair(nowhere, nowhere, local.tokenizer, aggregation="most")  # type: ignore[arg-type]


def test_fingerprints_tell_models_and_settings_apart_and_not_addresses(make_pair: MakePair) -> None:
    one = make_pair().fingerprint()
    assert one == make_pair().fingerprint()
    assert one["policy"] != one["reference"]
    assert make_pair(beta=2.0).fingerprint() != one


def test_another_number_of_answers_than_of_questions_is_an_error(
    make_pair: MakePair, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair, plain = make_pair(recheck=3600.0), VLLM.log_probs
    for change in (lambda answers: answers[1:], lambda answers: [*answers, answers[0]]):

        async def answer(source: VLLM, queries: Any, change: Any = change) -> Any:
            return change(await plain(source, queries))

        monkeypatch.setattr(VLLM, "log_probs", answer)
        with pytest.raises(EngineAnswerError, match="queries were asked and"):
            pair.score([taxi_step(1)])
