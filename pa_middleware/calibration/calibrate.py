"""Runs in, rules with calibrated thresholds out; or a refusal that says what is missing."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Literal

import numpy as np

from pa_middleware.calibration.conformal import conformal_threshold, equal_weights, tasks_needed
from pa_middleware.calibration.errors import CalibrationError
from pa_middleware.calibration.evidence import compare_scorer
from pa_middleware.calibration.held_out import deal_folds, left_with_a_fold_held_out
from pa_middleware.calibration.pools import Pool, kinds_of, one_pool, pools_by_kind
from pa_middleware.calibration.probability import ProbabilityCheck, fit_and_check
from pa_middleware.calibration.report import CalibrationReport, PoolThreshold
from pa_middleware.calibration.runs import ScoredRun, data_hash, task_numbers
from pa_middleware.calibration.signals import score_signal
from pa_middleware.guard.calibrated import Calibration
from pa_middleware.guard.rules import Rules
from pa_middleware.guard.success import MapKind, SuccessMap
from pa_middleware.guard.tiers import KINDS, Kind
from pa_middleware.scoring.advantage import StepAggregation

SHAPED = "shaped by a guard"
LET_THROUGH = "let through by that guard"
UNSCORED = "without a score for every step"
UNLABELLED = "without a label"


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
    """Thresholds that stop at most a share `alpha` of successful runs.

    The bound is for a run of a new task that is exchangeable with those given: same agent, same kind of tasks, nothing
    shaped by a guard. It holds on average over calibrations, for finitely many runs, whatever the scores are like. A
    run counts as stopped at its first action below its threshold, also if the guard would draw again or ask.

    Args:
        runs: of one agent, all scored by one scorer. If any has a label, those without one are left out. If none has,
            the bound is for all runs, which says nothing about the good ones.
        fingerprint: of the scorer; the rules hold for no other.
        alpha: between 0 and 1.
        by: `tier` gives each kind of action a threshold of its own and divides alpha among them (Bonferroni).
        rules: the other settings. Thresholds in them are replaced, but a kind whose threshold is None stays unjudged.
        probability: fit a map from scores so far to the probability of success as well; needs scikit-learn.
        of: how the step scores so far become the number that the probability is read from.
        seed: of folds, resamples and the random baseline.
        date: ISO 8601; today by default.

    Raises:
        CalibrationError: too few runs for alpha; or with labels, no evidence that the scorer catches more failed runs
            than random numbers do; or something that does not fit together. The message holds the numbers.
    """
    if not (isinstance(alpha, float) and 0 < alpha < 1):
        raise CalibrationError(f"alpha is {alpha!r}; allowed: a number between 0 and 1, such as 0.1")
    if by not in ("tier", None):
        raise CalibrationError(f"by is {by!r}; allowed: 'tier', or None for one threshold")
    _refuse_twins(runs)
    base = Rules() if rules is None else rules
    used, left_out = _usable(runs)
    labelled = used[0].success is not None
    if probability is not None and not labelled:
        raise CalibrationError(f"probability={probability!r} needs labels: whether each run succeeded")
    good = [run for run in used if run.success is not False]
    _refuse_few(good, alpha, left_out, labelled=labelled)
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
        tasks=_count_tasks(used),
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
        calibrating_tasks=_count_tasks(good),
        left_out=left_out,
        held_out=held_out,
        probability=check,
    )


def _refuse_twins(runs: Sequence[ScoredRun]) -> None:
    twins = [name for name, count in Counter(run.id for run in runs).items() if count > 1]
    if twins:
        raise CalibrationError(
            f"{len(twins)} run ids are there more than once, {twins[0]!r} for one; give each run once"
        )


def _count_tasks(runs: Sequence[ScoredRun]) -> int:
    return len(set(task_numbers(runs).tolist()))


def _usable(runs: Sequence[ScoredRun]) -> tuple[list[ScoredRun], dict[str, int]]:
    """The runs that say something about the agent, and why the others do not.

    Where a guard shaped some runs, those it let through are a selection: their scores are all above its threshold, and
    a threshold made from them would be too high. So they are left out as well.
    """
    labelled = any(run.success is not None for run in runs)
    selected = any(run.shaped for run in runs)
    used: list[ScoredRun] = []
    left_out: Counter[str] = Counter()
    for run in runs:
        if run.shaped:
            left_out[SHAPED] += 1
        elif selected and run.guarded:
            left_out[LET_THROUGH] += 1
        elif not run.scored:
            left_out[UNSCORED] += 1
        elif labelled and run.success is None:
            left_out[UNLABELLED] += 1
        else:
            used.append(run)
    if not used:
        raise CalibrationError(
            f"none of {len(runs)} runs can be used ({_told(left_out)}); record runs with a guard in shadow mode, "
            "Rules(mode='shadow', ...), which scores every action and changes nothing"
        )
    return used, dict(left_out)


def _refuse_few(good: Sequence[ScoredRun], alpha: float, left_out: Mapping[str, int], *, labelled: bool) -> None:
    """With labels, a fold is held out to check the threshold: the others must be enough for one."""
    have, need = _count_tasks(good), tasks_needed(alpha)
    counted = left_with_a_fold_held_out(have) if labelled else have
    if counted < need:
        what = "a successful run" if labelled else "a run"
        check = f", with a tenth held out to check on, which leaves {counted}" if labelled else ""
        best = f"; with what there is, alpha can be {1 / (counted + 1):.4g} at best" if counted else ""
        raise CalibrationError(
            f"alpha={alpha:g} needs at least {need} tasks with {what}, and there are {have} (in {len(good)} such "
            f"runs){check}. Left out: {_told(left_out)}. Record more runs, or choose a larger alpha{best}"
        )


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
        if threshold is None:
            raise CalibrationError(f"no action of the kinds {', '.join(pool)} is in any run that calibrates")
        below = (weights * (lowest < threshold.value)).sum() / weights.sum()
        found.append(
            PoolThreshold(
                kinds=pool,
                threshold=threshold.value,
                alpha=part,
                bound=threshold.bound,
                tasks=len(set(tasks[known].tolist())),
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
    return dataclasses.replace(
        base, threshold=general, thresholds=own, calibration=calibration, mode=base.mode or "enforce"
    )


def _told(left_out: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {why}" for why, count in left_out.items()) or "none"
