from __future__ import annotations

import numpy as np
import pytest
from pa_demos.taxi.environment import ACTION_COUNT, BETA, STATE_COUNT, active_states
from pa_demos.taxi.exact import SoftOptimum, Table, occupancy, soft_optimum


@pytest.fixture(scope="module")
def reference() -> Table:
    odds = np.random.default_rng(0).dirichlet(np.ones(ACTION_COUNT), size=STATE_COUNT) + 0.01
    return np.asarray(odds / odds.sum(axis=-1, keepdims=True))


@pytest.fixture(scope="module")
def best(reference: Table) -> SoftOptimum:
    return soft_optimum(reference)


def test_log_ratio_of_the_soft_optimum_is_its_advantage(reference: Table, best: SoftOptimum) -> None:
    np.testing.assert_allclose(best.policy.sum(axis=-1), 1.0, atol=1e-9)
    ratio = BETA * np.log(best.policy / best.policy.sum(axis=-1, keepdims=True) / reference)
    np.testing.assert_allclose(ratio, best.q - best.v[:, None], atol=1e-9)
    np.testing.assert_allclose(ratio, best.advantage, atol=1e-9)


def test_mean_advantage_of_the_optimum_is_beta_times_its_kl(reference: Table, best: SoftOptimum) -> None:
    kl = (best.policy * np.log(best.policy / reference)).sum(axis=-1)
    np.testing.assert_allclose((best.policy * best.advantage).sum(axis=-1), BETA * kl, atol=1e-9)
    assert kl.min() > -1e-9


def test_exponential_advantage_averages_to_one_under_the_reference(reference: Table, best: SoftOptimum) -> None:
    np.testing.assert_allclose((reference * np.exp(best.advantage / BETA)).sum(axis=-1), 1.0, atol=1e-9)
    assert ((reference * best.advantage).sum(axis=-1) <= 1e-9).all()


def test_soft_optimum_delivers_more_often_than_its_reference(reference: Table, best: SoftOptimum) -> None:
    assert occupancy(best.policy)[1] > occupancy(reference)[1] + 0.2


def test_occupancy_stays_on_active_states_and_counts_at_most_the_horizon(reference: Table) -> None:
    visits, success = occupancy(reference)
    assert visits[np.setdiff1d(np.arange(STATE_COUNT), active_states())].max() == 0.0
    assert 1.0 < visits.sum() <= 30.0
    assert 0.0 < success < 1.0
