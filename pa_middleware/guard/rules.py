"""The guard's settings: threshold, draws, and what to do when nothing is good enough or nothing can be scored."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from pa_middleware.guard.errors import RulesError

Select = Literal["first_pass", "best"]
OnLow = Literal["abstain", "flag", "block"]
OnScorerError = Literal["abstain", "flag"]
Mode = Literal["enforce", "shadow"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """Settings of a guard. Every one is checked when the rules are made.

    Raises:
        RulesError: a setting is outside what is allowed, or could have no effect next to the others.
    """

    threshold: float | None = None
    """Lowest score that passes. None judges nothing: actions are scored and recorded, or the best of several taken.
    Zero is not "average" (see `scoring.advantage`): take a threshold from scores of your own, e.g. `at_quantile`."""
    draws: int = 1
    """Most actions drawn for one step; 1 draws none again."""
    draws_per_run: int | None = None
    """Most actions drawn in one run, which is all of a thread; each step may draw once in any case. None: no limit."""
    select: Select = "first_pass"
    """`first_pass` stops at the first draw that passes, `best` makes all draws and takes the best. Ties go to the
    action the policy finds likelier, then to the earlier draw."""
    on_low: OnLow = "abstain"
    """When no draw passes: `abstain` ends the run with a safe message, `flag` runs the best draw and marks it, `block`
    answers the calls of the best draw that are low themselves with an error message and runs the others. With `block`
    every call is held to the threshold, not only the action as a whole."""
    on_scorer_error: OnScorerError = "abstain"
    """When the scorer fails: `abstain`, or `flag` to let actions run unscored and say so on every record and span."""
    mode: Mode = "enforce"
    """`shadow` draws once, decides and records, and changes nothing."""
    abstain_message: str = "I am not confident enough in the next step to take it, so I stopped here."
    """What the agent says when it abstains."""

    def __post_init__(self) -> None:
        if self.threshold is not None:
            _require(
                _is_number(self.threshold), "threshold", self.threshold, "a finite number, or None to judge nothing"
            )
            object.__setattr__(self, "threshold", float(self.threshold))
        for name in ("draws", "draws_per_run"):
            value = getattr(self, name)
            allowed = "a whole number from 1 on" + ("" if name == "draws" else ", or None for no limit")
            given = value is not None or name == "draws"
            _require(not given or (type(value) is int and value >= 1), name, value, allowed)
        for name, choices in _CHOICES.items():
            _require(getattr(self, name) in choices, name, getattr(self, name), " or ".join(map(repr, choices)))
        text = self.abstain_message
        _require(isinstance(text, str) and bool(text.strip()), "abstain_message", self.abstain_message, "some text")
        self._refuse_inert()

    def _refuse_inert(self) -> None:
        if self.draws == 1:
            _refuse(self.select == "best", "select='best'", "draws is 1", "set draws to 2 or more")
            _refuse(self.draws_per_run is not None, "draws_per_run", "draws is 1", "set draws to 2 or more")
        if self.threshold is None:
            _refuse(self.on_low != "abstain", f"on_low={self.on_low!r}", "no threshold is set", "set threshold")
            _refuse(
                self.draws > 1 and self.select == "first_pass",
                f"draws={self.draws}",
                "without a threshold the first draw always passes",
                "set threshold, or select='best'",
            )

    @classmethod
    def at_quantile(cls, scores: Sequence[float], quantile: float, **settings: Any) -> Rules:
        """Rules whose threshold is a quantile of scores seen before.

        Args:
            scores: scores of actions of the agent to be guarded, finite, at least one; the more the better.
            quantile: share of those actions that would have fallen below, between 0 and 1.
            settings: every other setting of the rules.

        Naive equivalent: `numpy.quantile(scores, quantile, method="inverted_cdf")`.
        """
        try:
            values = np.asarray(list(scores), dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise RulesError(f"scores is {scores!r:.100}; allowed: a sequence of finite numbers") from error
        if values.ndim != 1 or values.size == 0 or not np.isfinite(values).all():
            raise RulesError(f"scores hold {values.size} values; allowed: a sequence of at least one, all finite")
        _require(_is_number(quantile) and 0 <= quantile <= 1, "quantile", quantile, "a number from 0 to 1")
        return cls(threshold=float(np.quantile(values, quantile, method="inverted_cdf")), **settings)


_CHOICES = {
    "select": get_args(Select),
    "on_low": get_args(OnLow),
    "on_scorer_error": get_args(OnScorerError),
    "mode": get_args(Mode),
}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _require(holds: bool, name: str, given: object, allowed: str) -> None:
    if not holds:
        raise RulesError(f"{name} is {given!r}; allowed: {allowed}")


def _refuse(inert: bool, setting: str, because: str, remedy: str) -> None:
    if inert:
        raise RulesError(f"{setting} has no effect: {because}; {remedy}, or leave it out")
