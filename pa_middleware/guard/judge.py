"""Scores of a step's draws -> which one is taken and what becomes of it. Pure: no graph, no model, no span."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pa_middleware.guard.decision import Decision, Reason
from pa_middleware.guard.proposal import Proposal
from pa_middleware.guard.rules import Rules
from pa_middleware.scoring.errors import ScoringError, UnscorableActionError
from pa_middleware.scoring.scorer import CandidateScore, StepScore


@dataclass(frozen=True, slots=True)
class Draw:
    """One draw of a step with its score, or with the error that stands in its place."""

    proposal: Proposal
    score: CandidateScore | None = None
    least_margin: float = 0.0
    """Scores of this step that differ by no more are equal but for rounding."""
    error: Exception | None = None

    @property
    def failed(self) -> bool:
        """The scorer failed, which is not the action's fault."""
        return self.error is not None and not isinstance(self.error, UnscorableActionError)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of a step."""

    decision: Decision
    reason: Reason
    selected: int
    """Which draw is taken, or would have been."""
    blocked: frozenset[int] = frozenset()
    """Positions of the taken draw's tool calls that must not run."""


def passes(score: CandidateScore | None, rules: Rules) -> bool:
    """Whether a score is good enough under the rules; no score never is."""
    if score is None:
        return False
    held = [score.score, *(call.score for call in score.calls if rules.on_low == "block")]
    return rules.threshold is None or min(held) >= rules.threshold


def judge(draws: Sequence[Draw], rules: Rules, *, out_of_budget: bool) -> Verdict:
    """The verdict over a step's draws.

    Args:
        draws: at least one, in the order drawn.
        rules: the guard's.
        out_of_budget: the run's draws were used up before the step's were.
    """
    best = _best(draws, range(len(draws)))
    passing = [index for index, draw in enumerate(draws) if passes(draw.score, rules)]
    failed = [index for index, draw in enumerate(draws) if draw.failed]
    if failed:  # under flag, not one that is known to be low, nor one that cannot be scored
        flagged = rules.on_scorer_error == "flag"
        return Verdict(rules.on_scorer_error, "scorer_error", _best(draws, passing or failed) if flagged else best)
    if draws[best].score is None:  # an action that cannot be scored never runs
        return Verdict("abstain", "not_scored", best)
    if passing:
        unjudged: Reason = "best_of" if rules.select == "best" else "no_threshold"
        taken = _best(draws, passing) if rules.select == "best" else passing[0]
        return Verdict("pass", unjudged if rules.threshold is None else "above_threshold", taken)
    reason: Reason = "budget_exhausted" if out_of_budget else "below_threshold"
    match rules.on_low:
        case "flag":
            return Verdict("flag", reason, best)
        case "block" if draws[best].proposal.action.tool_calls:
            return Verdict("block", reason, best, _blocked(draws[best], rules))
        case _:
            return Verdict("abstain", reason, best)


def check_answer(answer: object, draws: Sequence[Proposal]) -> StepScore:
    """A scorer's answer for one step, held to its protocol: finite numbers for each candidate and each scored call.

    Raises:
        ScoringError: anything else.
    """
    match answer:
        case [StepScore(candidates=candidates) as step] if len(candidates) == len(draws):
            pass
        case _:
            raise ScoringError(
                f"the scorer did not answer one StepScore with {len(draws)} candidate(s): {answer!r:.200}"
            )
    if not (math.isfinite(step.least_margin) and step.least_margin >= 0):
        raise ScoringError(f"the scorer answered a least margin of {step.least_margin!r}; it is finite and at least 0")
    for score, proposal in zip(candidates, draws, strict=True):
        calls = proposal.action.tool_calls
        if score.calls and [call.name for call in score.calls] != [call["name"] for call in calls]:
            raise ScoringError(f"the scorer answered {len(score.calls)} call scores for {len(calls)} tool calls")
        parts = (score.policy_log_prob, score.reference_log_prob, *(call.score for call in score.calls))
        for value in (score.score, *parts):
            if type(value) is not float or not math.isfinite(value):  # a numpy float would not survive a checkpoint
                raise ScoringError(f"the scorer answered {value!r:.100}; scores and log-probs are finite floats")
        if not isinstance(score.token_log_ratios, tuple):
            raise ScoringError(f"token_log_ratios is a {type(score.token_log_ratios).__name__}; needed: a tuple")
    return step


def _best(draws: Sequence[Draw], among: Iterable[int]) -> int:
    """Higher score first; then the action the policy finds likelier; then the earlier draw (rounding aside)."""
    indices = list(among)
    scored = {index: score for index in indices if (score := draws[index].score) is not None}
    if not scored:
        return indices[0]
    margin = max(draws[index].least_margin for index in scored)
    highest = max(score.score for score in scored.values())
    even = {index: score for index, score in scored.items() if score.score >= highest - margin}
    likeliest = max(score.policy_log_prob for score in even.values())
    return min(index for index, score in even.items() if score.policy_log_prob >= likeliest - margin)


def _blocked(draw: Draw, rules: Rules) -> frozenset[int]:
    """The calls that are low themselves; all of them where none stands out, or the scorer does not tell them apart."""
    calls = range(len(draw.proposal.action.tool_calls))
    if draw.score is None or rules.threshold is None:
        return frozenset(calls)
    low = {index for index, call in enumerate(draw.score.calls) if call.score < rules.threshold}
    return frozenset(low or calls)
