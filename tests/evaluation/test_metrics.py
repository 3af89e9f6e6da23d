from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from pa_middleware.evaluation.metrics import Pairs, auroc, auroc_ahead, error_of_sum, spearman

SEEDS = st.integers(0, 10_000)


def _made(seed: int, runs: int = 40, cells: int = 3) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    success = random.random(runs) < 0.4
    success[:2], success[-2:] = True, False
    return random.normal(size=(runs, cells)).round(1), success


@given(SEEDS)
def test_auroc_is_the_share_of_pairs_in_which_the_success_scores_higher(seed: int) -> None:
    values, success = _made(seed)
    found = auroc(values, success)
    for cell in range(values.shape[1]):
        good, bad = values[success, cell], values[~success, cell]
        pairs = [(p > n) + (p == n) / 2 for p in good for n in bad]
        assert found[cell] == pytest.approx(np.mean(pairs))


@given(SEEDS)
def test_pairs_over_all_tasks_give_the_same_auroc_and_resample_tasks_as_wholes(seed: int) -> None:
    values, success = _made(seed, cells=1)
    random = np.random.default_rng(seed)
    tasks = random.integers(0, 5, len(success))
    pairs = Pairs(5)
    pairs.add(values[success, 0], tasks[success], values[~success, 0], tasks[~success])
    assert pairs.value == pytest.approx(auroc(values, success)[0])
    times = random.multinomial(5, [0.2] * 5).astype(float)
    rows = np.repeat(np.arange(len(success)), times[tasks].astype(int))
    drawn = success[rows]
    (found,) = pairs.resampled(times[None])
    if drawn.all() or not drawn.any():
        assert np.isnan(found)
    else:
        assert found == pytest.approx(auroc(values[rows], drawn)[0])


def test_pairs_that_are_counted_at_different_times_are_never_mixed() -> None:
    pairs = Pairs(2)
    first, second = np.array([0]), np.array([1])
    pairs.add(np.array([1.0]), first, np.array([0.0]), second)
    pairs.add(np.array([-9.0]), first, np.array([-8.0]), second)
    pairs.add(np.array([5.0]), first, np.zeros(0), np.zeros(0, dtype=np.int64))
    assert pairs.value == 0.5


@pytest.mark.parametrize("alike", [0.0, 2.0])
def test_the_error_of_a_difference_of_aurocs_is_that_of_many_samples_of_tasks(alike: float) -> None:
    random = np.random.default_rng(0)
    tasks = np.repeat(np.arange(30), 3)
    ahead, errors = [], []
    for _ in range(400):
        success = (random.normal(size=30)[tasks] * alike + random.normal(size=90)) > 0
        signal = success + random.normal(size=90)
        values = np.stack([signal, signal + alike * random.normal(size=30)[tasks] + random.normal(size=90)], axis=1)
        found, noise = auroc_ahead(values, success, tasks, 0)
        np.testing.assert_allclose(found, auroc(values, success))
        ahead.append(found[1] - found[0])
        errors.append(noise[1])
        assert noise[0] == 0.0
    assert np.std(ahead) == pytest.approx(np.mean(errors), rel=0.1)


@given(SEEDS)
def test_spearman_is_that_of_scipy_with_each_run_repeated_so_many_times(seed: int) -> None:
    values, success = _made(seed, cells=1)
    random = np.random.default_rng(seed)
    times = random.integers(0, 4, (3, len(success))).astype(float)
    found = spearman(values[:, 0], success.astype(float), times)
    for row, value in zip(times, found, strict=True):
        rows = np.repeat(np.arange(len(success)), row.astype(int))
        assert value == pytest.approx(spearmanr(values[rows, 0], success[rows]).statistic)


def test_a_constant_correlates_with_nothing() -> None:
    assert spearman(np.ones(4), np.array([0.0, 1.0, 0.0, 1.0]), np.ones((2, 4))).tolist() == [0.0, 0.0]


def test_the_error_of_a_sum_takes_a_group_as_one_and_is_infinite_for_one_group() -> None:
    values = np.random.default_rng(0).normal(size=(12, 2))
    parts = (values - values.mean(axis=0)) / 12
    np.testing.assert_allclose(error_of_sum(parts, np.arange(12)), values.std(axis=0, ddof=1) / np.sqrt(12))
    twice = np.repeat(values, 2, axis=0)
    copies = error_of_sum((twice - twice.mean(axis=0)) / 24, np.repeat(np.arange(12), 2))
    np.testing.assert_allclose(copies, error_of_sum(parts, np.arange(12)))
    assert np.isinf(error_of_sum(parts, np.zeros(12, dtype=np.int64))).all()
