"""From the scores of a run so far to the probability that it will succeed: a map that was fitted on labelled runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from pa_middleware.guard.errors import RulesError
from pa_middleware.scoring.advantage import StepAggregation, run_score

MapKind = Literal["isotonic", "platt"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SuccessMap:
    """A rising function of the trajectory score, with values from 0 to 1.

    Raises:
        RulesError: knots that are no rising sequence of finite numbers, probabilities outside 0 to 1, unequal lengths.
    """

    kind: MapKind
    """`isotonic` is linear between its knots and flat outside them; `platt` is a logistic curve."""
    of: StepAggregation
    """How the step scores so far become one trajectory score."""
    x: tuple[float, ...]
    """isotonic: trajectory scores of the knots, rising. platt: the slope alone."""
    y: tuple[float, ...]
    """isotonic: probabilities at the knots. platt: the intercept alone."""

    def __post_init__(self) -> None:
        for name, allowed in (("kind", get_args(MapKind)), ("of", get_args(StepAggregation))):
            if getattr(self, name) not in allowed:
                raise RulesError(f"success.{name} is {getattr(self, name)!r}; allowed: {', '.join(map(repr, allowed))}")
        for name in ("x", "y"):
            given = getattr(self, name)
            try:
                values = tuple(float(value) for value in given)
            except (TypeError, ValueError, OverflowError):
                values = ()
            if not values or not all(map(math.isfinite, values)):
                raise RulesError(f"success.{name} is {given!r:.100}; allowed: finite numbers, at least one")
            object.__setattr__(self, name, values)
        if len(self.x) != len(self.y) or (self.kind == "platt" and len(self.x) != 1):
            raise RulesError(
                f"success.x has {len(self.x)} numbers and success.y {len(self.y)}; allowed: equally many, and one each "
                "for 'platt'"
            )
        if self.kind == "isotonic" and (list(self.x) != sorted(self.x) or min(self.y) < 0 or max(self.y) > 1):
            raise RulesError("success.x must rise and success.y lie between 0 and 1 for 'isotonic'")

    def probability(self, scores: Sequence[float]) -> float:
        """Of success, given the run's step scores so far, at least one, the latest last.

        Naive equivalent: `numpy.interp(run_score(scores, of), x, y)`, or `1 / (1 + exp(-(x[0] * s + y[0])))`.
        """
        score = run_score(scores, self.of)
        if self.kind == "isotonic":
            return float(np.interp(score, self.x, self.y))
        logit = self.x[0] * score + self.y[0]
        return 1 / (1 + math.exp(-logit)) if logit >= 0 else math.exp(logit) / (1 + math.exp(logit))
