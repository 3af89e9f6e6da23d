from __future__ import annotations

import numpy as np
import pytest

from pa_middleware.selection.gain_choices import gain_of_choices
from pa_middleware.selection.gain_model import expected_maximum, expected_order, response


def test_the_expected_maximum_of_normals_is_as_tabulated() -> None:
    known = {1: 0.0, 2: 0.56419, 3: 0.84628, 4: 1.02938, 5: 1.16296, 8: 1.42360, 100: 2.50759}
    for count, value in known.items():
        assert expected_maximum(count) == pytest.approx(value, abs=1e-5)
    assert expected_maximum(2) == pytest.approx(1 / np.sqrt(np.pi), abs=1e-12)
    assert expected_maximum(3) == pytest.approx(1.5 / np.sqrt(np.pi), abs=1e-12)


@pytest.mark.parametrize("count", [0, -1, 2.0, True])
def test_the_maximum_of_no_count_is_refused(count: int) -> None:
    with pytest.raises(ValueError, match="allowed: a whole number from 1 on"):
        expected_maximum(count)


@pytest.mark.parametrize("size", [1, 2, 5, 30, 200])
def test_expected_order_is_symmetric_rises_and_ends_at_the_expected_maximum(size: int) -> None:
    order = expected_order(size)
    np.testing.assert_allclose(order, -order[::-1], atol=1e-9)
    assert (np.diff(order) > 0).all()
    assert order[-1] == pytest.approx(expected_maximum(size), abs=1e-9)


@pytest.mark.parametrize("size", [2, 3, 8])
def test_a_reward_that_follows_the_ranks_of_normals_is_predicted_exactly(size: int) -> None:
    order = expected_order(size)
    rewards = 0.3 + 0.2 * order
    scores = np.exp(5 * order)  # the scale of a scorer is of no account
    assert response(scores, rewards) == pytest.approx(0.2)
    gains = gain_of_choices(scores, rewards, np.zeros(size, dtype=int))[0] - rewards.mean()
    np.testing.assert_allclose(gains, [0.2 * expected_maximum(n) for n in range(1, size + 1)], atol=1e-9)


def test_scores_that_tell_nothing_have_no_response() -> None:
    assert response(np.zeros(4), np.array([1.0, 0.0, 1.0, 1.0])) == pytest.approx(0, abs=1e-9)
    assert response(np.arange(4.0), np.ones(4)) == pytest.approx(0, abs=1e-9)
    assert response(-np.arange(4.0), np.arange(4.0)) < 0
