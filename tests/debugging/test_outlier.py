"""Dixon's test: whether the lowest of a few numbers lies further off than chance would have it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pa_middleware.debugging.outlier import FEWEST, critical, lowest_is_outlier, ratio

values = st.lists(st.floats(-100, 100), min_size=3, max_size=30)


@given(values)
def test_the_ratio_is_the_naive_formula(numbers: list[float]) -> None:
    ordered = sorted(numbers)
    span = ordered[-1] - ordered[0]
    assert ratio(numbers) == ((ordered[1] - ordered[0]) / span if span else 0.0)
    assert 0 <= ratio(numbers) <= 1


@pytest.mark.parametrize("size", [3, 5, 8, 11, 30, 45, 100])
def test_one_of_twenty_normal_samples_has_such_an_outlier(size: int) -> None:
    samples = np.random.default_rng(size).normal(3.0, 7.0, size=(8_000, size)).tolist()
    share = np.mean([lowest_is_outlier(sample) for sample in samples])
    assert share == pytest.approx(0.05, abs=3.5 * (0.05 * 0.95 / 8_000) ** 0.5)


def test_the_critical_ratio_falls_with_the_size_and_beyond_the_table_stays() -> None:
    ratios = [critical(size) for size in range(FEWEST, 1200)]
    assert ratios == sorted(ratios, reverse=True)
    assert ratios[-1] == critical(1000)


def test_of_fewer_than_three_nothing_is_said() -> None:
    assert not lowest_is_outlier([])
    assert not lowest_is_outlier([-9.0])
    assert not lowest_is_outlier([-9.0, 0.0])
    assert lowest_is_outlier([-9.0, 0.0, 0.1])
