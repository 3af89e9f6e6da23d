"""A map from the scores of a run so far to the probability that it succeeds, and how well it does on other runs."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pa_middleware.calibration.conformal import Floats, Integers
from pa_middleware.calibration.errors import CalibrationError
from pa_middleware.guard.success import MapKind, SuccessMap
from pa_middleware.scoring.advantage import StepAggregation, run_score

BINS = 10


@dataclass(frozen=True, slots=True)
class Bin:
    """Prefixes of runs that were given about the same probability."""

    predicted: float
    """Mean of the probabilities given."""
    observed: float
    """Share of those that succeeded."""
    count: int
    """Prefixes; those of one run are not independent."""


@dataclass(frozen=True, slots=True)
class ProbabilityCheck:
    """Cross-fitted: each run's probabilities come from a map fitted on other tasks. Each run counts once."""

    brier: float
    """Mean squared error of the probability; lower is better."""
    base_rate_brier: float
    """The same of always answering the share of successful runs."""
    reliability: tuple[Bin, ...]
    """In ten equal ranges of the probability, without the empty ones."""


def fit(scores: Floats, success: NDArray[np.bool_], weights: Floats, kind: MapKind, of: StepAggregation) -> SuccessMap:
    """A rising map from trajectory scores to probabilities.

    Args:
        scores: [P], a trajectory score each.
        success: [P], how it ended.
        weights: [P].
        kind: `isotonic`, or `platt` with Platt's smoothed targets. Where higher scores go with fewer successes, both
            give the base rate everywhere.
        of: what the scores are; kept with the map.

    Raises:
        CalibrationError: scikit-learn is not installed.
    """
    if kind == "isotonic":
        model = _sklearn("sklearn.isotonic").IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip")
        model.fit(scores, success.astype(float), sample_weight=weights)
        return SuccessMap(kind=kind, of=of, x=tuple(model.X_thresholds_), y=tuple(model.y_thresholds_))
    good, bad = float(weights[success].sum()), float(weights[~success].sum())
    target = np.where(success, (good + 1) / (good + 2), 1 / (bad + 2))
    center, scale = float(scores.mean()), float(scores.std()) or 1.0
    model = _sklearn("sklearn.linear_model").LogisticRegression(C=1e6, solver="newton-cholesky")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Line search of Newton solver")  # it goes on with another solver then
        model.fit(
            np.tile((scores - center) / scale, 2)[:, None],
            np.repeat([1, 0], len(scores)),
            sample_weight=np.concatenate([weights * target, weights * (1 - target)]),
        )
    slope = float(model.coef_[0, 0]) / scale
    intercept = float(model.intercept_[0]) - slope * center
    if slope < 0:
        rate = float(np.average(target, weights=weights))
        slope, intercept = 0.0, float(np.log(rate / (1 - rate)))
    return SuccessMap(kind=kind, of=of, x=(slope,), y=(intercept,))


def fit_and_check(
    scores: Sequence[Sequence[float]],
    success: NDArray[np.bool_],
    folds: Integers,
    *,
    kind: MapKind,
    of: StepAggregation,
) -> tuple[SuccessMap, ProbabilityCheck]:
    """The map on all runs, and its cross-fitted check. Every prefix is a sample, weighted so that a run counts once.

    Args:
        scores: of the steps of each of the R runs.
        success: [R], both outcomes among them.
        folds: [R], see `held_out.deal_folds`.
        kind: see `fit`.
        of: how the step scores so far become one.
    """
    lengths = np.array([len(run) for run in scores])
    sofar = np.concatenate([prefix_scores(run, of) for run in scores])
    ended = np.repeat(success, lengths)
    weights = np.repeat(1 / lengths, lengths)
    fold = np.repeat(folds, lengths)
    predicted, base = np.empty(len(sofar)), np.empty(len(sofar))
    for number in np.unique(folds):
        here, there = fold == number, fold != number
        base[here] = np.average(ended[there], weights=weights[there])
        if np.unique(ended[there]).size == 2:
            predicted[here] = apply_map(fit(sofar[there], ended[there], weights[there], kind, of), sofar[here])
        else:  # all others ended alike: nothing to tell them apart by
            predicted[here] = base[here]
    check = ProbabilityCheck(
        brier=float(np.average((predicted - ended) ** 2, weights=weights)),
        base_rate_brier=float(np.average((base - ended) ** 2, weights=weights)),
        reliability=reliability(predicted, ended, weights),
    )
    return fit(sofar, ended, weights, kind, of), check


def prefix_scores(scores: Sequence[float], of: StepAggregation) -> Floats:
    """The trajectory score after each step, [S].

    Naive equivalent: `[run_score(scores[: end + 1], of) for end in range(len(scores))]`.
    """
    values = np.asarray(scores, dtype=np.float64)
    match of:
        case "sum":
            return np.asarray(np.cumsum(values))
        case "mean":
            return np.asarray(np.cumsum(values) / np.arange(1, len(values) + 1))
        case "last":
            return values
        case "min":
            return np.asarray(np.minimum.accumulate(values))
        case "max":
            return np.asarray(np.maximum.accumulate(values))
    return np.array([run_score(values[: end + 1], of) for end in range(len(values))])


def apply_map(success: SuccessMap, scores: Floats) -> Floats:
    """Probabilities of trajectory scores, [P] each."""
    if success.kind == "isotonic":
        return np.asarray(np.interp(scores, success.x, success.y))
    return np.asarray(1 / (1 + np.exp(-np.clip(success.x[0] * scores + success.y[0], -700, 700))))


def reliability(predicted: Floats, ended: NDArray[np.bool_], weights: Floats) -> tuple[Bin, ...]:
    """What was predicted against what happened, in ten equal ranges of the probability; [P] each."""
    place = np.minimum((predicted * BINS).astype(int), BINS - 1)
    bins = []
    for number in range(BINS):
        here = place == number
        if here.any():
            mean = [float(np.average(values[here], weights=weights[here])) for values in (predicted, ended)]
            bins.append(Bin(mean[0], mean[1], int(here.sum())))
    return tuple(bins)


def _sklearn(module: str) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        raise CalibrationError(
            "a map to probabilities needs scikit-learn; install it with: pip install 'pa-middleware[calibration]'"
        ) from error
