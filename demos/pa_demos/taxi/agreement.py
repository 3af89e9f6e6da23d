"""How far a pair's log-ratio is the exact advantage: weighted figures over exact state occupancies."""

from __future__ import annotations

import numpy as np

from .environment import BETA, MALFORMED
from .exact import Table, occupancy, soft_optimum


def weighted_pearson(x: Table, y: Table, weight: Table) -> float:
    """Correlation of x and y, [N] each, under weights [N] that need not sum to 1; 0 if x or y is constant."""
    share = weight / weight.sum()
    x, y = x - share @ x, y - share @ y
    spread = np.sqrt((share @ x**2) * (share @ y**2))
    return float(share @ (x * y) / spread) if spread > 0 else 0.0


def weighted_ranks(x: Table, weight: Table) -> Table:
    """Mid-ranks [N]: the weight of all smaller values and half of that of equal ones."""
    _, inverse = np.unique(x, return_inverse=True)
    mass = np.bincount(inverse, weight)
    return np.asarray((np.cumsum(mass) - mass / 2)[inverse])


def weighted_spearman(x: Table, y: Table, weight: Table) -> float:
    """Correlation of weighted mid-ranks."""
    return weighted_pearson(weighted_ranks(x, weight), weighted_ranks(y, weight), weight)


def agreement(log_policy: Table, log_reference: Table, *, beta: float = BETA) -> dict[str, float]:
    """Every figure a pair is held to, against the exact soft optimum of its own reference.

    Args:
        log_policy: log pi_theta, float64 [500, 7], nats.
        log_reference: log pi_ref, likewise.
        beta: weight of the KL penalty that the policy was trained with.

    Returns:
        Success probabilities within 30 steps, and for each of three weightings (`policy_states`: states the policy
        visits, actions of the reference; `reference_states`: states the reference visits, actions of the reference;
        `on_policy`: states and actions of the policy) Pearson, Spearman, sign agreement, mean absolute error, and for
        the two sets of states top-1 agreement and mean regret of the action with the highest score.
    """
    reference, policy = np.exp(log_reference), np.exp(log_policy)
    best = soft_optimum(reference, beta=beta)
    score = beta * (log_policy - log_reference)
    at_policy, success = occupancy(policy)
    at_reference, reference_success = occupancy(reference)
    figures = {
        "reference_success": reference_success,
        "policy_success": success,
        "optimum_success": occupancy(best.policy)[1],
    }
    for name, visits, chosen in (
        ("policy_states", at_policy, reference),
        ("reference_states", at_reference, reference),
        ("on_policy", at_policy, policy),
    ):
        figures |= named(name, compare(score, best.advantage, visits[:, None] * chosen))
        if name != "on_policy":
            figures |= named(name, choices(score, best.advantage, visits))
    return figures


def compare(score: Table, truth: Table, weight: Table) -> dict[str, float]:
    """Agreement of scores and exact advantages over (state, action) pairs, arrays of one shape."""
    used = weight > 0
    score, truth, weight = score[used], truth[used], weight[used]
    share = weight / weight.sum()
    return {
        "pearson": weighted_pearson(score, truth, weight),
        "spearman": weighted_spearman(score, truth, weight),
        "sign": float(share @ ((score > 0) == (truth > 0))),
        "error": float(share @ np.abs(score - truth)),
    }


def choices(score: Table, truth: Table, visits: Table) -> dict[str, float]:
    """What taking the legal action of highest score is worth; [S, 6 or 7] twice, and weights [S]."""
    share = visits / visits.sum()
    chosen = score[:, :MALFORMED].argmax(axis=-1)
    regret = truth[:, :MALFORMED].max(axis=-1) - np.take_along_axis(truth, chosen[:, None], axis=-1)[:, 0]
    # Actions that lead to the same cells are exactly as good; either counts as the best.
    return {"top1": float(share @ (regret < 1e-9)), "regret": float(share @ regret)}


def named(name: str, figures: dict[str, float]) -> dict[str, float]:
    """The same figures, each name with a prefix."""
    return {f"{name}_{key}": value for key, value in figures.items()}
