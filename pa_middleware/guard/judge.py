"""Scores of a step's draws -> which one is taken and what becomes of it. Pure: no graph, no model, no span."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from langchain_core.messages import AIMessage, ToolCall

from pa_middleware.guard.decision import Decision, Reason
from pa_middleware.guard.rules import Rules
from pa_middleware.guard.tiers import Kind, Tier, kind_of
from pa_middleware.guard.turn import Proposed
from pa_middleware.scoring.errors import ScoringError, UnscorableActionError
from pa_middleware.scoring.scorer import CallScore, CandidateScore, StepScore


@dataclass(frozen=True, slots=True)
class Draw:
    """One draw of a step with its score, or with the error that stands in its place."""

    proposal: Proposed
    tiers: tuple[Tier | None, ...] = ()
    """Of each tool call, in order; None for one that no tool runs, but that gives the final answer its form."""
    score: CandidateScore | None = None
    least_margin: float = 0.0
    """Scores of this step that differ by no more are equal but for rounding."""
    error: Exception | None = None
    same_as: int | None = None
    """The earlier draw that proposed the same action and lends it its score."""
    log_prob_margin: float = 0.0
    """Log-probs of this step's actions that differ by no more are equal but for rounding; nats, whatever the scores'
    scale."""

    @property
    def kind(self) -> Kind:
        """Which threshold the action is held to."""
        return kind_of_action(self.tiers)

    @property
    def holdable(self) -> bool:
        """Whether its calls can be held back: it has some, and none of them is a final answer in disguise."""
        return bool(self.tiers) and None not in self.tiers

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
    held: frozenset[int] = frozenset()
    """Positions of the taken draw's tool calls that must not run, or not before a human said so."""


def passes(draw: Draw, rules: Rules) -> bool:
    """Whether a draw is good enough under the rules; one without a score never is."""
    return draw.score is not None and good_enough(draw.score, draw.tiers, rules)


def good_enough(score: CandidateScore, tiers: Sequence[Tier | None], rules: Rules) -> bool:
    """Whether a score is.

    The action is held to the threshold of its kind; a final answer among its calls to that of final answers as well;
    with `on_low="block"` each call to that of its own tier.
    """
    if _is_low(score.score, rules.threshold_of(kind_of_action(tiers))):
        return False
    if None in tiers:
        answers = [call.score for call, tier in zip(score.calls, tiers, strict=False) if tier is None]
        if _is_low(min(answers, default=score.score), rules.threshold_of("final_answer")):
            return False
    return rules.on_low != "block" or not _low_calls(score, tiers, rules)


def kind_of_action(tiers: Sequence[Tier | None]) -> Kind:
    """Which threshold an action is held to, from the tiers of its calls."""
    return kind_of(tier for tier in tiers if tier is not None)


def judge(draws: Sequence[Draw], rules: Rules, *, out_of_budget: bool) -> Verdict:
    """The verdict over a step's draws.

    Args:
        draws: at least one, in the order drawn.
        rules: the guard's.
        out_of_budget: the run's draws were used up before the step's were.
    """
    best = _best(draws, range(len(draws)))
    passing = [index for index, draw in enumerate(draws) if passes(draw, rules)]
    failed = [index for index, draw in enumerate(draws) if draw.failed]
    if failed:  # what may still run is not one that is known to be low, nor one that cannot be scored
        return _unscored(draws, rules, _best(draws, passing or failed), best)
    if draws[best].score is None:  # an action that cannot be scored never runs
        return Verdict("abstain", "not_scored", best)
    if passing:
        unjudged: Reason = "best_of" if rules.select == "best" else "no_threshold"
        taken = _best(draws, passing) if rules.select == "best" else passing[0]
        judged = rules.threshold_of(draws[taken].kind) is not None
        return Verdict("pass", "above_threshold" if judged else unjudged, taken)
    reason: Reason = "budget_exhausted" if out_of_budget else "below_threshold"
    match rules.on_low:
        case "flag":
            return Verdict("flag", reason, best)
        case "block" | "escalate" as held if draws[best].holdable:
            return Verdict(held, reason, best, _held_calls(draws[best], rules))
        case _:  # a final answer has no call to hold back
            return Verdict("abstain", reason, best)


