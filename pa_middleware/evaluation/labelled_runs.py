"""The runs of a pass that an evaluation can use: labelled, and with a number of every signal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pa_middleware.evaluation.cells import Family, families
from pa_middleware.evaluation.errors import EvaluationError
from pa_middleware.evaluation.steps_table import Floats, Integers, Prefix
from pa_middleware.evaluation.stored import StoredRun, StoredScores
from pa_middleware.evaluation.trajectory import SUCCESS
from pa_middleware.tracing.visible import visible

NOT_THERE = "runs of the source that are not in these files"


@dataclass(frozen=True, slots=True)
class Usable:
    """Runs and their families, R rows each."""

    runs: tuple[StoredRun, ...]
    families: tuple[Family, ...]
    rewards: Floats
    tasks: Integers
    """[R], from 0 without gaps."""
    left_out: Mapping[str, int]

    @property
    def success(self) -> NDArray[np.bool_]:
        """[R]."""
        return np.asarray(self.rewards >= SUCCESS)

    @property
    def steps(self) -> int:
        """Actions of the runs."""
        return sum(len(run.steps) for run in self.runs)


def usable(scores: StoredScores, prefix: Prefix) -> Usable:
    """The runs with a reward, without those that lack a number of some signal.

    Raises:
        EvaluationError: no run is left.
    """
    labelled = [run for run in scores.runs if run.reward is not None]
    left_out = Counter({NOT_THERE: scores.missing, "runs without a label": len(scores.runs) - len(labelled)})
    if not labelled:
        raise EvaluationError(
            f"none of {len(scores.runs)} runs says how it went; score them again with --labels, or from a source with "
            "rewards"
        )
    found = families(replace(scores, runs=tuple(labelled)), prefix=prefix)
    known = np.ones(len(labelled), dtype=bool)
    for family in found:
        missing = np.isnan(family.values).any(axis=1) & known
        left_out[f"runs without a number of {visible(family.name)}"] += int(missing.sum())
        known &= ~missing
    if not known.any():
        raise EvaluationError(f"no run has a score{told(left_out)}; look at what `pa-middleware score` says of them")
    runs = tuple(run for run, kept in zip(labelled, known, strict=True) if kept)
    left_out[unscored(scores)] = sum(not step.policy.size for run in runs for step in run.steps)
    return Usable(
        runs=runs,
        families=tuple(replace(family, values=family.values[known]) for family in found),
        rewards=np.array([run.reward for run in runs], dtype=np.float64),
        tasks=numbered([run.task for run in runs]),
        left_out=dict(+left_out),
    )


def unscored(scores: StoredScores) -> str:
    """What is left out with an action that has no tokens."""
    return "texts of actions, cut off, which are steps of score 0" if scores.official else "actions without a score"


def numbered(names: Sequence[str]) -> Integers:
    """Each name's number, from 0 in the order of their first appearance."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(name, len(numbers)) for name in names], dtype=np.int64)


def told(left_out: Mapping[str, int]) -> str:
    """What was left out, for a message."""
    reasons = [f"{count} {why}" for why, count in left_out.items() if count]
    return f" (left out: {', '.join(reasons)})" if reasons else ""
