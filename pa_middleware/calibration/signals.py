"""What holds a run up, step by step: the scores that a guard compares with thresholds, or a simpler number instead.

All runs lie in one flat array, N steps in all, so that thousands of runs are judged at once.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from pa_middleware.calibration.conformal import Floats, Integers
from pa_middleware.calibration.runs import ScoredRun, ScoredStep
from pa_middleware.guard.tiers import Kind


@dataclass(frozen=True, slots=True)
class Signal:
    """One number for each step and each threshold that it is compared with; low is bad."""

    values: Floats
    """[N, K]; +inf where a step is not held to a threshold."""
    starts: Integers
    """[R]: where each run begins."""

    @property
    def lengths(self) -> Integers:
        """[R]: steps of each run."""
        return np.diff(self.starts, append=len(self.values))

    def statistics(self) -> Floats:
        """[R, K]: the lowest value of each run, which decides whether it is ever stopped."""
        return np.asarray(np.minimum.reduceat(self.values, self.starts, axis=0))

    def first_stops(self, thresholds: Floats) -> Integers:
        """[R]: the step, from 0, at which each run is first below a threshold; -1 if it never is.

        Args:
            thresholds: [R, K], those that each run is held to; -inf stops nothing.
        """
        lengths = self.lengths
        low = (self.values < np.repeat(thresholds, lengths, axis=0)).any(axis=1)
        places = np.arange(len(self.values)) - np.repeat(self.starts, lengths)
        first = np.minimum.reduceat(np.where(low, places, len(self.values)), self.starts)
        return np.asarray(np.where(first < lengths, first, -1))


def score_signal(runs: Sequence[ScoredRun], pools: Sequence[Collection[Kind]], *, each_call: bool) -> Signal:
    """The scores that a guard holds to its thresholds.

    Args:
        runs: scored throughout.
        pools: K groups of kinds, each with one threshold. A kind in none of them is not judged.
        each_call: every call's own score is held to the threshold of its tier too, as `on_low="block"` does.
    """
    rows = [[_lowest(step, pool, each_call) for pool in pools] for run in runs for step in run.steps]
    return Signal(np.array(rows, dtype=np.float64).reshape(-1, len(pools)), _starts(runs))


def log_prob_signal(runs: Sequence[ScoredRun]) -> Signal | None:
    """The policy's log-prob of each action, without any reference; None if it was not recorded throughout."""
    values = [step.policy_log_prob for run in runs for step in run.steps]
    known = [value for value in values if value is not None]
    return _column(known, runs) if len(known) == len(values) else None


def length_signal(runs: Sequence[ScoredRun]) -> Signal:
    """Minus the number of steps so far: its threshold stops a run for being long."""
    return _column([-(place + 1) for run in runs for place in range(len(run.steps))], runs)


def random_signal(runs: Sequence[ScoredRun], random: np.random.Generator) -> Signal:
    """A random number for each step: what a scorer that knows nothing does."""
    return _column(random.random(sum(len(run.steps) for run in runs)), runs)


def _lowest(step: ScoredStep, pool: Collection[Kind], each_call: bool) -> float:
    lowest = step.score if step.score is not None and step.kind in pool else np.inf
    if each_call:
        lowest = min([lowest, *(score for tier, score in step.calls if tier in pool)])
    return lowest


def _column(values: Sequence[float] | Floats, runs: Sequence[ScoredRun]) -> Signal:
    return Signal(np.asarray(values, dtype=np.float64)[:, None], _starts(runs))


def _starts(runs: Sequence[ScoredRun]) -> Integers:
    lengths = np.array([len(run.steps) for run in runs], dtype=np.int64)
    return np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(np.int64)
