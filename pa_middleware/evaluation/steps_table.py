"""The actions of many stored runs in flat arrays, and what becomes of their tokens, and of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pa_middleware.evaluation.errors import EvaluationError
from pa_middleware.evaluation.stored import StoredRun, StoredScores
from pa_middleware.scoring.advantage import Order, StepAggregation, TokenAggregation

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

SIGNALS: Mapping[str, str] = {
    "policy_log_prob": "policy",
    "reference_log_prob": "reference",
    "self_certainty": "top_mean",
    "kl_from_uniform": "self_certainty",
    "entropy": "entropy",
}
"""Signals of one number a token, and where it is stored. The paper's self-certainty is the mean of the top 20."""
_CERTAINTY = frozenset({"top_mean", "self_certainty", "entropy"})
"""What the official code leaves out of a run where an action was cut off, rather than count it as 0."""
Prefix = int | Literal["shortest"] | None
"""How many first actions of a run count: so many, as many as the task's shortest run with any has, or all."""


class Steps:
    """The stored actions of many runs in flat arrays; S steps, T tokens.

    Args:
        scores: a pass.
        prefix: which actions count.
    """

    def __init__(self, scores: StoredScores, prefix: Prefix = None) -> None:
        self.official = scores.official
        self.beta = _beta(scores.header)
        most = _most(scores.runs, prefix)
        kept = [run.steps[:count] for run, count in zip(scores.runs, most, strict=True)]
        steps = [step for run in kept for step in run]
        self.runs = len(kept)
        self.of_run: Integers = np.repeat(np.arange(self.runs), [len(run) for run in kept])
        """[S]: the run of each step."""
        self.kept = most
        self.indexes: Integers = np.array([step.index for step in steps], dtype=np.int64)
        """[S]: message of each step."""
        self.lengths: Integers = np.array([step.policy.size for step in steps], dtype=np.int64)
        """[S]: tokens."""
        self._tokens = {
            name: _joined([getattr(step, name) for step in steps])
            for name in ("policy", "reference", "top_mean", "entropy", "self_certainty")
        }

    def advantage(self, token: TokenAggregation, order: Order) -> Floats:
        """Progress advantage of each step, [S]; where it has no tokens NaN, or 0 as in the official code.

        Naive equivalent: `advantage.action_score(step.policy, step.reference, ...)` of each.
        """
        policy, reference = self._tokens["policy"], self._tokens["reference"]
        if order == "ratio_then_aggregate":
            return self.beta * self._aggregated(policy - reference, token, empty=self._cut_off)
        of_policy, of_reference = (self._aggregated(each, token, empty=self._cut_off) for each in (policy, reference))
        return self.beta * (of_policy - of_reference)

    def signal(self, name: str, token: TokenAggregation, *, cut_off: float | None = None) -> Floats:
        """A family's number of each step, [S], high is good.

        Args:
            name: of the family.
            token: how tokens become one number.
            cut_off: of a step without tokens; None: what the official code's trajectory scores do.
        """
        stored = SIGNALS[name]
        if cut_off is None:
            cut_off = np.nan if stored in _CERTAINTY else self._cut_off
        values = self._tokens[stored]
        return self._aggregated(-values if name == "entropy" else values, token, empty=cut_off)

    def external(self, scores: Sequence[Sequence[float | None]]) -> Floats:
        """Another reward model's numbers of each step, [S]."""
        kept = [run[:count] for run, count in zip(scores, self.kept, strict=True)]
        return np.array([np.nan if each is None else each for run in kept for each in run], dtype=np.float64)

    def of_runs(self, values: Floats, aggregation: StepAggregation) -> Floats:
        """Steps' numbers [S] -> runs' [R]; steps that are NaN are left out, a run without any other is NaN.

        Naive equivalent: `advantage.run_score` of each run's.
        """
        known = ~np.isnan(values)
        counts = np.bincount(self.of_run[known], minlength=self.runs)
        kept = values[known]
        if aggregation != "bottom10":
            return _reduced(kept, counts, aggregation, empty=np.nan)
        lowest = np.lexsort((kept, self.of_run[known]))
        most = np.maximum(1, np.ceil(0.1 * counts)).astype(np.int64) * (counts > 0)
        places = np.arange(len(kept)) - np.repeat(np.cumsum(counts) - counts, counts)
        among = places < np.repeat(most, counts)
        return _reduced(kept[lowest][among], most, "mean", empty=np.nan)

    def tokens(self) -> Floats:
        """Scored tokens of each run, [R]."""
        return np.bincount(self.of_run, self.lengths, minlength=self.runs).astype(np.float64)

    @property
    def _cut_off(self) -> float:
        return 0.0 if self.official else np.nan

    def _aggregated(self, values: NDArray[np.float32], token: TokenAggregation, *, empty: float) -> Floats:
        return _reduced(values.astype(np.float64), self.lengths, token, empty=empty)


def _reduced(values: Floats, counts: Integers, aggregation: str, *, empty: float) -> Floats:
    """One number for each group of neighbours in a flat array; `empty` for a group without any."""
    result = np.full(len(counts), empty)
    full = counts > 0
    if full.any():
        starts = (np.cumsum(counts) - counts)[full]
        result[full] = _REDUCE[aggregation](values, starts, counts[full])
    return result


_REDUCE: Mapping[str, Callable[[Floats, Integers, Integers], Floats]] = {
    "sum": lambda values, starts, _: np.add.reduceat(values, starts),
    "mean": lambda values, starts, counts: np.add.reduceat(values, starts) / counts,
    "last": lambda values, starts, counts: values[starts + counts - 1],
    "min": lambda values, starts, _: np.minimum.reduceat(values, starts),
    "max": lambda values, starts, _: np.maximum.reduceat(values, starts),
}


def _beta(header: Mapping[str, object]) -> float:
    told = header.get("beta", 1.0)
    if isinstance(told, bool) or not isinstance(told, int | float) or not (math.isfinite(told) and told > 0):
        raise EvaluationError(f"the pass has beta {told!r:.80}; allowed: a finite number above 0; score the runs again")
    return float(told)


def _joined(arrays: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    return np.concatenate(arrays) if arrays else np.zeros(0, dtype=np.float32)


def _most(runs: Sequence[StoredRun], prefix: Prefix) -> list[int]:
    """How many first actions of each run count."""
    if prefix is None:
        return [len(run.steps) for run in runs]
    if prefix == "shortest":
        shortest: dict[str, int] = {}
        for run in runs:
            if run.steps:  # a run without actions says nothing of how far the others can be looked at
                shortest[run.task] = min(len(run.steps), shortest.get(run.task, len(run.steps)))
        return [shortest.get(run.task, 0) for run in runs]
    if type(prefix) is not int or prefix < 1:
        raise EvaluationError(f"prefix is {prefix!r}; allowed: a whole number from 1 on, 'shortest', or None")
    return [prefix] * len(runs)
