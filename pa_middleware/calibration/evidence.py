"""Whether the scorer catches failures at all: without evidence of it, no thresholds are made."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pa_middleware.calibration.errors import CalibrationError
from pa_middleware.calibration.held_out import Comparison, compare
from pa_middleware.calibration.runs import ScoredRun, task_numbers
from pa_middleware.calibration.signals import Signal, length_signal, log_prob_signal, random_signal

MIN_FAILED_TASKS = 6
"""With fewer, even a scorer that catches all of them where chance catches none is no evidence: 2 * 0.5 ** 5 > 0.05."""
RANDOM_SCORERS = 20
"""Averaged, so that the luck of one decides nothing."""


def compare_scorer(used: Sequence[ScoredRun], signal: Signal, alpha: float, random: np.random.Generator) -> Comparison:
    """The held-out comparison.

    Raises:
        CalibrationError: too few failed runs to compare on, or the scorer is not better than chance; the error then
            holds the comparison.
    """
    tasks = task_numbers(used)
    success = np.array([run.success is True for run in used])
    failed = len(set(tasks[~success].tolist()))
    if failed < MIN_FAILED_TASKS:
        raise CalibrationError(
            f"there are {failed} tasks with a failed run and {int(success.sum())} successful runs; it takes "
            f"{MIN_FAILED_TASKS} such tasks at least to see whether the scorer catches failures at all. Record harder "
            "tasks, or a weaker agent, and label runs that failed with 0"
        )
    signals = {
        "score": [signal],
        "length": [length_signal(used)],
        "random": [random_signal(used, random) for _ in range(RANDOM_SCORERS)],
    }
    alphas = dict.fromkeys(signals, alpha) | {"score": alpha / signal.values.shape[1]}
    log_probs = log_prob_signal(used)
    if log_probs is not None:
        signals["policy log-prob"], alphas["policy log-prob"] = [log_probs], alpha
    comparison = compare(signals, tasks, success, alphas, random)
    better = comparison.better_than_random
    if not better.low > 0:
        caught = {row.name: row.power.value for row in comparison.rows}
        raise CalibrationError(
            f"on held-out runs ({int(success.sum())} successful, {int((~success).sum())} failed, alpha {alpha:g}) the "
            "scorer is not shown to catch more failed runs than random numbers do: it catches "
            f"{caught['score']:.1%}, they {caught['random']:.1%}, and the 95 % interval of the difference, "
            f"{100 * better.low:+.1f} to {100 * better.high:+.1f} points, is not above 0; record more runs, or look at "
            "what the scorer scores",
            comparison,
        )
    return comparison
