from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from doctor import pairs
from plain import log_probs
from transformers import PreTrainedModel

from pa_middleware.doctor import reading, signal
from pa_middleware.doctor.generating import write
from pa_middleware.doctor.trial import Trial, tried
from pa_middleware.scoring.pair import ModelPair

Build = Callable[..., PreTrainedModel]
PROMPTS = [(1, 2, 3), (5, 4)]


@pytest.fixture(scope="module")
def pair(tiny: Build) -> ModelPair:
    model, tokenizer = pairs.small(tiny)
    return ModelPair(model, pairs.changed(pairs.small(tiny)[0], 0.3), tokenizer)


@pytest.fixture(scope="module")
def trial(pair: ModelPair) -> Trial:
    return tried(pair, PROMPTS, samples=64, tokens=6, stops=[7], seed=0)


def test_what_is_written_comes_with_its_plain_log_probs_and_ends_at_a_stop(trial: Trial, pair: ModelPair) -> None:
    for side, model in ((trial.policy, pair.policy.model), (trial.reference, pair.reference.model)):
        assert len(side.written) == 2 * 64
        for written in side.written:
            scored = written.query.scored
            assert 7 not in scored[:-1]
            assert scored[-1] == 7 or len(scored) == 6
            np.testing.assert_allclose(written.log_probs, log_probs(model, written.query), atol=1e-4)


def test_texts_are_drawn_from_the_models_own_distribution_whatever_it_likes_to_generate_with(tiny: Build) -> None:
    model, _ = pairs.small(tiny)
    assert model.generation_config is not None
    model.generation_config.top_k = 1
    model.generation_config.repetition_penalty = 5.0
    drawn = [each.query.ids[-1] for each in write(model, [(1, 2)], samples=4000, tokens=1, stops=[], seed=0)]
    with torch.no_grad():
        odds = model(input_ids=torch.tensor([[1, 2]])).logits[0, -1].softmax(-1).numpy()
    share = np.bincount(drawn, minlength=len(odds)) / len(drawn)
    assert np.abs(share - odds).max() < 5 * np.sqrt(odds.max() / 4000)
    assert len(set(drawn)) > 20
    assert (model.generation_config.top_k, model.generation_config.repetition_penalty) == (1, 5.0)


def test_own_texts_score_what_theory_says(trial: Trial, pair: ModelPair) -> None:
    found = signal.own_texts(pair, trial)
    assert found.verdict == "ok"
    for side in ("policy", "reference"):
        off = found.numbers[side] - found.numbers[f"{side}_theory"]
        assert abs(off) < 4 * found.numbers[f"{side}_error"]


def test_scores_that_are_not_of_what_wrote_the_texts_fail(trial: Trial, pair: ModelPair) -> None:
    side = trial.policy
    wrong = replace(trial, policy=replace(side, ratios=[-each for each in side.ratios]))
    found = signal.own_texts(pair, wrong)
    assert (found.verdict, "not what generates" in found.advice) == ("failed", True)


def test_log_probs_that_generation_did_not_see_fail(trial: Trial, pair: ModelPair) -> None:
    assert reading.generation(pair, trial).verdict == "ok"
    side = trial.policy
    wrong = replace(trial, policy=replace(side, own=[each - 0.01 for each in side.own]))
    found = reading.generation(pair, wrong)
    assert (found.verdict, found.numbers["largest"] >= 0.0099) == ("failed", True)
