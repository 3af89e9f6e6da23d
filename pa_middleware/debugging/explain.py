"""Which step of a recorded run went wrong, how sure that is, and why: for people, from a trace.

A step of a `Run` is an action of the agent, so that no observation is ever a suspect.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from pa_middleware.debugging.attribution import AttributionError, Rule, Suspect, attribute
from pa_middleware.debugging.outlier import FEWEST, lowest_is_outlier
from pa_middleware.debugging.tokens import share_of_resamples
from pa_middleware.tracing import conventions as names
from pa_middleware.tracing.runs import Run, TracedStep

_NO_SUSPECT = {
    "sharpest_fall": "no score is lower than the one before it",
    "first_below": "no score is below the threshold",
}
_LINEAR = ("sum", "mean")
"""Token aggregations that a bootstrap over tokens is made for."""


@dataclass(frozen=True, slots=True)
class Attribution:
    """The suspects of a run. None of them is a verdict: that takes another action at the step, and another end."""

    rule: Rule
    suspects: tuple[Suspect, ...]
    """Most suspect first; their `step` is an index into the run's steps. Empty if the rule suspects none."""
    stays_first: float | None
    """Share of bootstraps over the steps' tokens in which the first suspect stays first: on how many tokens the
    suspicion rests, and no probability of being right. None for a single scored step, without the log-ratio of every
    token of every scored step, or where scores are no sum or mean over tokens."""
    stands_out: bool
    """The first suspect has the lowest score (`sharpest_fall`: the sharpest fall), and the gap to the next is wider
    than rounding, and than Dixon's test leaves to chance (5 %); see `outlier`."""
    why: str
    """In a sentence, with steps called by the index that the agent counts them by."""


def explain(run: Run, rule: Rule = "lowest", *, threshold: float | None = None) -> Attribution:
    """Ask a rule for the suspects of a run, and say how far to trust it.

    Args:
        run: as a reader gives it; steps without a score are passed over.
        rule: see `Rule`.
        threshold: of `first_below`.

    Raises:
        AttributionError: an unknown rule; `first_below` without a threshold, or a threshold with another rule.
    """
    attribute([0.0], rule, threshold=threshold)  # refuses a wrong rule or threshold, whatever the run
    scores = [step.score for step in run.steps]
    if all(score is None for score in scores):
        return Attribution(rule, (), None, stands_out=False, why="no step of this run has a score")
    try:
        suspects = attribute(scores, rule, threshold=threshold)
    except AttributionError as error:  # a trace may hold any number
        return Attribution(rule, (), None, stands_out=False, why=f"no step can be suspected: {error}")
    if not suspects:
        return Attribution(rule, (), None, stands_out=False, why=f"no step stands out: {_NO_SUSPECT[rule]}")
    stands_out, why = _standing(run, rule, suspects)
    stays_first = _stays_first(run, rule, suspects[0].step, threshold)
    return Attribution(rule, suspects, stays_first, stands_out=stands_out, why=why)


def _standing(run: Run, rule: Rule, suspects: tuple[Suspect, ...]) -> tuple[bool, str]:
    """Whether the first suspect stands out, and the sentence that says so."""
    evidence = sorted(_falls(run) if rule == "sharpest_fall" else _scores(run), key=lambda each: each[1])
    place, value = evidence[0]
    step = run.steps[place]
    said = f"step {step.index} scores "
    said += f"{-value:.3g} less than the step before" if rule == "sharpest_fall" else f"{value:+.3g}"
    if suspects[0].step != place:
        named = run.steps[suspects[0].step]
        return False, f"no step stands out: {said}, lower than step {named.index} with {named.score:+.3g}"
    if len(evidence) < FEWEST:
        needed = FEWEST + (rule == "sharpest_fall")
        return False, f"no step stands out: {said}; it takes {needed} scores to tell"
    following, gap = run.steps[evidence[1][0]], evidence[1][1] - value
    if gap <= max(_rounding(step), _rounding(following)):
        return False, f"no step stands out: {said}; step {following.index} is equal but for rounding"
    if lowest_is_outlier([each for _, each in evidence]):
        return True, f"{said}; the next, step {following.index}, is {gap:.3g} away, a gap that chance seldom leaves"
    return False, f"no step stands out: {said}; the next, step {following.index}, is only {gap:.3g} away"


def _scores(run: Run) -> list[tuple[int, float]]:
    return [(place, step.score) for place, step in enumerate(run.steps) if step.score is not None]


def _falls(run: Run) -> list[tuple[int, float]]:
    """Of each scored step but the first: its place, and its score less the one before."""
    return [(place, score - before) for (_, before), (place, score) in pairwise(_scores(run))]


def _rounding(step: TracedStep) -> float:
    selected = step.selected
    return (selected.least_margin or 0.0) if selected is not None else 0.0


def _stays_first(run: Run, rule: Rule, first: int, threshold: float | None) -> float | None:
    scored = _scores(run)
    if len(scored) == 1:  # it would be first whatever its tokens say
        return None
    tokens: list[tuple[float, ...]] = []
    for place, _ in scored:
        selected = run.steps[place].selected
        if selected is None or not selected.log_ratios or len(selected.log_ratios) != selected.token_count:
            return None
        tokens.append(selected.log_ratios)
    told = run.steps[scored[0][0]]
    aggregation = told.attributes.get(names.NORMALIZATION)
    if aggregation not in _LINEAR:
        return None
    return share_of_resamples(
        [place for place, _ in scored].index(first),
        tokens,
        rule,
        scale=_beta(told),
        mean=aggregation == "mean",
        threshold=threshold,
    )


def _beta(step: TracedStep) -> float:
    """Of the scores, by the scorer's fingerprint; 1 if it does not say."""
    try:
        return float(step.fingerprint.get("beta", 1.0))
    except ValueError:
        return 1.0
