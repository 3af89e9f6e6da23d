"""How firmly a run's tokens point at its most suspect step: a bootstrap over the tokens of every step."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pa_middleware.debugging.attribution import Rule

RESAMPLES = 200

Floats = NDArray[np.float64]


def share_of_resamples(
    first: int,
    token_log_ratios: Sequence[Sequence[float]],
    rule: Rule,
    *,
    scale: float = 1.0,
    mean: bool = False,
    threshold: float | None = None,
) -> float:
    """The share of resamples in which a rule suspects the same step first; 0 to 1, the same at every call.

    In a resample the tokens of every step are drawn anew from its own, with replacement. A step whose score hangs on
    one token of many keeps it in two resamples of three.

    Args:
        first: the most suspect step, an index into the steps.
        token_log_ratios: of each step's tokens, nats, at least one.
        rule: see `attribution.Rule`.
        scale: beta of the scores.
        mean: a step's score is the mean over its tokens, not the sum.
        threshold: of `first_below`.

    Naive equivalent: the mean of `decisive(scores, rule).step == first` over `RESAMPLES` sequences of
    `scale * sum(rng.choice(ratios, len(ratios)))` for each step.
    """
    random = np.random.default_rng(0)
    scores = np.empty((RESAMPLES, len(token_log_ratios)))
    for step, ratios in enumerate(token_log_ratios):
        count = len(ratios)
        drawn = np.asarray(ratios, dtype=np.float64).take(
            random.integers(count, size=(count, RESAMPLES), dtype=np.uint32)
        )
        scores[:, step] = drawn.sum(axis=0) * (scale / count if mean else scale)
    return float(np.mean(_firsts(scores, rule, threshold) == first))


def _firsts(scores: Floats, rule: Rule, threshold: float | None) -> NDArray[np.int64]:
    """For each row of scores [N, T] the step that a rule suspects first; -1 where it suspects none."""
    match rule:
        case "lowest":
            found = scores.argmin(axis=1)
        case "lowest_sum":
            found = scores.cumsum(axis=1).argmin(axis=1)
        case "sharpest_fall":
            falls = np.diff(scores, axis=1, prepend=scores[:, :1])
            found = np.where(falls.min(axis=1) < 0, falls.argmin(axis=1), -1)
        case "first_below":
            below = scores < (np.nan if threshold is None else threshold)
            found = np.where(below.any(axis=1), below.argmax(axis=1), -1)
    return np.asarray(found, dtype=np.int64)
