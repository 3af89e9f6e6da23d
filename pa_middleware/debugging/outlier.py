"""Whether the lowest of a few numbers lies further off than chance would have it: Dixon's test.

Dixon (1950), ratio r10 for a single outlier on one side: the gap between the lowest number and the next, over the range
of all. It needs no scale and no mean, and is about the gap to the runner-up. Its null hypothesis is a sample of one
normal distribution, which the scores of a run's steps only resemble.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence

_CRITICAL = (
    (3, 0.942),
    (4, 0.765),
    (5, 0.642),
    (6, 0.561),
    (7, 0.507),
    (8, 0.467),
    (9, 0.436),
    (10, 0.412),
    (12, 0.375),
    (14, 0.350),
    (16, 0.329),
    (18, 0.313),
    (20, 0.300),
    (25, 0.276),
    (30, 0.260),
    (40, 0.236),
    (50, 0.222),
    (70, 0.202),
    (100, 0.184),
    (150, 0.168),
    (200, 0.158),
    (300, 0.147),
    (500, 0.134),
    (1000, 0.119),
)
"""Size of a normal sample -> the ratio that 5 % of such samples exceed."""

FEWEST = _CRITICAL[0][0]
"""Numbers that it takes at least; of fewer nothing can be said."""


def ratio(values: Sequence[float]) -> float:
    """The gap between the lowest value and the next over the range of all; 0 to 1, and 0 where all are the same.

    Naive equivalent: `(s[1] - s[0]) / (s[-1] - s[0])` of `s = sorted(values)`.
    """
    lowest, following, *_ = ordered = sorted(values)
    span = ordered[-1] - lowest
    return (following - lowest) / span if span > 0 else 0.0


def critical(size: int) -> float:
    """The ratio that one in twenty normal samples of this size exceeds; at least `FEWEST` values.

    Between the sizes of the table it is interpolated over their logarithms, beyond them it is that of the last.
    """
    place = bisect.bisect_left(_CRITICAL, (size, 0.0))
    if place == len(_CRITICAL):
        return _CRITICAL[-1][1]
    above, high = _CRITICAL[place]
    if above == size:
        return high
    below, low = _CRITICAL[place - 1]
    share = math.log(size / below) / math.log(above / below)
    return low + share * (high - low)


def lowest_is_outlier(values: Sequence[float]) -> bool:
    """Whether the gap below the runner-up is wider than in one of twenty normal samples of the same size."""
    return len(values) >= FEWEST and ratio(values) > critical(len(values))
