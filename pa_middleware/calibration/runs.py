"""What a calibration is made of: runs with a score for each step, and whether each run succeeded."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from pa_middleware.calibration.conformal import Integers
from pa_middleware.calibration.errors import CalibrationError
from pa_middleware.guard.tiers import KINDS, TIERS, Kind, Tier


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredStep:
    """One action as the agent took it.

    Raises:
        CalibrationError: an unknown kind or tier, or a number that is not finite.
    """

    kind: Kind
    score: float | None
    """Of the action; None if the scorer failed."""
    calls: tuple[tuple[Tier, float], ...] = ()
    """Tier and own score of each tool call; empty if the scorer does not tell them apart."""
    policy_log_prob: float | None = None
    """Of the action, nats, for comparison with the score; None if it was not recorded."""
    tokens: int = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise CalibrationError(f"kind is {self.kind!r}; allowed: {', '.join(map(repr, KINDS))}")
        for tier, _ in self.calls:
            if tier not in TIERS:
                raise CalibrationError(f"the tier of a call is {tier!r}; allowed: {', '.join(map(repr, TIERS))}")
        given = {"score": self.score, "policy_log_prob": self.policy_log_prob}
        given |= {f"calls[{place}]": score for place, (_, score) in enumerate(self.calls)}
        for name, value in given.items():
            if value is not None and not math.isfinite(value):
                raise CalibrationError(f"{name} is {value!r}; allowed: a finite number, or None for a failed score")


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredRun:
    """One run of an agent, from its first action to its last.

    Raises:
        CalibrationError: no step.
    """

    id: str
    steps: tuple[ScoredStep, ...]
    success: bool | None = None
    """None if nobody said."""
    task: str | None = None
    """What the run was to do. Runs of one task resemble each other and count as one; None is a task of its own."""
    guarded: bool = False
    """A guard watched over it that enforced its decisions, rather than only recorded them."""
    shaped: bool = False
    """That guard drew again, stopped or blocked: it is not what the agent does by itself, and calibrates nothing."""

    def __post_init__(self) -> None:
        if not self.steps:
            raise CalibrationError(f"the run {self.id!r} has no steps; allowed: one or more")

    @property
    def scored(self) -> bool:
        """Whether every step has a score."""
        return all(step.score is not None for step in self.steps)


def task_numbers(runs: Sequence[ScoredRun]) -> Integers:
    """The task of each run as a number from 0 without gaps, [R]; a run without a task is one of its own."""
    numbers: dict[Hashable, int] = {}
    tasks = [("run", run.id) if run.task is None else ("task", run.task) for run in runs]
    return np.array([numbers.setdefault(task, len(numbers)) for task in tasks], dtype=np.int64)


def data_hash(runs: Sequence[ScoredRun]) -> str:
    """SHA-256 of ids, tasks, labels and scores, whatever the order of the runs."""
    told = sorted(
        json.dumps([run.id, run.task, run.success, [[step.kind, step.score, step.calls] for step in run.steps]])
        for run in runs
    )
    return hashlib.sha256("\n".join(told).encode()).hexdigest()
