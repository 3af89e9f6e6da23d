"""The threshold below which few runs fall: split conformal prediction, with each task counted once.

A run is below the threshold if its statistic, the lowest score of it, is. If the runs of the calibration and a new run
are exchangeable, the new one is below with a probability of at most alpha, averaged over calibrations; the 1 in the
numerator and the denominator of the rule is the new run itself. Runs that come in groups are weighted so that every
group counts once, as in hierarchical conformal prediction (Lee, Barber and Willett 2023): the bound is then for a run
of a new task.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

_SLACK = 1e-9
"""For sums of shares that are equal to alpha but for their rounding."""


@dataclass(frozen=True, slots=True)
class Threshold:
    """A threshold and what is guaranteed of it."""

    value: float
    bound: float
    """At most alpha."""


def tasks_needed(alpha: float) -> int:
    """How many tasks it takes at least for a threshold at this alpha: ceil(1 / alpha) - 1."""
    return max(1, math.ceil(1 / alpha - _SLACK) - 1)


def equal_weights(tasks: Integers) -> Floats:
    """A weight for each run, [R], such that those of one task sum to 1; from the tasks' numbers, [R]."""
    _, index, count = np.unique(tasks, return_inverse=True, return_counts=True)
    return np.asarray(1.0 / count[index], dtype=np.float64)


def conformal_threshold(statistics: Floats, weights: Floats, alpha: float) -> Threshold | None:
    """The largest statistic v with (1 + sum of the weights of all statistics below v) / (G + 1) <= alpha.

    Args:
        statistics: [R], finite, of the runs that may be stopped by mistake.
        weights: [R], see `equal_weights`; they sum to G, the number of tasks.
        alpha: share of runs that may be stopped, between 0 and 1.

    Returns:
        None if G is below `tasks_needed(alpha)`.
    """
    groups = float(weights.sum())
    order = np.argsort(statistics, kind="stable")
    values = statistics[order]
    before = np.concatenate([[0.0], np.cumsum(weights[order])])[:-1]
    first = np.searchsorted(values, values, side="left")  # where a value begins: all before it are below it
    bounds = (1 + before[first]) / (groups + 1)
    fits = np.flatnonzero(bounds <= alpha + _SLACK)
    if not fits.size:
        return None
    best = fits[-1]
    return Threshold(float(values[best]), min(float(bounds[best]), alpha))
