"""Which step of a failed run to take otherwise first: the earliest of those that are plainly wrong.

Attribution asks which step was worst. Whoever can change one step asks which of them saves most of the run. Some nats
below zero an action is wrong, however low it scores, and an earlier one leaves more to be saved. So a score counts for
no less than minus one nat here.
"""

from __future__ import annotations

from pa_middleware.debugging.attribution import Suspect, attribute
from pa_middleware.guard.record import Record
from pa_middleware.selection.trajectory import Trajectory

_CLOSE = 1e-3
"""Nats that a log-ratio may be off, or its share where it is large."""


def suspects_to_replay(run: Trajectory) -> tuple[Suspect, ...]:
    """Every scored step: those below minus one nat first, the earlier first; then the others, the lowest first.

    Below minus one nat lie the actions that the policy takes less than 1/e as often as the reference. A suspect's value
    is its score, or minus one nat where that is higher.

    Raises:
        AttributionError: no step has a score.

    Naive equivalent of the first suspect's step, where every step has a score and one of them is that low:
    `next(t for t in range(T) if scores[t] <= -one_nat(run))`.
    """
    least = -one_nat(run)
    return attribute([None if score is None else max(score, least) for score in run.scores])  # equals: earlier first


def one_nat(run: Trajectory) -> float:
    """What a nat of log-ratio counts in the run's scores: beta, if the records tell it, else 1.

    They tell it where every score is the same multiple of its action's log-ratio. It is not where tokens were
    aggregated otherwise than by their sum, nor with a scorer of another kind.
    """
    told = [pair for record in run.records if (pair := _score_and_log_ratio(record)) is not None]
    score, log_ratio = max(told, key=lambda pair: abs(pair[1]), default=(0.0, 0.0))
    beta = score / log_ratio if log_ratio else 0.0
    off = [abs(score / beta - log_ratio) / max(1.0, abs(log_ratio)) for score, log_ratio in told if beta > 0]
    return float(f"{beta:.4g}") if off and max(off) <= _CLOSE else 1.0  # without the rounding of log-probs


def _score_and_log_ratio(record: Record) -> tuple[float, float] | None:
    """Of the action that was taken, log pi_theta - log pi_ref in nats; None if it was not scored."""
    taken = record["candidates"][record["selected"]]
    score, policy, reference = record["score"], taken["policy_log_prob"], taken["reference_log_prob"]
    return None if None in (score, policy, reference) else (score, policy - reference)
