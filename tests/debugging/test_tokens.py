"""The bootstrap over tokens is what it says."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest

from pa_middleware.debugging import Rule, attribute
from pa_middleware.debugging import tokens as module
from pa_middleware.debugging.tokens import share_of_resamples

TOKENS = [(0.4, 0.1, -0.2), (-1.5, 0.6), (0.3, -0.9, 0.2, -0.4), (-0.7,), (1.0, -1.9, 0.1)]


@pytest.mark.parametrize("rule", get_args(Rule))
@pytest.mark.parametrize(("scale", "mean"), [(1.0, False), (0.5, False), (2.0, True)])
def test_the_share_is_the_naive_formula(monkeypatch: pytest.MonkeyPatch, rule: Rule, scale: float, mean: bool) -> None:
    threshold = -0.5 if rule == "first_below" else None
    random, resamples = np.random.default_rng(1), 6_000
    firsts = []
    for _ in range(resamples):
        drawn = [random.choice(ratios, len(ratios)) for ratios in TOKENS]
        scores = [float(each.mean() if mean else each.sum()) * scale for each in drawn]
        suspects = attribute(scores, rule, threshold=threshold)
        firsts.append(suspects[0].step if suspects else -1)
    monkeypatch.setattr(module, "RESAMPLES", resamples)
    for step in range(len(TOKENS)):
        share = share_of_resamples(step, TOKENS, rule, scale=scale, mean=mean, threshold=threshold)
        assert share == pytest.approx(firsts.count(step) / resamples, abs=0.03)


def test_it_is_the_same_at_every_call() -> None:
    assert share_of_resamples(1, TOKENS, "lowest") == share_of_resamples(1, TOKENS, "lowest")


def test_a_step_all_of_whose_tokens_agree_is_certain_and_one_that_hangs_on_a_single_token_is_not() -> None:
    others = [(0.0,) * 10] * 4
    assert share_of_resamples(0, [(-0.5,) * 10, *others], "lowest") == 1.0
    assert share_of_resamples(4, [*others, (-5.0, *(0.0,) * 9)], "lowest") == pytest.approx(1 - 0.9**10, abs=0.1)


def test_a_fall_needs_two_steps() -> None:
    assert share_of_resamples(0, [(-1.0,)], "sharpest_fall") == 0.0
