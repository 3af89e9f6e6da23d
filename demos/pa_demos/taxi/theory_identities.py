"""The identities of the soft optimum, checked on exact tables; each with its largest error.

pi* comes from soft value iteration (`exact`). What it is held to comes another way: Q and V of pi* itself are the
solution of a linear system, in which no soft maximum occurs. The states are the 400 in which an episode can be under
way; of the other 100 no model says anything, and no episode gets from one kind to the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np

from .environment import ACTIONS, GAMMA, active_states, dynamics
from .exact import Table, occupancy, soft_optimum

TOLERANCE = 1e-9
"""Largest error of an identity, units of reward; float64 leaves about 1e-11."""


@dataclass(frozen=True, slots=True)
class Check:
    """A number and the bar it is held to."""

    what: str
    value: float
    bar: float
    at_least: bool = False
    """Whether the bar is the lowest value that passes; else it is the highest."""
    beta: float | None = None
    """Of the optimum that an identity is about."""

    @property
    def holds(self) -> bool:
        """Whether the value passes; one that is no number does not."""
        return self.value >= self.bar if self.at_least else self.value <= self.bar


def identities(log_reference: Table, beta: float) -> list[Check]:
    """The identities at one beta.

    Args:
        log_reference: log pi_ref, float64 [500, 7], nats.
        beta: weight of the KL penalty, units of reward per nat.
    """
    rows = active_states()
    best = soft_optimum(np.exp(log_reference), beta=beta)
    optimum = best.policy / best.policy.sum(axis=-1, keepdims=True)
    log_ratio = (np.log(optimum) - log_reference)[rows]
    pi, ref, world = optimum[rows], np.exp(log_reference)[rows], dynamics()
    all_q, all_v = regularised_values(optimum, log_reference, world.reward, beta)
    q, v = all_q[rows], all_v[rows]
    advantage = q - v[:, None]
    kl, reverse_kl = (pi * log_ratio).sum(axis=-1), -(ref * log_ratio).sum(axis=-1)
    errors = {
        "beta log(pi*/pi_ref) = Q* - V*": beta * log_ratio - advantage,
        "V* = beta log E_ref exp(Q*/beta)": v - _soft_maximum(q, log_reference[rows], beta),
        "Q* = r + gamma E[V*], gymnasium's own table": best.q[rows, : len(ACTIONS)] - _backup(best.v)[rows],
        "E_pi*[A*] = beta KL(pi*|pi_ref) >= 0": _signed((pi * advantage).sum(axis=-1), beta * kl),
        "E_ref[A*] = -beta KL(pi_ref|pi*) <= 0": _signed(-(ref * advantage).sum(axis=-1), beta * reverse_kl),
        "E_ref[exp(A*/beta)] = 1": (ref * np.exp(advantage / beta)).sum(axis=-1) - 1,
        "A* is the same for shaped rewards": _shaped(optimum, log_reference, beta, all_q - all_v[:, None])[rows],
    }
    return [Check(what, float(np.abs(error).max()), TOLERANCE, beta=beta) for what, error in errors.items()]


def regularised_values(policy: Table, log_reference: Table, reward: Table, beta: float) -> tuple[Table, Table]:
    """Q [500, 7] and V [500] of any policy under reward - beta * KL(policy || reference), by a linear system.

    Equal to what backing values up under the policy, again and again, comes to.

    Args:
        policy: positive probabilities, float64 [500, 7].
        log_reference: nats, likewise.
        reward: expected, of each action, likewise.
        beta: units of reward per nat.
    """
    world = dynamics()
    flow = GAMMA * policy[:, :, None] * world.probability * ~world.delivers[:, :, None]
    step = np.zeros((len(policy), len(policy)))
    np.add.at(step, (np.arange(len(policy))[:, None, None], world.next_state), flow)
    gain = (policy * (reward - beta * (np.log(policy) - log_reference))).sum(axis=-1)
    v = np.linalg.solve(np.eye(len(policy)) - step, gain)
    return reward + _expected(v), v


def unlike(log_reference: Table, beta: float) -> dict[str, float]:
    """What the identities do not say, in numbers, at the optimum; units of reward, means over its visits.

    Returns:
        `optimum_mean` and `reference_mean`: mean A* of the actions of either, in the optimum's states;
        `optimum_positive`: share of the optimum's own actions with A* above 0; `outcome_error`: mean distance from A*
        of r + gamma V*(s') - V*(s) where s' is the one state that came, not the expectation; `shaping`: how far, at
        most, the shaped rewards are from the true ones.
    """
    best = soft_optimum(np.exp(log_reference), beta=beta)
    visits, _ = occupancy(best.policy)
    share = (visits / visits.sum())[:, None]
    world = dynamics()
    future = best.v[world.next_state] * ~world.delivers[:, :, None]
    miss = GAMMA * np.abs(future - (world.probability * future).sum(axis=-1, keepdims=True))
    rows = active_states()
    return {
        "optimum_mean": float((share * best.policy * best.advantage).sum()),
        "reference_mean": float((share * np.exp(log_reference) * best.advantage).sum()),
        "optimum_positive": float((share * best.policy * (best.advantage > 0)).sum()),
        "outcome_error": float((share * best.policy * (world.probability * miss).sum(axis=-1)).sum()),
        "shaping": float(np.abs(_shaped_reward() - world.reward)[rows].max()),
    }


def _soft_maximum(q: Table, log_reference: Table, beta: float) -> Table:
    return np.asarray(beta * np.logaddexp.reduce(log_reference + q / beta, axis=-1))


def _signed(left: Table, right: Table) -> Table:
    """Error of left = right >= 0."""
    return np.maximum(np.abs(left - right), -right)


def _expected(v: Table) -> Table:
    """gamma * E[V(next state)], 0 after a delivery; [500, 7]."""
    world = dynamics()
    return np.asarray(GAMMA * ~world.delivers * (world.probability * v[world.next_state]).sum(axis=-1))


def _backup(v: Table) -> Table:
    """Reward and expected value of what follows, [500, 6], outcome by outcome from gymnasium's dictionary."""
    env: Any = gymnasium.make("Taxi-v4", is_rainy=True, rainy_probability=0.8).unwrapped
    q = np.zeros((len(v), len(ACTIONS)))
    for state, by_action in env.P.items():
        for action, outcomes in by_action.items():
            for chance, following, reward, done in outcomes:
                q[state, action] += chance * (reward + (0.0 if done else GAMMA * v[following]))
    return q


def _shaped_reward() -> Table:
    """Other rewards [500, 7] for the same behaviour: r(s, a) + gamma E[phi(s')] - phi(s), phi drawn at random.

    phi is 0 once the passenger has arrived.
    """
    potential = np.random.default_rng(0).normal(scale=10.0, size=len(dynamics().reward))
    return np.asarray(dynamics().reward + _expected(potential) - potential[:, None])


def _shaped(optimum: Table, log_reference: Table, beta: float, advantage: Table) -> Table:
    """How far A* under the shaped rewards is from the given one, [500, 7].

    No less than how far the policy is from being their optimum as well: one whose own value is the soft maximum of its
    Q is, as the Bellman equation has one solution.
    """
    q, v = regularised_values(optimum, log_reference, _shaped_reward(), beta)
    beside = np.abs(v - _soft_maximum(q, log_reference, beta))
    return np.maximum(np.abs(q - v[:, None] - advantage), beside[:, None])
