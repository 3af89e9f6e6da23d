"""Where the thresholds of a rules file come from, and which scorer they hold for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Literal, get_args

from pa_middleware.guard.errors import RulesError
from pa_middleware.guard.success import SuccessMap

Method = Literal["conformal", "quantile"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """What a calibration found, and on what.

    Raises:
        RulesError: no fingerprint, or a number outside its range.
    """

    fingerprint: Mapping[str, str] = field(hash=False)
    """Of the scorer the thresholds hold for; see `scoring.fingerprint`."""
    method: Method
    """`conformal`: at most `alpha` of successful runs are ever stopped. `quantile`: at most `alpha` of all runs are,
    for want of labels, which says nothing about the good ones."""
    alpha: float
    """The share that was asked for."""
    bound: float
    """The share that is guaranteed: at most alpha."""
    runs: int
    """Calibrated on."""
    tasks: int
    """Those runs came from; runs of one task count as one."""
    successes: int | None = None
    """Among the runs; None without labels."""
    data: str
    """SHA-256 of what was calibrated on."""
    date: str
    """ISO 8601."""
    success: SuccessMap | None = None
    """From scores so far to the probability of success, if one was fitted."""

    def __post_init__(self) -> None:
        parts = self.fingerprint
        if not isinstance(parts, Mapping) or not parts or not all(isinstance(value, str) for value in parts.values()):
            raise RulesError(f"calibration.fingerprint is {parts!r:.100}; allowed: names and texts, at least one")
        object.__setattr__(self, "fingerprint", dict(parts))
        if self.method not in get_args(Method):
            raise RulesError(f"calibration.method is {self.method!r}; allowed: {', '.join(get_args(Method))}")
        for name in ("alpha", "bound"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1:
                raise RulesError(f"calibration.{name} is {value!r}; allowed: a number between 0 and 1")
        if self.bound > self.alpha:
            raise RulesError(f"calibration.bound is {self.bound!r}; allowed: at most alpha, {self.alpha!r}")
        for name in ("runs", "tasks", "successes"):
            count = getattr(self, name)
            if (name, count) != ("successes", None) and (type(count) is not int or count < 1):
                raise RulesError(f"calibration.{name} is {count!r}; allowed: a whole number from 1 on")
        if not isinstance(self.data, str) or not self.data:
            raise RulesError(f"calibration.data is {self.data!r:.100}; allowed: some text")
        if self.success is not None and not isinstance(self.success, SuccessMap):
            raise RulesError(f"calibration.success is {self.success!r:.100}; allowed: a SuccessMap, or None")
        try:
            date.fromisoformat(self.date)
        except (TypeError, ValueError) as error:
            raise RulesError(f"calibration.date is {self.date!r}; allowed: an ISO date such as '2026-01-31'") from error
