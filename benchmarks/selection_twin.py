"""The benchmark's episodes without graphs: the same dice, tables and choices as arrays, all episodes at once.

It serves to find failed runs, to try every action at every step of them, and to try many conditions. What graphs ran as
well is compared with it, episode by episode.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from pa_demos.taxi.environment import ACTIONS, HORIZON, dynamics

from benchmarks.selection_chance import Chance, Floats, Whole

Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Course:
    """E episodes."""

    success: Bools
    """[E]."""
    states: Whole
    """[E, 30]; -1 after the end."""
    actions: Whole
    """[E, 30]; -1 after the end."""

    @property
    def steps(self) -> Whole:
        """[E]."""
        taken: Whole = (self.actions >= 0).sum(axis=1)
        return taken


@dataclass(frozen=True, slots=True)
class Choice:
    """How a step is taken: the best of some draws."""

    odds: Floats
    """[500, 6] of the agent."""
    draws: int = 1
    scores: Floats | None = None
    """[500, 6, W]; None takes the first draw."""
    likelihoods: Floats | None = None
    """[500, 6, W], log-probs of the policy: of draws that score the same the likelier is taken, then the earlier."""
    spoken: Floats = field(default_factory=lambda: np.ones(1))

    def __call__(self, states: Whole, dice: Floats) -> Whole:
        """Actions, [N], of states [N] and dice [N, K, 2]."""
        drawn = inverse(np.cumsum(self.odds, axis=-1)[states][:, None], dice[:, : self.draws, 0])
        if self.scores is None:
            return np.asarray(drawn[:, 0])
        said = inverse(np.cumsum(self.spoken)[None, None], dice[:, : self.draws, 1])
        at = states[:, None], drawn, said
        scores = self.scores[at]
        even = scores == scores.max(axis=1, keepdims=True)
        ranks = even if self.likelihoods is None else np.where(even, self.likelihoods[at], -np.inf)
        best = ranks.argmax(axis=1)
        return np.asarray(drawn[np.arange(len(states)), best])


def inverse(bounds: Floats, chances: Floats) -> Whole:
    """Positions by inverse CDF: as `selection_chance.pick`, for arrays."""
    return np.asarray(np.minimum((chances[..., None] >= bounds).sum(axis=-1), bounds.shape[-1] - 1))


def world(states: Whole, actions: Whole, rain: Floats) -> tuple[Whole, Bools]:
    """Next states, and whether the passenger was delivered."""
    table = dynamics()
    outcome = inverse(np.cumsum(table.probability[states, actions], axis=-1), rain)
    return table.next_state[states, actions, outcome], table.delivers[states, actions]


def run(choice: Choice, chance: Chance) -> Course:
    """Whole episodes."""
    count = len(chance.seeds)
    states, actions = np.full((2, count, HORIZON), -1)
    success, going, at = np.zeros(count, dtype=bool), np.ones(count, dtype=bool), chance.start.copy()
    for step in range(HORIZON):
        places = np.flatnonzero(going)
        action = choice(at[places], chance.draws[places, step])
        states[places, step], actions[places, step] = at[places], action
        at[places], delivered = world(at[places], action, chance.rain[places, step])
        success[places] = delivered
        going[places] = ~delivered
    return Course(success, states, actions)


def run_on(choice: Choice, chance: Chance, places: Whole, begin: Whole, states: Whole) -> Bools:
    """Whether episodes succeed that go on from a step.

    Args:
        choice: of all steps from there on.
        chance: the dice of the episodes.
        places: [N], which episodes.
        begin: [N], the first step that is still to be taken; 30 or more: none is.
        states: [N], where it begins.
    """
    success, at = np.zeros(len(places), dtype=bool), states.copy()
    going = begin < HORIZON
    for step in range(HORIZON):
        now = np.flatnonzero(going & (begin <= step))
        action = choice(at[now], chance.draws[places[now], step])
        at[now], delivered = world(at[now], action, chance.rain[places[now], step])
        success[now] = delivered
        going[now] = ~delivered
    return success


def flips(choice: Choice, chance: Chance, failed: Course) -> Bools:
    """Which single changes make failed episodes succeed, all else equal: [E, 30, 6] by step and action."""
    count, legal = len(failed.success), len(ACTIONS)
    places = np.repeat(np.arange(count), HORIZON * legal)
    steps = np.tile(np.repeat(np.arange(HORIZON), legal), count)
    actions = np.tile(np.arange(legal), count * HORIZON)
    states, delivered = world(np.repeat(failed.states.ravel(), legal), actions, chance.rain[places, steps])
    later = run_on(choice, chance, places, np.where(delivered, HORIZON, steps + 1), states)
    return (later | delivered).reshape(count, HORIZON, legal)


def chances(odds: Floats) -> Floats:
    """Probability of success after an action with so many steps left, it included: [31, 500, 6], exact."""
    table, legal = dynamics(), len(ACTIONS)
    after = np.zeros((HORIZON + 1, len(odds), legal))
    for left in range(1, HORIZON + 1):
        value = (odds * after[left - 1]).sum(axis=1)
        onward = (table.probability[:, :legal] * value[table.next_state[:, :legal]]).sum(axis=-1)
        after[left] = np.where(table.delivers[:, :legal], 1.0, onward)
    return after
