"""What a calibration found: the rules, and every number behind them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pa_middleware.calibration.held_out import Comparison
from pa_middleware.calibration.probability import ProbabilityCheck
from pa_middleware.guard.rules import Rules
from pa_middleware.guard.tiers import Kind


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolThreshold:
    """One threshold, and the kinds of action held to it."""

    kinds: tuple[Kind, ...]
    threshold: float
    alpha: float
    """Its part of the alpha that was asked for."""
    bound: float
    """Share of runs that are below it at most, on average over calibrations."""
    tasks: int
    """In which one of these kinds occurs, among the runs that calibrate."""
    below: float
    """Of those, the share that falls below: of the runs the threshold was made from, each task counted once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationReport:
    """The outcome of `calibrate`."""

    rules: Rules
    """With thresholds and calibration, ready to save."""
    alpha: float
    bound: float
    """Sum of the bounds of all thresholds; at most alpha."""
    thresholds: tuple[PoolThreshold, ...]
    unseen: tuple[Kind, ...]
    """Kinds that are judged and occur in no run: they are held to `rules.threshold`, and nothing is known of them."""
    runs: int
    """Used, failed ones among them."""
    tasks: int
    successes: int | None
    """None without labels."""
    calibrating_tasks: int
    """Tasks with a run that calibrates: a successful one, or without labels any."""
    left_out: Mapping[str, int]
    """Why runs were left out, and how many; only reasons that occur."""
    held_out: Comparison | None
    """None without labels: there is then no telling a caught failure from a false alarm."""
    probability: ProbabilityCheck | None
    """None unless a map was asked for; the map itself is `rules.calibration.success`."""

    @property
    def method(self) -> str:
        """`conformal` with labels, `quantile` without."""
        return "quantile" if self.successes is None else "conformal"
