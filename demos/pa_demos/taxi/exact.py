"""The ground truth: soft dynamic programming over the environment's own transition table.

For a reference policy pi_ref the optimum of reward minus beta * KL(pi || pi_ref) is known exactly:

    Q*(s, a) = r(s, a) + gamma * E[V*(s')]        V*(s) = beta * log sum_a pi_ref(a|s) exp(Q*(s, a) / beta)
    A* = Q* - V* = beta * log(pi* / pi_ref)

It is the stationary optimum (no horizon). Training never sees any of it; it measures what training reached.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .environment import BETA, GAMMA, HORIZON, dynamics

Table = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class SoftOptimum:
    """The KL-regularised optimum; S = 500 states, 7 actions."""

    q: Table
    """[S, 7]: discounted reward, KL of later steps subtracted; units of reward."""
    v: Table
    """[S]."""
    advantage: Table
    """[S, 7]: q - v. Positive: the optimum takes the action more often than the reference."""
    policy: Table
    """[S, 7]: probabilities."""


def soft_optimum(reference: Table, tolerance: float = 1e-12, *, beta: float = BETA) -> SoftOptimum:
    """Soft value iteration.

    Args:
        reference: pi_ref, float64 [500, 7], positive, rows summing to 1.
        tolerance: stop when no value moves by more.
        beta: weight of the KL penalty, units of reward per nat.
    """
    world = dynamics()
    log_reference = np.log(reference)
    going = ~world.delivers
    v = np.zeros(len(reference))
    while True:
        q = world.reward + GAMMA * going * (world.probability * v[world.next_state]).sum(axis=-1)
        updated = beta * np.logaddexp.reduce(log_reference + q / beta, axis=-1)
        converged = np.abs(updated - v).max() < tolerance
        v = updated
        if converged:
            break
    advantage = q - v[:, None]
    return SoftOptimum(q, v, advantage, np.exp(log_reference + advantage / beta))


def occupancy(policy: Table) -> tuple[Table, float]:
    """How often each state is acted in, and how often the passenger arrives, within one episode.

    Args:
        policy: probabilities, float64 [500, 7].

    Returns:
        Expected visits sum over t < 30 of P(s_t = s), float64 [500]; and the success probability.
    """
    world = dynamics()
    flow = policy[:, :, None] * world.probability * ~world.delivers[:, :, None]
    step = np.zeros((len(policy), len(policy)))
    np.add.at(step, (np.arange(len(policy))[:, None, None], world.next_state), flow)
    arrival = (policy * world.delivers).sum(axis=-1)
    at = world.start.copy()
    visits, success = np.zeros(len(policy)), 0.0
    for _ in range(HORIZON):
        visits += at
        success += float(at @ arrival)
        at = at @ step
    return visits, success
