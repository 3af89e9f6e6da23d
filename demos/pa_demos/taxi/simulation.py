"""Many episodes at once in numpy, from tabulated action probabilities. Sampled: no expectation is taken."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .environment import ACTION_COUNT, HORIZON, STATE_COUNT, active_states, dynamics

Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Samples:
    """Steps of many episodes, flattened; N steps."""

    state: Integers
    """[N]."""
    action: Integers
    """[N], 0 to 6."""
    reward: NDArray[np.float64]
    """[N]."""
    following: Integers
    """[N], the next state; meaningless where `delivered`."""
    delivered: NDArray[np.bool_]
    """[N], True where the step ended its episode with success."""
    episodes: int

    def counts(self) -> Integers:
        """How often each action was taken in each state, int64 [500, 7]."""
        flat = np.bincount(self.state * ACTION_COUNT + self.action, minlength=STATE_COUNT * ACTION_COUNT)
        return flat.reshape(STATE_COUNT, ACTION_COUNT)

    def mean(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Sample mean of one value a step for each state and action, [500, 7]; 0 where there is no sample."""
        size = STATE_COUNT * ACTION_COUNT
        total = np.bincount(self.state * ACTION_COUNT + self.action, values, minlength=size)
        return total.reshape(STATE_COUNT, ACTION_COUNT) / np.maximum(self.counts(), 1)


def simulate(policy: NDArray[np.float64], episodes: int, anywhere: float, random: np.random.Generator) -> Samples:
    """Sample episodes.

    Args:
        policy: probabilities of what acts, float64 [500, 7].
        episodes: how many.
        anywhere: share of episodes that start in a uniformly drawn state instead of the environment's own start.
        random: source of chance.
    """
    world = dynamics()
    action_bounds, outcome_bounds = np.cumsum(policy, axis=-1), np.cumsum(world.probability, axis=-1)
    state = random.choice(STATE_COUNT, episodes, p=world.start)
    scattered = random.random(episodes) < anywhere
    state[scattered] = random.choice(active_states(), int(scattered.sum()))
    columns: list[tuple[Integers, Integers, Integers]] = []
    for _ in range(HORIZON):
        action = _draw(action_bounds[state], random)
        following = world.next_state[state, action, _draw(outcome_bounds[state, action], random)]
        columns.append((state, action, following))
        state = following[~world.delivers[state, action]]
    states, actions, nexts = (np.concatenate(parts) for parts in zip(*columns, strict=True))
    return Samples(states, actions, world.reward[states, actions], nexts, world.delivers[states, actions], episodes)


def _draw(bounds: NDArray[np.float64], random: np.random.Generator) -> Integers:
    """One index a row from cumulative probabilities [N, K]."""
    drawn = (random.random(len(bounds))[:, None] >= bounds).sum(axis=-1)
    return np.asarray(np.minimum(drawn, bounds.shape[-1] - 1))