def _unscored(draws: Sequence[Draw], rules: Rules, taken: int, best: int) -> Verdict:
    """The verdict when the scorer failed."""
    match rules.on_scorer_error:
        case "flag":
            return Verdict("flag", "scorer_error", taken)
        case "escalate" if draws[taken].holdable:
            return Verdict("escalate", "scorer_error", taken, _all_calls(draws[taken]))
        case _:
            return Verdict("abstain", "scorer_error", best)


def check_answer(answer: object, actions: Sequence[AIMessage]) -> StepScore:
    """A scorer's answer for one step, held to its protocol: finite numbers for each candidate and each scored call.

    Raises:
        ScoringError: anything else.
    """
    match answer:
        case [StepScore(candidates=candidates) as step] if len(candidates) == len(actions):
            pass
        case _:
            raise ScoringError(
                f"the scorer did not answer one StepScore with {len(actions)} candidate(s): {answer!r:.200}"
            )
    if not (math.isfinite(step.least_margin) and step.least_margin >= 0):
        raise ScoringError(f"the scorer answered a least margin of {step.least_margin!r}; it is finite and at least 0")
    for score, action in zip(candidates, actions, strict=True):
        calls = action.tool_calls
        if score.calls and not _are_of(score.calls, calls):
            raise ScoringError(
                f"the scorer answered {len(score.calls)} call scores, which are not those of {len(calls)} tool calls"
            )
        parts = (score.policy_log_prob, score.reference_log_prob, *(call.score for call in score.calls))
        for value in (score.score, *parts):
            if type(value) is not float or not math.isfinite(value):  # a numpy float would not survive a checkpoint
                raise ScoringError(f"the scorer answered {value!r:.100}; scores and log-probs are finite floats")
        if not isinstance(score.token_log_ratios, tuple):
            raise ScoringError(f"token_log_ratios is a {type(score.token_log_ratios).__name__}; needed: a tuple")
    return step


def _are_of(scores: Sequence[CallScore], calls: Sequence[ToolCall]) -> bool:
    """Whether these are the scores of these calls, in order."""
    return len(scores) == len(calls) and all(
        score.name == call["name"] and score.id in (None, call["id"]) for score, call in zip(scores, calls, strict=True)
    )


def _best(draws: Sequence[Draw], among: Iterable[int]) -> int:
    """Higher score first; then the action the policy finds likelier; then the earlier draw (rounding aside).

    Rounding is that of the draw which leads, so that one which scores clearly below it has no say in which others are
    even, however uncertain it is itself: `guard.enough` counts on that.
    """
    indices = list(among)
    scored = {index: score for index in indices if (score := draws[index].score) is not None}
    if not scored:
        return indices[0]
    highest = max(scored, key=lambda index: scored[index].score)
    level = scored[highest].score - draws[highest].least_margin
    even = {index: score for index, score in scored.items() if score.score >= level}
    likeliest = max(even, key=lambda index: even[index].policy_log_prob)
    level = even[likeliest].policy_log_prob - draws[likeliest].log_prob_margin
    return min(index for index, score in even.items() if score.policy_log_prob >= level)


def _held_calls(draw: Draw, rules: Rules) -> frozenset[int]:
    """The calls that are low themselves; all of them where none stands out, or the scorer does not tell them apart."""
    low = _low_calls(draw.score, draw.tiers, rules) if draw.score is not None else frozenset()
    return low or _all_calls(draw)


def _low_calls(score: CandidateScore, tiers: Sequence[Tier | None], rules: Rules) -> frozenset[int]:
    return frozenset(
        position
        for position, (call, tier) in enumerate(zip(score.calls, tiers, strict=bool(score.calls)))
        if tier is not None and _is_low(call.score, rules.threshold_of(tier))
    )


def _all_calls(draw: Draw) -> frozenset[int]:
    return frozenset(position for position, tier in enumerate(draw.tiers) if tier is not None)


def _is_low(score: float, threshold: float | None) -> bool:
    return threshold is not None and score < threshold
