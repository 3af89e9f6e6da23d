"""The guard's settings: thresholds, draws, tiers, and what to do when nothing is good enough or nothing can be
scored.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import Any, ClassVar, Literal, get_args

import numpy as np

from pa_middleware.guard.calibrated import Calibration
from pa_middleware.guard.errors import RulesError
from pa_middleware.guard.tiers import KINDS, TIERS, Kind, Tier

Select = Literal["first_pass", "best"]
OnLow = Literal["abstain", "flag", "block", "escalate"]
OnScorerError = Literal["abstain", "flag", "escalate"]
Mode = Literal["enforce", "shadow"]
DrawnBy = Literal["policy", "reference"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """Settings of a guard. Every one is checked when the rules are made.

    Raises:
        RulesError: a setting is outside what is allowed, or could have no effect next to the others.
    """

    threshold: float | None = None
    """Lowest score that passes, for every kind of action without a threshold of its own. None judges none of them:
    actions are scored and recorded, or the best of several taken. Zero is not "average" (see `scoring.advantage`):
    calibrate the threshold on runs of your own."""
    thresholds: Mapping[Kind, float | None] = field(default_factory=dict, hash=False)
    """Own thresholds of `read_only`, `irreversible` and `final_answer`; None judges the kind not at all. An action is
    of the kind of its riskiest tool call."""
    tools: Mapping[str, Tier] = field(default_factory=dict, hash=False)
    """Tiers of tools: name or glob -> `read_only`, `default` or `irreversible`. A name goes before every glob, globs go
    in order, and both before the tool's own metadata; see `guard.tiers`."""
    draws: int = 1
    """Most actions drawn for one step; 1 draws none again."""
    draws_per_run: int | None = None
    """Most actions drawn in one run, which is all of a thread; each step may draw once in any case. What a search or
    replay draws beyond the rules does not count. None: no limit."""
    select: Select = "first_pass"
    """`first_pass` stops at the first draw that passes, `best` makes all draws and takes the best. Ties go to the
    action the policy finds likelier, then to the earlier draw."""
    stop_at: float | None = None
    """With `best`: make no more draws for a step once the chance that those left hold a better action is at most this,
    between 0 and 1; the bound on that chance is in `guard.enough`. Long actions, of which the models know countless
    variants, keep the chance high, and all draws are made. None: always all."""
    drawn_by: DrawnBy | None = None
    """Whose samples the draws are, for `stop_at`: the agent is the `policy` or the `reference` of the scorer, at
    temperature 1, the reference without top-k and top-p. An agent that is neither has no bound, and where its messages
    tell that they were sampled otherwise, all draws are made."""
    on_low: OnLow = "abstain"
    """When no draw passes: `abstain` ends the run with a safe message, `flag` runs the best draw and marks it, `block`
    answers the calls of the best draw that are low themselves with an error message and runs the others, `escalate`
    asks a human before any of its tools runs. With `block` every call is held to the threshold of its own tier, not
    only the action as a whole. A final answer has no call to hold back: under `block` and `escalate` it is abstained
    from. A model that insists is blocked again and again: bound its run with the graph's `recursion_limit`."""
    on_scorer_error: OnScorerError = "abstain"
    """When the scorer fails or is late: `abstain`, `escalate`, or `flag` to let actions run unscored and say so on
    every record and span."""
    scoring_timeout: float | None = None
    """Seconds that one call of the scorer may take; later it counts as failed. None: no limit."""
    trust_human_edits: bool = False
    """Run a call as a human edited it. By default it is scored like any other, and not run if it is low."""
    mode: Mode | None = None
    """`enforce`, or `shadow`: draw once, decide and record, and change nothing. None: `shadow` while there is a
    threshold that no calibration stands behind, else `enforce`."""
    abstain_message: str = "I am not confident enough in the next step to take it, so I stopped here."
    """What the agent says when it abstains."""
    calibration: Calibration | None = None
    """Where the thresholds come from, and the scorer they hold for."""

    __pydantic_config__: ClassVar = {"use_attribute_docstrings": True}  # the JSON schema says what is said here

    def __post_init__(self) -> None:
        if self.threshold is not None:
            object.__setattr__(self, "threshold", _threshold("threshold", self.threshold))
        object.__setattr__(self, "thresholds", _own_thresholds(self.thresholds))
        object.__setattr__(self, "tools", _tools(self.tools))
        for name in ("draws", "draws_per_run"):
            value = getattr(self, name)
            allowed = "a whole number from 1 on" + ("" if name == "draws" else ", or None for no limit")
            given = value is not None or name == "draws"
            _require(not given or (type(value) is int and value >= 1), name, value, allowed)
        for name, choices in _CHOICES.items():
            _require(getattr(self, name) in choices, name, getattr(self, name), ", ".join(map(repr, choices)))
        limit = self.scoring_timeout
        _require(
            limit is None or (_is_number(limit) and limit > 0),
            "scoring_timeout",
            limit,
            "seconds, more than 0, or None for no limit",
        )
        if limit is not None:
            object.__setattr__(self, "scoring_timeout", float(limit))
        stop_at = self.stop_at
        _require(
            stop_at is None or (_is_number(stop_at) and 0 < stop_at < 1),
            "stop_at",
            stop_at,
            "a chance, more than 0 and less than 1, or None to make all draws",
        )
        if stop_at is not None:
            object.__setattr__(self, "stop_at", float(stop_at))
            _require(self.drawn_by is not None, "drawn_by", None, "with stop_at, 'policy' or 'reference'")
        _require(type(self.trust_human_edits) is bool, "trust_human_edits", self.trust_human_edits, "True or False")
        text = self.abstain_message
        _require(isinstance(text, str) and bool(text.strip()), "abstain_message", self.abstain_message, "some text")
        _require(
            self.calibration is None or isinstance(self.calibration, Calibration),
            "calibration",
            self.calibration,
            "a Calibration, or None",
        )
        self._refuse_inert()

    def _refuse_inert(self) -> None:
        if self.draws == 1:
            _refuse(self.select == "best", "select='best'", "draws is 1", "set draws to 2 or more")
            _refuse(self.draws_per_run is not None, "draws_per_run", "draws is 1", "set draws to 2 or more")
        if self.select != "best":
            _refuse(self.stop_at is not None, f"stop_at={self.stop_at!r}", "select is not 'best'", "set select='best'")
        if self.stop_at is None:
            _refuse(self.drawn_by is not None, f"drawn_by={self.drawn_by!r}", "stop_at is not set", "set stop_at")
        if not self.judges:
            none = "no threshold is set"
            _refuse(self.on_low != "abstain", f"on_low={self.on_low!r}", none, "set threshold")
            _refuse(self.calibration is not None, "calibration", none, "set threshold")
            _refuse(
                bool(self.thresholds), f"thresholds={dict(self.thresholds)!r}", "none of them is a number", "set one"
            )
            _refuse(
                self.draws > 1 and self.select == "first_pass",
                f"draws={self.draws}",
                "without a threshold the first draw always passes",
                "set threshold, or select='best'",
            )
        if self.threshold is None:
            for kind, own in self.thresholds.items():
                _refuse(
                    own is None, f"thresholds[{kind!r}]=None", "there is no threshold that it departs from", "set it"
                )
        if self.judges and self.effective_mode == "enforce":
            for name, tier in self.tools.items():
                _refuse(
                    tier != "default" and tier not in self.thresholds,
                    f"tools[{name!r}]={tier!r}",
                    "this tier has no threshold of its own; its tools are judged like all others",
                    f"set thresholds[{tier!r}]",
                )

    @property
    def judges(self) -> bool:
        """Whether any kind of action is held to a threshold."""
        return self.threshold is not None or any(own is not None for own in self.thresholds.values())

    @property
    def effective_mode(self) -> Mode:
        """What `mode` comes to."""
        return self.mode or ("shadow" if self.judges and self.calibration is None else "enforce")

    @property
    def escalates(self) -> bool:
        """Whether a human may be asked."""
        return self.effective_mode == "enforce" and "escalate" in (self.on_low, self.on_scorer_error)

    def threshold_of(self, kind: Kind) -> float | None:
        """The threshold that actions of a kind, or calls of a tier, are held to; None if they are not judged."""
        return self.thresholds.get(kind, self.threshold)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Rules:
        """Rules from a JSON or TOML file; see `guard.rules_file`."""
        from pa_middleware.guard.rules_file import load_rules

        return load_rules(path)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the rules as JSON or TOML, as the file's name ends; `load` gives equal rules back."""
        from pa_middleware.guard.rules_file import save_rules

        save_rules(self, path)

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


