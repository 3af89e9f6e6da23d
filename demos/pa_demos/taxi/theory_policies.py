"""Log-ratios of real policies against the exact advantage: agreement, what training paid for it, and the bars."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .agreement import agreement
from .exact import Table, occupancy, soft_optimum
from .theory_identities import TOLERANCE, Check

BARS: tuple[tuple[str, float, bool], ...] = (
    *(
        (f"{states}_{figure}", bar, True)
        for states in ("policy_states", "reference_states")
        for figure, bar in (("pearson", 0.93), ("spearman", 0.93), ("sign", 0.96), ("top1", 0.93))
    ),
    ("on_policy_spearman", 0.88, True),
    ("policy_states_regret", 0.04, False),
    ("success_gap", 0.02, False),
    ("reference_success", 0.16, True),
    ("reference_success", 0.22, False),
)
"""What the shipped pair is held to: a figure, its bar, and whether that is the lowest value that passes."""


@dataclass(frozen=True, slots=True)
class Policy:
    """One policy and how far its log-ratio is the exact advantage."""

    name: str
    beta: float
    iterations: int | None
    """Of training; None of the exact optimum."""
    policy: Table
    """Probabilities, [500, 7]."""
    reference: Table
    """Likewise."""
    score: Table
    """beta * log(policy / reference), [500, 7]; units of reward."""
    advantage: Table
    """A* of the optimum at this beta, [500, 7]."""
    figures: dict[str, float]
    """As of `agreement`; `kl`, KL(pi || pi_ref) in nats a step of the policy's own; `success_gap`, distance of its
    success from the optimum's; `largest_error` over what it visits."""


def measure(name: str, beta: float, iterations: int | None, log_policy: Table, log_reference: Table) -> Policy:
    """Compare one policy with the optimum at its beta.

    Args:
        name: for showing.
        beta: weight of the KL penalty in its training.
        iterations: of training; None for the exact optimum.
        log_policy: log pi, float64 [500, 7], nats.
        log_reference: log pi_ref, likewise.
    """
    policy, reference, score = np.exp(log_policy), np.exp(log_reference), beta * (log_policy - log_reference)
    advantage = soft_optimum(reference, beta=beta).advantage
    visits, _ = occupancy(policy)
    figures = agreement(log_policy, log_reference, beta=beta)
    figures |= {
        "kl": float(visits @ (policy * score).sum(axis=-1) / (beta * visits.sum())),
        "success_gap": abs(figures["policy_success"] - figures["optimum_success"]),
        "largest_error": float(np.abs(score - advantage)[visits > 0].max()),
    }
    return Policy(name, beta, iterations, policy, reference, score, advantage, figures)


def optimum(log_reference: Table, beta: float) -> Policy:
    """The exact optimum, measured like any other policy."""
    best = soft_optimum(np.exp(log_reference), beta=beta).policy
    log_best = np.log(best / best.sum(axis=-1, keepdims=True))
    return measure(f"beta {beta:g}, optimum", beta, None, log_best, log_reference)


def pair_checks(shipped: Policy) -> list[Check]:
    """The shipped pair against its bars."""
    return [Check(f"shipped pair: {name}", shipped.figures[name], bar, at_least) for name, bar, at_least in BARS]


def optimum_check(best: Policy) -> Check:
    """The tabular optimum's log-ratio is the exact advantage wherever it goes."""
    return Check("exact optimum: largest_error", best.figures["largest_error"], TOLERANCE)
