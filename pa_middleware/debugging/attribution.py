"""Which step of a run went wrong: the paper's rules, from the scores of its steps to a ranked list of suspects.

Pure functions on numbers. A suspect is no verdict: whether another action at that step would have saved the run is
shown by going back to it and acting otherwise.

The paper's official code names one step, and names the first one where its rule finds nothing: no score below zero, no
fall. Here `lowest` and `lowest_sum` rank the steps whatever the sign of their scores, for zero is no mark that scores
are held to, and `sharpest_fall` and `first_below` suspect nothing where there is no fall, or nothing below.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, get_args

Rule = Literal["lowest", "lowest_sum", "sharpest_fall", "first_below"]
"""`lowest`: the lowest score. `lowest_sum`: where the sum of the scores so far is lowest. `sharpest_fall`: the largest
fall from one step's score to the next. `first_below`: the earliest score below a threshold."""

RULES: tuple[Rule, ...] = get_args(Rule)

_Scored = Sequence[tuple[int, float]]
"""Step and score of each step that has one, in the run's order."""
_Ranked = Iterator[tuple[int, float, float]]
"""Of each suspect in the run's order: its step, its value, and its rank, the smaller the more suspect."""


class AttributionError(ValueError):
    """There is no suspect in these scores, or the rule cannot be used on them as it was asked for."""


@dataclass(frozen=True, slots=True)
class Suspect:
    """A step that may be where a run went wrong."""

    step: int
    """Index into the run's steps, from 0."""
    value: float
    """What the rule ranks by. `lowest`: the score. `lowest_sum`: the sum up to and with this step. `sharpest_fall`: the
    fall to this step's score, above 0. `first_below`: the step's index itself."""
    margin: float
    """How far its value stands before the next suspect's, at least 0; 0 for the last suspect."""


def attribute(
    scores: Sequence[float | None], rule: Rule = "lowest", *, threshold: float | None = None
) -> tuple[Suspect, ...]:
    """Every step that a rule suspects, most suspect first; among equals the earlier step first.

    Args:
        scores: of a run's steps, in its order, positive where RL raised the odds of the action; None for a step without
            a score, which is no suspect and is passed over.
        rule: see `Rule`. `lowest` and `lowest_sum` rank every scored step. `sharpest_fall` ranks the steps that score
            less than the scored step before them, so never the first. `first_below` ranks by time the steps below the
            threshold.
        threshold: of `first_below`; a score at the threshold is not below it.

    Returns:
        Empty if no score falls (`sharpest_fall`) or none is below the threshold (`first_below`), else not.

    Raises:
        AttributionError: no step has a score; a score or the threshold is not finite, or a sum or fall is beyond the
            float range; an unknown rule; `first_below` without a threshold, or a threshold with another rule.

    Naive equivalents of the first suspect's step, where every step has a score:
        lowest:         `min(range(T), key=lambda t: scores[t])`
        lowest_sum:     `min(range(T), key=lambda t: sum(scores[: t + 1]))`
        sharpest_fall:  `max(range(1, T), key=lambda t: scores[t - 1] - scores[t])`, if that is above 0
        first_below:    `next(t for t in range(T) if scores[t] < threshold)`
    """
    ranked = sorted(_rank(rule, _scored(scores), threshold), key=lambda suspect: suspect[2])  # stable: earlier first
    following = [rank for _, _, rank in ranked[1:]] + [rank for _, _, rank in ranked[-1:]]
    suspects = tuple(
        Suspect(step, value, after - rank) for (step, value, rank), after in zip(ranked, following, strict=True)
    )
    if not all(math.isfinite(suspect.value) and math.isfinite(suspect.margin) for suspect in suspects):
        raise AttributionError(f"rule={rule!r}: sums or differences of these scores are beyond the float range")
    return suspects


def decisive(scores: Sequence[float | None], rule: Rule = "lowest", *, threshold: float | None = None) -> Suspect:
    """The most suspect step of a run.

    Args:
        scores: as in `attribute`.
        rule: as in `attribute`.
        threshold: as in `attribute`.

    Raises:
        AttributionError: as `attribute`; the rule suspects no step.

    Naive equivalent: `attribute(scores, rule, threshold=threshold)[0]`.
    """
    suspects = attribute(scores, rule, threshold=threshold)
    if suspects:
        return suspects[0]
    found = "no score is lower than the one before it" if threshold is None else f"no score is below {threshold!r}"
    raise AttributionError(f"rule={rule!r} suspects no step: {found}; choose another rule, such as 'lowest'")


def _scored(scores: Sequence[float | None]) -> _Scored:
    for step, score in enumerate(scores):
        if score is not None and not math.isfinite(score):
            raise AttributionError(f"the score of step {step} is {score!r}; allowed: a finite number, or None for none")
    scored = [(step, float(score)) for step, score in enumerate(scores) if score is not None]
    if not scored:
        raise AttributionError(f"none of the {len(scores)} steps has a score; there is nothing to rank")
    return scored


def _rank(rule: Rule, scored: _Scored, threshold: float | None) -> _Ranked:
    if rule == "first_below":
        if threshold is None:
            raise AttributionError("rule='first_below' needs a threshold: give threshold=..., a finite number")
        if not math.isfinite(threshold):
            raise AttributionError(f"threshold is {threshold!r}; allowed: a finite number")
        return _first_below(scored, threshold)
    if rule not in _RANKS:
        raise AttributionError(f"rule is {rule!r}; allowed: {', '.join(map(repr, RULES))}")
    if threshold is not None:
        raise AttributionError(f"threshold={threshold!r} has no effect with rule={rule!r}; leave it out")
    return _RANKS[rule](scored)


def _lowest(scored: _Scored) -> _Ranked:
    return ((step, score, score) for step, score in scored)


def _lowest_sum(scored: _Scored) -> _Ranked:
    total = 0.0
    for step, score in scored:
        total += score
        yield step, total, total


def _sharpest_fall(scored: _Scored) -> _Ranked:
    for (_, before), (step, score) in pairwise(scored):
        if score < before:
            yield step, before - score, score - before


def _first_below(scored: _Scored, threshold: float) -> _Ranked:
    return ((step, float(step), float(step)) for step, score in scored if score < threshold)


_RANKS: dict[str, Callable[[_Scored], _Ranked]] = {
    "lowest": _lowest,
    "lowest_sum": _lowest_sum,
    "sharpest_fall": _sharpest_fall,
}
