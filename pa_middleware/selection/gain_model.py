"""The gain of choosing among more candidates than were recorded: the breeder's equation.

    gain(N) ~ r * sd * i(N)

i(N), the expected maximum of N standard normals, is how far the best of N stands above the mean, in standard deviations
of the score; r * sd is how much reward follows a score that is one standard deviation higher. An approximation: it
takes the reward to rise in a straight line with the score, up to the best of N, and real tails bend.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from scipy.integrate import quad, quad_vec
from scipy.special import betaln, log_ndtr

from pa_middleware.selection.gain_choices import Floats

_HALF_WIDTH = 40.0
"""The integrands are 0 in double precision beyond it."""
_LOG_ROOT_TWO_PI = 0.5 * np.log(2 * np.pi)


@cache
def expected_maximum(count: int) -> float:
    """i(N): the expected maximum of so many standard normals; 0 for one.

    Raises:
        ValueError: count is no whole number from 1 on.
    """
    if type(count) is not int or count < 1:
        raise ValueError(f"count is {count!r}; allowed: a whole number from 1 on")

    def weighted(x: float) -> float:
        return float(x * np.exp(np.log(count) + (count - 1) * log_ndtr(x) - x * x / 2 - _LOG_ROOT_TWO_PI))

    value, _ = quad(weighted, -_HALF_WIDTH, _HALF_WIDTH, points=[0.0], epsabs=1e-12, limit=500)
    return float(value)


@cache
def expected_order(size: int) -> Floats:
    """[size], read-only: what each of so many standard normals is expected to be, lowest first."""
    rank = np.arange(1, size + 1)
    log_count = -betaln(rank, size - rank + 1)

    def weighted(x: float) -> Floats:
        log_density = log_count + (rank - 1) * log_ndtr(x) + (size - rank) * log_ndtr(-x) - x * x / 2
        return np.asarray(x * np.exp(log_density - _LOG_ROOT_TWO_PI))

    values, _ = quad_vec(weighted, -_HALF_WIDTH, _HALF_WIDTH, points=[0.0], epsabs=1e-10)
    values = np.asarray(values, dtype=np.float64)
    values.setflags(write=False)
    return values


def response(scores: Floats, rewards: Floats) -> float:
    """r * sd of one group: the reward that follows a score one standard deviation higher.

    The slope of reward against the normal scores of the ranks (a scorer's scale and skew choose nothing, its order
    does). It has no bias for small groups if the equation holds. Tied candidates share their ranks.

    Args:
        scores: [K], K >= 2.
        rewards: [K].
    """
    normal = expected_order(len(scores))
    _, tie, count = np.unique(scores, return_inverse=True, return_counts=True)
    first = np.cumsum(count) - count
    shared = np.add.reduceat(normal, first) / count
    return float(shared[tie] @ rewards / (normal @ normal))
