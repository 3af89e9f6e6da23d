"""Made-up runs: scores in, runs out, so that a test says only what it is about."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pa_middleware.calibration import CalibrationReport, ScoredRun, ScoredStep, calibrate
from pa_middleware.guard.tiers import Kind

SCORER = {"policy": "1f", "reference": "2e"}
"""A scorer's fingerprint."""


def a_run(name: object, scores: Sequence[float | None], success: bool | None = True, **more: Any) -> ScoredRun:
    """A run whose steps are of the default kind."""
    return ScoredRun(
        id=str(name), steps=tuple(ScoredStep(kind="default", score=s) for s in scores), success=success, **more
    )


def by_kind(name: object, scores: dict[Kind, float], success: bool | None = True, **more: Any) -> ScoredRun:
    """A run with one step of each of some kinds."""
    steps = tuple(ScoredStep(kind=kind, score=score) for kind, score in scores.items())
    return ScoredRun(id=str(name), steps=steps, success=success, **more)


def failures(count: int, score: float = -100.0) -> list[ScoredRun]:
    """Failed runs that any threshold catches at their first step of six."""
    return [a_run(f"bad {place}", [score] + [0.0] * 5, success=False) for place in range(count)]


def good_runs(count: int, seed: int = 0, steps: int = 6) -> list[ScoredRun]:
    """Successful runs with normally distributed scores."""
    scores = np.random.default_rng(seed).normal(size=(count, steps))
    return [a_run(f"good {place}", row.tolist()) for place, row in enumerate(scores)]


def fit(runs: Sequence[ScoredRun], **settings: Any) -> CalibrationReport:
    """`calibrate` with the fingerprint above and a date."""
    return calibrate(runs, **{"fingerprint": SCORER, "date": "2026-01-31", **settings})
