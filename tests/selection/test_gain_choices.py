from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pa_middleware.selection.gain import gain_of_choices

_VALUES = st.integers(-2, 2).map(float)
"""Few, so that ties are common."""
_CANDIDATES = st.lists(st.tuples(_VALUES, _VALUES, st.integers(0, 2)), min_size=1, max_size=18)


def _enumerated(scores: list[float], rewards: list[float], n: int) -> float:
    """All sets of n of one group; the best of a set, or the mean over those that tie for it."""
    expected = []
    for chosen in combinations(range(len(scores)), n):
        highest = max(scores[place] for place in chosen)
        expected.append(np.mean([rewards[place] for place in chosen if scores[place] == highest]))
    return float(np.mean(expected))


@given(candidates=_CANDIDATES)
@settings(max_examples=200, deadline=None)
def test_it_is_the_average_over_all_sets_of_n_ties_included(candidates: list[tuple[float, float, int]]) -> None:
    scores, rewards, groups = (list(column) for column in zip(*candidates, strict=True))
    found = gain_of_choices(scores, rewards, groups)
    for row, group in zip(found, sorted(set(groups)), strict=True):
        members = [place for place, each in enumerate(groups) if each == group]
        for n, value in enumerate(row, start=1):
            expected = _enumerated([scores[m] for m in members], [rewards[m] for m in members], n)
            assert value == pytest.approx(expected, abs=1e-12)


@given(candidates=_CANDIDATES, seed=st.integers(0, 9))
@settings(max_examples=100, deadline=None)
def test_the_order_of_the_candidates_does_not_matter(candidates: list[tuple[float, float, int]], seed: int) -> None:
    table = np.array(candidates)
    shuffled = np.random.default_rng(seed).permutation(table)
    found, again = (gain_of_choices(each[:, 0], each[:, 1], each[:, 2].astype(int)) for each in (table, shuffled))
    np.testing.assert_allclose(again, found, atol=1e-12)


@given(candidates=_CANDIDATES)
@settings(max_examples=100, deadline=None)
def test_no_scorer_does_better_than_an_oracle_and_a_constant_one_is_random(
    candidates: list[tuple[float, float, int]],
) -> None:
    scores, rewards, groups = (np.array(column) for column in zip(*candidates, strict=True))
    oracle = gain_of_choices(rewards, rewards, groups)
    assert (gain_of_choices(scores, rewards, groups) <= oracle + 1e-12).all()
    assert (gain_of_choices(scores, rewards, groups) >= gain_of_choices(-rewards, rewards, groups) - 1e-12).all()
    constant = gain_of_choices(np.zeros_like(scores), rewards, groups)
    means = [rewards[groups == group].mean() for group in np.unique(groups)]
    np.testing.assert_allclose(constant, np.repeat(np.array(means)[:, None], constant.shape[1], axis=1), atol=1e-12)


def test_a_perfect_scorer_equals_the_oracle() -> None:
    rewards = np.random.default_rng(0).normal(size=24)
    groups = np.repeat(["a", "b", "c"], 8)
    perfect = gain_of_choices(np.exp(rewards), rewards, groups)
    np.testing.assert_allclose(perfect, gain_of_choices(rewards, rewards, groups))
    np.testing.assert_allclose(perfect[:, -1], rewards.reshape(3, 8).max(axis=1))


def test_large_groups_stay_exact() -> None:
    found = gain_of_choices(np.arange(100_000), np.arange(100_000), np.zeros(100_000, dtype=int), max_n=3)
    np.testing.assert_allclose(found, [[49_999.5, 2 * 100_001 / 3 - 1, 3 * 100_001 / 4 - 1]])


@pytest.mark.parametrize(
    ("scores", "rewards", "groups", "max_n", "message"),
    [
        ([1.0, np.nan], [1, 0], [0, 0], None, r"scores\[1\] is nan; every value must be finite"),
        ([1.0, 2.0], [1, np.inf], [0, 0], None, r"rewards\[1\] is inf; every value must be finite"),
        ([], [], [], None, r"scores has shape \(0,\); allowed: one dimension with at least one value"),
        (["x"], [1], [0], None, r"scores is \['x'\]; allowed: a sequence of real numbers"),
        ([1.0, 2.0], [1], [0, 0], None, r"scores has shape \(2,\), rewards \(1,\) and groups \(2,\)"),
        ([1.0, 2.0], [1, 0], [0.5, 0.5], None, r"groups is \[0.5, 0.5\]; allowed: whole numbers or text"),
        ([1.0, 2.0, 3.0], [1, 0, 1], [0, 0, 1], 2, "max_n is 2; allowed: a whole number from 1 to 1"),
        ([1.0, 2.0], [1, 0], [0, 0], 0, "max_n is 0; allowed: a whole number from 1 to 2"),
    ],
)
def test_what_cannot_be_chosen_from_is_refused(
    scores: list[float], rewards: list[float], groups: list[int], max_n: int | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        gain_of_choices(scores, rewards, groups, max_n=max_n)