_CHOICES: dict[str, tuple[Any, ...]] = {
    "select": get_args(Select),
    "on_low": get_args(OnLow),
    "on_scorer_error": get_args(OnScorerError),
    "mode": (*get_args(Mode), None),
    "drawn_by": (*get_args(DrawnBy), None),
}
_OWN = tuple(kind for kind in KINDS if kind != "default")


def _threshold(name: str, value: object) -> float:
    _require(_is_number(value), name, value, "a finite number, or None to judge nothing")
    return float(value)  # type: ignore[arg-type]


def _own_thresholds(given: object) -> dict[Kind, float | None]:
    if not isinstance(given, Mapping):
        raise RulesError(f"thresholds is {given!r:.100}; allowed: a mapping from {', '.join(map(repr, _OWN))}")
    for kind in given:
        remedy = "; the threshold of all other actions is `threshold`" if kind == "default" else ""
        _require(kind in _OWN, "a key of thresholds", kind, ", ".join(map(repr, _OWN)) + remedy)
    return {kind: None if own is None else _threshold(f"thresholds[{kind!r}]", own) for kind, own in given.items()}


def _tools(given: object) -> dict[str, Tier]:
    if not isinstance(given, Mapping):
        raise RulesError(f"tools is {given!r:.100}; allowed: a mapping from tool names or globs to tiers")
    for name, tier in given.items():
        _require(isinstance(name, str) and bool(name), "a key of tools", name, "a tool's name, or a glob")
        _require(tier in TIERS, f"tools[{name!r}]", tier, ", ".join(map(repr, TIERS)))
    return dict(given)


def _is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, Real):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond every float
        return False


def _require(holds: bool, name: str, given: object, allowed: str) -> None:
    if not holds:
        raise RulesError(f"{name} is {given!r}; allowed: {allowed}")


def _refuse(inert: bool, setting: str, because: str, remedy: str) -> None:
    if inert:
        raise RulesError(f"{setting} has no effect: {because}; {remedy}, or leave it out")
