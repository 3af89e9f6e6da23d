"""Which runs a calibration may use, and whether they are enough."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from pa_middleware.calibration.conformal import tasks_needed
from pa_middleware.calibration.errors import CalibrationError
from pa_middleware.calibration.held_out import left_with_a_fold_held_out
from pa_middleware.calibration.recorded import RecordedRun
from pa_middleware.calibration.runs import ScoredRun, task_numbers

SHAPED = "shaped by a guard"
LET_THROUGH = "let through by that guard"
UNSCORED = "without a score for every step"
UNLABELLED = "without a label"


def check_runs(runs: Sequence[object]) -> None:
    """Refuse what is no run, and a run that is there twice."""
    for run in runs:
        if isinstance(run, RecordedRun):
            raise CalibrationError(
                "runs hold RecordedRun; pass them through apply_labels(runs, labels), or give "
                "[each.run for each in runs]"
            )
        if not isinstance(run, ScoredRun):
            raise CalibrationError(f"runs hold {run!r:.100}; allowed: ScoredRun")
    ids = Counter(run.id for run in runs if isinstance(run, ScoredRun))
    twins = [name for name, count in ids.items() if count > 1]
    if twins:
        raise CalibrationError(
            f"{len(twins)} run ids are there more than once, {twins[0]!r} for one; give each run once"
        )


def count_tasks(runs: Sequence[ScoredRun]) -> int:
    """How many tasks the runs are of."""
    return len(set(task_numbers(runs).tolist()))


def usable(runs: Sequence[ScoredRun]) -> tuple[list[ScoredRun], dict[str, int]]:
    """The runs that say something about the agent, and why the others do not.

    Where a guard shaped some runs, those it let through are a selection: their scores are all above its threshold, and
    a threshold made from them would be too high. So they are left out as well.

    Raises:
        CalibrationError: there is none.
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
        why = f" ({_told(left_out)})" if left_out else ""
        raise CalibrationError(
            f"none of {len(runs)} runs can be used{why}; record runs with a guard in shadow mode, "
            "Rules(mode='shadow', ...), which scores every action and changes nothing"
        )
    return used, dict(left_out)


def refuse_few(good: Sequence[ScoredRun], alpha: float, left_out: Mapping[str, int], *, labelled: bool) -> None:
    """Refuse runs that are too few for a threshold at alpha; with labels, also with a fold of them held out.

    Args:
        good: those that calibrate.
        alpha: share of them that may have an action below its threshold.
        left_out: see `usable`.
        labelled: whether the threshold will be checked on held-out runs.
    """
    have, need = count_tasks(good), tasks_needed(alpha)
    counted = left_with_a_fold_held_out(have) if labelled else have
    if counted >= need:
        return
    if labelled:
        what = (
            f"{tasks_to_record(alpha)} tasks with a successful run ({need} to calibrate and the rest held out to check)"
        )
    else:
        what = f"{need} tasks with a run"
    without = f" (left out: {_told(left_out)})" if left_out else ""
    larger = f", or use alpha {smallest_alpha(counted):g} or larger" if counted else ""
    raise CalibrationError(f"alpha={alpha:g} needs {what}; there are {have}{without}. Record more{larger}")


def tasks_to_record(alpha: float) -> int:
    """How many tasks with a successful run it takes, so that enough are left when a fold of them is held out."""
    tasks = tasks_needed(alpha)
    while left_with_a_fold_held_out(tasks) < tasks_needed(alpha):
        tasks += 1
    return tasks


def smallest_alpha(tasks: int) -> float:
    """The smallest alpha that so many tasks are enough for, rounded up to two digits."""
    exact = 1 / (tasks + 1)
    scale = 10.0 ** (1 - math.floor(math.log10(exact)))
    return math.ceil(exact * scale - 1e-9) / scale


def _told(left_out: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {why}" for why, count in left_out.items())
