"""What the best of N actions is worth on data of one's own."""

from __future__ import annotations

import numpy as np
import pytest

from pa_middleware.selection.gain import gain_of_actions, gain_of_choices

STEPS = np.repeat(np.arange(40), 4)
REWARDS = np.random.default_rng(0).integers(0, 2, 160)


def test_the_figures_are_exact_means_over_the_steps_beside_random_and_the_best_possible() -> None:
    scores = np.random.default_rng(1).normal(size=160)
    found = gain_of_actions(scores, REWARDS, STEPS)
    table = gain_of_choices(scores, REWARDS, STEPS)
    assert [each.value for each in found.chosen] == pytest.approx(table.mean(axis=0).tolist())
    assert [each.value for each in found.gain] == pytest.approx((table - table[:, :1]).mean(axis=0).tolist())
    assert found.oracle[-1].value == REWARDS.reshape(40, 4).max(axis=1).mean()
    assert found.random.value == pytest.approx(REWARDS.mean())
    assert (found.steps, found.mixed) == (40, sum(0 < row.sum() < 4 for row in REWARDS.reshape(40, 4)))


def test_a_scorer_that_knows_the_reward_beats_random_and_its_opposite_is_worse() -> None:
    good, bad = gain_of_actions(REWARDS, REWARDS, STEPS), gain_of_actions(-REWARDS, REWARDS, STEPS)
    assert (good.beats_random, good.worse_than_random) == (True, False)
    assert good.verdict.startswith("this scorer beats picking at random here: the best of 4 by score gets 0.")
    assert (bad.beats_random, bad.worse_than_random) == (False, True)
    assert "WORSE than picking at random" in bad.verdict


def test_noise_and_too_few_steps_are_no_evidence() -> None:
    noise = gain_of_actions(np.random.default_rng(2).normal(size=160), REWARDS, STEPS)
    assert noise.verdict.startswith("no evidence that this scorer beats random here")
    few = gain_of_actions([1, 0] * 5, [1, 0] * 5, np.repeat(np.arange(5), 2))
    assert not few.beats_random
    assert few.verdict.endswith("5 of them with actions of unequal reward); it takes 6 such steps to tell")
    assert gain_of_actions([1, 0] * 6, [1, 0] * 6, np.repeat(np.arange(6), 2)).beats_random


def test_it_comes_to_the_same_twice() -> None:
    scores = np.random.default_rng(3).normal(size=160)
    assert gain_of_actions(scores, REWARDS, STEPS, max_n=2) == gain_of_actions(scores, REWARDS, STEPS, max_n=2)


@pytest.mark.parametrize("confidence", [0.0, 1.0, float("nan")])
def test_a_confidence_that_is_none_is_refused(confidence: float) -> None:
    with pytest.raises(ValueError, match="allowed: a number between 0 and 1"):
        gain_of_actions([1.0, 2.0], [1, 0], [0, 0], confidence=confidence)
