from __future__ import annotations

from dataclasses import astuple

import numpy as np
import pytest

from pa_middleware.intervals import Estimate, estimate, grouped_means, means, resamples


def test_every_resample_draws_as_many_groups_as_there_are() -> None:
    drawn = np.concatenate(list(resamples(7, np.random.default_rng(0), count=120)))
    assert drawn.shape == (120, 7)
    assert (drawn.sum(axis=1) == 7).all()


def test_an_interval_of_a_mean_is_that_of_drawing_values_again() -> None:
    values = np.random.default_rng(1).normal(size=40)
    (found,) = means(values[:, None], np.random.default_rng(0))
    random = np.random.default_rng(2)
    plain = np.quantile([random.choice(values, 40).mean() for _ in range(20_000)], [0.025, 0.975])
    assert found.value == pytest.approx(values.mean())
    assert [found.low, found.high] == pytest.approx(plain, abs=0.03)


def test_columns_share_their_resamples_so_that_differences_are_paired() -> None:
    values = np.random.default_rng(1).normal(size=(30, 1))
    one, other, difference = means(
        np.concatenate([values, values + 1, values + 1 - values], axis=1), np.random.default_rng(0)
    )
    assert astuple(difference) == pytest.approx((1.0, 1.0, 1.0))
    assert other.low - one.low == pytest.approx(1.0)


def test_rows_of_a_group_are_drawn_together_and_what_is_not_known_does_not_count() -> None:
    values = np.array([[1.0], [1.0], [0.0], [np.nan]])
    (found,) = grouped_means(values, np.array([0, 0, 1, 1]), np.random.default_rng(0))
    assert found.value == pytest.approx(2 / 3)
    assert (found.low, found.high) == (0.0, 1.0)


def test_groups_of_one_give_the_interval_of_the_mean() -> None:
    values = np.random.default_rng(3).normal(size=(25, 2))
    alone = means(values, np.random.default_rng(0))
    for one, other in zip(grouped_means(values, np.arange(25), np.random.default_rng(0)), alone, strict=True):
        assert astuple(one) == pytest.approx(astuple(other))


def test_resamples_in_which_nothing_counts_are_left_out() -> None:
    assert estimate(0.5, np.array([np.nan, 0.0, 1.0]), confidence=0.5) == Estimate(0.5, 0.25, 0.75)
