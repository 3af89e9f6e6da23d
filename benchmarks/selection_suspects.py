"""Which steps of failed runs to replay, by rule and signal, and what a replay of each step comes to; simulated."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from pa_demos.taxi.environment import HORIZON

from benchmarks.selection_arms import Arm, Work
from benchmarks.selection_chance import Chance, Floats, Whole
from benchmarks.selection_tables import Agent
from benchmarks.selection_twin import Bools, Choice, Course, chances, flips, run
from pa_middleware.debugging.attribution import Suspect, attribute

THRESHOLD = -1.0
"""Minus one nat: the policy takes the action less than 1/e as often as the reference."""
DRAWS = 8
_BATCH = 500
_WORLDS = 100_000
"""Of a seed; the next seed's begin behind them."""


@dataclass(frozen=True)
class Failed:
    """E failed runs of an agent, as many from each seed, and what a replay of each of their steps comes to."""

    chance: Chance
    course: Course
    saved: Bools
    """[E, 30, 6]: whether this action at this step makes the run succeed, all else equal."""
    taken: Whole
    """[E, 30]: the action that a replay of the step takes, the best of 8 fresh draws."""
    lift: Floats
    """[E, 30]: by how much that action raises the agent's own chance of success if all later luck is new; exact."""

    @cached_property
    def outcomes(self) -> Floats:
        """[E, 30]: 1 where a replay of the step makes the run succeed."""
        return np.take_along_axis(self.saved, self.taken[..., None], axis=2)[..., 0].astype(np.float64)

    @property
    def changed(self) -> Bools:
        """[E, 30]: whether a replay of the step takes another action at all."""
        return np.asarray(self.taken != self.course.actions)

    @property
    def flippable(self) -> Bools:
        """[E]: whether any single change makes the run succeed."""
        return np.asarray(self.saved.any(axis=(1, 2)))


def failed(work: Work, agent: Agent, seeds: int, count: int) -> Failed:
    """So many failed runs of an agent from each of the seeds; as many worlds are tried as that takes.

    Raises:
        RuntimeError: the agent does not fail so often.
    """
    choice, places = Arm(agent).choice(work.tables), []
    for seed in range(seeds):
        lost: list[int] = []
        for begin in range(0, _WORLDS, _BATCH):
            numbers = np.arange(_BATCH) + seed * _WORLDS + begin
            course = run(choice, Chance.of(numbers.tolist(), draws=1))
            lost += numbers[~course.success].tolist()
            if len(lost) >= count:
                break
        if len(lost) < count:
            raise RuntimeError(
                f"{agent} fails in {len(lost)} of {_WORLDS} worlds, {count} are asked for; ask for fewer"
            )
        places += lost[:count]
    chance = Chance.of(places, draws=1, again=True)
    course = run(choice, chance)
    best = Choice(choice.odds, DRAWS, work.tables.score, work.tables.policy)
    taken = best(course.states.ravel(), chance.again.reshape(-1, DRAWS, 2)).reshape(course.states.shape)
    odds = chances(choice.odds)[HORIZON - np.arange(HORIZON)[None, :], course.states]
    after, before = (np.take_along_axis(odds, actions[..., None], 2)[..., 0] for actions in (taken, course.actions))
    return Failed(chance, course, flips(choice, chance, course), taken, after - before)


def suspects(work: Work, runs: Failed) -> dict[str, list[list[int]]]:
    """Steps of each run, most suspect first; `decisive` is the default of `replay`.

    `first changed` needs no attribution, it is the first step at which a replay acts otherwise. The last one knows what
    no score can know, how much each replay raises the agent's own chance of success.
    """
    states, actions = runs.course.states, runs.course.actions
    score, policy = (table[states, actions, 0] for table in (work.tables.score, work.tables.policy))
    rows, steps = score.tolist(), np.arange(HORIZON, dtype=np.float64)
    found: dict[str, list[tuple[Suspect, ...]]] = {
        "decisive": [attribute(row) for row in np.maximum(score, THRESHOLD).tolist()],
        "lowest": [attribute(row) for row in rows],
        "lowest_sum": [attribute(row, "lowest_sum") for row in rows],
        "sharpest_fall": [attribute(row, "sharpest_fall") for row in rows],
        "lowest exact advantage": [attribute(row) for row in work.tables.exact[states, actions].tolist()],
        "lowest policy log-prob": [attribute(row) for row in policy.tolist()],
        "first changed": [attribute(row) for row in np.where(runs.changed, steps, steps + HORIZON).tolist()],
        "largest exact lift, known": [attribute(row) for row in (-runs.lift).tolist()],
    }
    return {name: [[suspect.step for suspect in each] for each in runs] for name, runs in found.items()}
