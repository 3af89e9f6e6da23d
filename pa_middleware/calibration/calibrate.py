"""Runs in, rules with calibrated thresholds out; or a refusal that says what is missing."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Literal, get_args

import numpy as np

from pa_middleware.calibration.conformal import conformal_threshold, equal_weights, tasks_needed
from pa_middleware.calibration.errors import CalibrationError
from pa_middleware.calibration.evidence import compare_scorer
from pa_middleware.calibration.held_out import deal_folds
from pa_middleware.calibration.pools import Pool, kinds_of, one_pool, pools_by_kind
from pa_middleware.calibration.probability import ProbabilityCheck, fit_and_check
from pa_middleware.calibration.report import CalibrationReport, PoolThreshold
from pa_middleware.calibration.runs import ScoredRun, data_hash, task_numbers
from pa_middleware.calibration.signals import score_signal
from pa_middleware.calibration.usable import check_runs, count_tasks, refuse_few, usable
from pa_middleware.guard.calibrated import Calibration
from pa_middleware.guard.rules import Rules
from pa_middleware.guard.success import MapKind, SuccessMap
from pa_middleware.guard.tiers import KINDS, Kind
from pa_middleware.scoring.advantage import StepAggregation


def calibrate(
    runs: Sequence[ScoredRun],
    *,
    fingerprint: Mapping[str, str],
    alpha: float = 0.1,
    by: Literal["tier"] | None = None,
    rules: Rules | None = None,
    probability: MapKind | None = None,
    of: StepAggregation = "min",
    seed: int = 0,
    date: str | None = None,
) -> CalibrationReport:
    """Thresholds that at most a share `alpha` of successful runs have an action below.

    The bound is for a run of a new task that is exchangeable with those given: same agent, same kind of tasks, nothing
    shaped by a guard. It holds on average over calibrations, for finitely many runs, whatever the scores are like. What
    the guard does at an action below its threshold (stop, draw again, ask, mark) makes no difference to it.

    Args:
        runs: of one agent, all scored by one scorer. If any has a label, those without one are left out. If none has,
            the bound is for all runs, which says nothing about the good ones.
        fingerprint: of the scorer; the rules hold for no other.
        alpha: between 0 and 1.
        by: `tier` gives each kind of action a threshold of its own and divides alpha among them (Bonferroni).
        rules: the other settings. Thresholds in them are replaced, but a kind whose threshold is None stays unjudged.
            A mode in them is kept; without one the result is enforced, for it is calibrated.
        probability: fit a map from scores so far to the probability of success as well; needs scikit-learn.
        of: how the step scores so far become the number that the probability is read from; only with `probability`.
        seed: of folds, resamples and the random baseline; from 0 on.
        date: ISO 8601; today by default.

    Raises:
        CalibrationError: too few runs for alpha; or with labels, no evidence that the scorer catches more failed runs
            than random numbers do (its `comparison` then holds the numbers); or a setting or run that is not allowed.
    """
    _check_settings(alpha, by, probability, of, seed)
    check_runs(runs)
    base = Rules() if rules is None else rules
    used, left_out = usable(runs)
    labelled = used[0].success is not None
    if probability is not None and not labelled:
        raise CalibrationError(f"probability={probability!r} needs labels: whether each run succeeded")
    good = [run for run in used if run.success is not False]
    refuse_few(good, alpha, left_out, labelled=labelled)
    each_call = base.on_low == "block"
    off = {kind for kind in KINDS if kind in base.thresholds and base.thresholds[kind] is None}
    occurring: set[Kind] = {kind for run in used for kind in kinds_of(run, each_call=each_call)}
    pools = one_pool(off)
    if by == "tier":
        pools = pools_by_kind(good, task_numbers(good), alpha=alpha, off=off, each_call=each_call, occurring=occurring)
    found = _thresholds(good, pools, alpha, each_call=each_call)
    random = np.random.default_rng(seed)
    held_out = success_map = check = None
    if labelled:
        signal = score_signal(used, pools, each_call=each_call)
        held_out = compare_scorer(used, signal, alpha, random)
        if probability is not None:
            success_map, check = _probability(used, probability, of, random)
    bound = min(alpha, sum(each.bound for each in found))
    calibration = Calibration(
        fingerprint=fingerprint,
        method="conformal" if labelled else "quantile",
        alpha=alpha,
        bound=bound,
        runs=len(used),
        tasks=count_tasks(used),
        successes=len(good) if labelled else None,
        data=data_hash(used),
        date=date or datetime.now(UTC).date().isoformat(),
        success=success_map,
    )
    return CalibrationReport(
        rules=_rules(base, found, off, calibration),
        alpha=alpha,
        bound=bound,
        thresholds=found,
        unseen=tuple(kind for kind in KINDS if kind not in occurring and kind not in off),
        runs=calibration.runs,
        tasks=calibration.tasks,
        successes=calibration.successes,
        calibrating_tasks=count_tasks(good),
        left_out=left_out,
        held_out=held_out,
        probability=check,
    )


def _check_settings(alpha: object, by: object, probability: object, of: object, seed: object) -> None:
    if not (isinstance(alpha, float) and 0 < alpha < 1):
        raise CalibrationError(f"alpha is {alpha!r}; allowed: a number between 0 and 1, such as 0.1")
    if by not in ("tier", None):
        raise CalibrationError(f"by is {by!r}; allowed: 'tier', or None for one threshold")
    for name, given, allowed in (
        ("probability", probability, (*get_args(MapKind), None)),
        ("of", of, get_args(StepAggregation)),
    ):
        if given not in allowed:
            raise CalibrationError(f"{name} is {given!r}; allowed: {', '.join(map(repr, allowed))}")
    if probability is None and of != "min":
        raise CalibrationError(f"of={of!r} has no effect without probability; set probability, or leave it out")
    if type(seed) is not int or seed < 0:
        raise CalibrationError(f"seed is {seed!r}; allowed: a whole number from 0 on")


def _thresholds(
    good: Sequence[ScoredRun], pools: Sequence[Pool], alpha: float, *, each_call: bool
) -> tuple[PoolThreshold, ...]:
    tasks = task_numbers(good)
    part = alpha / len(pools)
    found = []
    statistics = score_signal(good, pools, each_call=each_call).statistics()
    for pool, column in zip(pools, statistics.T, strict=True):
        known = np.isfinite(column)  # a kind is calibrated on the runs that have it, or it would spend alpha on few
        lowest, weights = column[known], equal_weights(tasks[known])
        threshold = conformal_threshold(lowest, weights, part)
        seen = len(set(tasks[known].tolist()))
        if threshold is None:
            raise CalibrationError(
                f"{seen} tasks have an action of the kinds {', '.join(pool)} in a run that calibrates; needed at alpha "
                f"{part:g}: {tasks_needed(part)}. Record more, or judge other kinds"
            )
        below = (weights * (lowest < threshold.value)).sum() / weights.sum()
        found.append(
            PoolThreshold(
                kinds=pool,
                threshold=threshold.value,
                alpha=part,
                bound=threshold.bound,
                tasks=seen,
                below=float(below),
            )
        )
    return tuple(found)


def _probability(
    used: Sequence[ScoredRun], kind: MapKind, of: StepAggregation, random: np.random.Generator
) -> tuple[SuccessMap, ProbabilityCheck]:
    success = np.array([run.success is True for run in used])
    scores = [[step.score for step in run.steps if step.score is not None] for run in used]
    return fit_and_check(scores, success, deal_folds(task_numbers(used), success, random), kind=kind, of=of)


def _rules(base: Rules, found: Sequence[PoolThreshold], off: set[Kind], calibration: Calibration) -> Rules:
    """The base settings with the thresholds that were found."""
    of_kind = {kind: each.threshold for each in found for kind in each.kinds}
    general = of_kind.get("default", max(of_kind.values()))  # unseen: held to the strictest
    # Tiers that the rules name need a threshold of their own, be it the general one.
    named = {tier for tier in base.tools.values() if tier != "default"}
    own: dict[Kind, float | None] = {
        kind: value for kind, value in of_kind.items() if kind != "default" and (len(found) > 1 or kind in named)
    }
    own |= {tier: general for tier in named if tier not in own and tier not in off}
    own |= dict.fromkeys(off)
    return dataclasses.replace(base, threshold=general, thresholds=own, calibration=calibration)
