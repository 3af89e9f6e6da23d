"""Intervals from resampling groups, the tasks of runs say: one bootstrap for everything that is measured.

Runs of one task resemble each other, so it is tasks that are drawn again, with replacement. What is compared is
computed on the same draws, so that differences are paired.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
RESAMPLES = 2_000
_CHUNK = 50
"""Resamples at a time; bounds the memory at that many times the groups."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number, and its interval from resampling the groups."""

    value: float
    low: float
    high: float


def resamples(groups: int, random: np.random.Generator, *, count: int = RESAMPLES) -> Iterator[Floats]:
    """How often each group is drawn, in chunks of resamples [B, G]; each row sums to G.

    Args:
        groups: G, at least 1.
        random: source of chance.
        count: resamples in all.
    """
    equal = np.full(groups, 1 / groups)
    for start in range(0, count, _CHUNK):
        yield random.multinomial(groups, equal, size=min(_CHUNK, count - start)).astype(np.float64)


def estimate(value: float, draws: NDArray[Any], *, confidence: float = 0.95) -> Estimate:
    """A number with the percentile interval of its resampled values [B]; NaN among them count as not drawn."""
    tail = (1 - confidence) / 2
    known = draws[~np.isnan(draws)]
    low, high = np.quantile(known, [tail, 1 - tail]) if known.size else (np.nan, np.nan)
    return Estimate(float(value), float(low), float(high))


def means(values: Floats, random: np.random.Generator, *, confidence: float = 0.95) -> list[Estimate]:
    """Means over groups of columns [G, C], with percentile intervals on the same resamples.

    Naive equivalent, for one column: its mean, and the quantiles .025 and .975 of
    `[np.mean(random.choice(column, G)) for _ in range(2000)]`.
    """
    size = len(values)
    draws = np.concatenate([times @ values / size for times in resamples(size, random)])
    return [
        estimate(value, column, confidence=confidence)
        for value, column in zip(values.mean(axis=0), draws.T, strict=True)
    ]


def grouped_means(
    values: Floats, groups: NDArray[np.int64], random: np.random.Generator, *, confidence: float = 0.95
) -> list[Estimate]:
    """Means over rows of columns [R, C], the rows of a group drawn together; a NaN does not count.

    Args:
        values: [R, C].
        groups: [R], from 0 without gaps.
        random: source of chance.
        confidence: of the intervals.
    """
    size = int(groups.max()) + 1
    known = ~np.isnan(values)
    sums, counts = np.zeros((size, values.shape[1])), np.zeros((size, values.shape[1]))
    np.add.at(sums, groups, np.where(known, values, 0.0))
    np.add.at(counts, groups, known.astype(np.float64))
    draws = resampled_ratios(sums, counts, random)
    whole = _ratio(sums.sum(axis=0), counts.sum(axis=0))
    return [estimate(value, column, confidence=confidence) for value, column in zip(whole, draws.T, strict=True)]


def resampled_ratios(sums: Floats, counts: Floats, random: np.random.Generator) -> Floats:
    """Total sum over total count in each resample of the groups, [G, C] twice -> [B, C]; NaN where nothing counts."""
    return np.concatenate([_ratio(times @ sums, times @ counts) for times in resamples(len(sums), random)])


def _ratio(sums: Floats, counts: Floats) -> Floats:
    return np.asarray(np.divide(sums, counts, out=np.full(sums.shape, np.nan), where=counts > 0))
