"""How thresholds do on runs they were not made from: false alarms, caught failures, and how early.

Cross-fitted: tasks are dealt into folds, the thresholds of a fold come from the successful runs of all others. Every
task counts once in every rate, as in the calibration itself.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pa_middleware.calibration.conformal import Floats, Integers, conformal_threshold, equal_weights
from pa_middleware.calibration.signals import Signal
from pa_middleware.intervals import Estimate, estimate, resampled_ratios

MAX_FOLDS = 10

Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class HeldOut:
    """One way to stop runs, on runs it was not calibrated on."""

    name: str
    false_alarms: Estimate
    """Of successful runs, the share that was ever stopped."""
    power: Estimate
    """Of failed runs, the share that was ever stopped."""
    early: Estimate
    """Of failed runs, the share that was stopped before their last third."""
    lead: float | None
    """Median over the stopped failed runs: steps between the first stop and the end. None if none was stopped."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """The scorer and its baselines on the same held-out runs."""

    rows: tuple[HeldOut, ...]
    """The scorer first."""
    better_than_random: Estimate
    """Power of the scorer minus power of random numbers, paired."""
    folds: int


def left_with_a_fold_held_out(tasks: int) -> int:
    """How many of the tasks with a successful run the largest fold leaves to the others."""
    return tasks - math.ceil(tasks / MAX_FOLDS)


def deal_folds(tasks: Integers, success: Bools, random: np.random.Generator, *, most: int = MAX_FOLDS) -> Integers:
    """A fold for each run, [R]: all runs of a task in one, tasks with a successful run spread evenly.

    Args:
        tasks: [R], from 0 without gaps.
        success: [R].
        random: shuffles the tasks.
        most: folds; fewer if there are fewer tasks.
    """
    size = int(tasks.max()) + 1
    shuffled = random.permutation(size)
    succeeded = np.bincount(tasks[success], minlength=size) > 0
    dealt = shuffled[np.argsort(~succeeded[shuffled], kind="stable")]
    fold_of = np.empty(size, dtype=np.int64)
    fold_of[dealt] = np.arange(size) % min(most, size)
    return fold_of[tasks]


def compare(
    signals: Mapping[str, Sequence[Signal]],
    tasks: Integers,
    success: Bools,
    alphas: Mapping[str, float],
    random: np.random.Generator,
) -> Comparison:
    """Judge every run by thresholds that come from other tasks.

    Args:
        signals: by name; of several under one name the rates are averaged. The first is the scorer's, one is "random".
        tasks: [R], of each run, from 0 without gaps.
        success: [R]. Some run succeeded and some failed.
        alphas: of each signal, for each of its thresholds.
        random: deals the folds and resamples.
    """
    folds = deal_folds(tasks, success, random)
    stops: dict[str, Integers] = {}
    for name, alike in signals.items():
        held = [_thresholds(each.statistics(), tasks, success, folds, alphas[name]) for each in alike]
        stops[name] = np.stack([each.first_stops(one) for each, one in zip(alike, held, strict=True)])
    lengths = next(iter(signals.values()))[0].lengths
    shares: list[tuple[Floats, Bools]] = []
    for stop in stops.values():
        stopped = stop >= 0
        shares.append(_by_task(stopped, success, tasks))
        shares.append(_by_task(stopped, ~success, tasks))
        shares.append(_by_task(stopped & (3 * stop < 2 * lengths), ~success, tasks))
    drawn = _resampled(shares, random)
    rates = [estimate(_mean(*share), draws) for share, draws in zip(shares, drawn, strict=True)]
    scorer, chance = 1, 3 * list(signals).index("random") + 1
    difference = rates[scorer].value - rates[chance].value
    rows = tuple(
        HeldOut(name, *_three(rates, 3 * place), lead=_lead(stops[name], lengths, ~success))
        for place, name in enumerate(signals)
    )
    return Comparison(rows, estimate(difference, drawn[scorer] - drawn[chance]), int(folds.max()) + 1)


def _thresholds(statistics: Floats, tasks: Integers, success: Bools, folds: Integers, alpha: float) -> Floats:
    """[R, K] thresholds that each run is held to; -inf where the other folds know nothing to hold it to."""
    thresholds = np.full(statistics.shape, -np.inf)
    for fold in range(int(folds.max()) + 1):
        found = []
        for column in statistics.T:
            known = success & (folds != fold) & np.isfinite(column)
            found.append(conformal_threshold(column[known], equal_weights(tasks[known]), alpha))
        thresholds[folds == fold] = [-np.inf if each is None else each.value for each in found]
    return thresholds


def _by_task(happened: Bools, among: Bools, tasks: Integers) -> tuple[Floats, Bools]:
    """For each task the share of its runs `among` which it happened, [G], and whether it has any; `happened` [M, R]."""
    size = int(tasks.max()) + 1
    count = np.bincount(tasks[among], minlength=size)
    hits = np.bincount(tasks[among], happened[:, among].mean(axis=0), minlength=size)
    return hits / np.maximum(count, 1), count > 0


def _mean(share: Floats, counted: Bools) -> float:
    return float(share[counted].mean())


def _resampled(shares: Sequence[tuple[Floats, Bools]], random: np.random.Generator) -> list[Floats]:
    """The mean share in each resample of the tasks, [B]; NaN in those without a task that counts."""
    sums = np.stack([share * counted for share, counted in shares], axis=1)
    counts = np.stack([counted.astype(np.float64) for _, counted in shares], axis=1)
    return list(resampled_ratios(sums, counts, random).T)


def _three(rates: Sequence[Estimate], place: int) -> tuple[Estimate, Estimate, Estimate]:
    return rates[place], rates[place + 1], rates[place + 2]


def _lead(stop: Integers, lengths: Integers, failed: Bools) -> float | None:
    """Over the stops [M, R] of runs that failed."""
    caught = failed & (stop >= 0)
    return float(np.median((lengths - 1 - stop)[caught])) if caught.any() else None
