"""The dice of the selection benchmark: every arm meets the same rain and, draw by draw, the same agent.

Rain is the environment's own and depends on seed and step. What the agent draws depends on seed, step, the number of
the draw, and a lane that keeps branches and repeated runs of one seed apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pa_demos.taxi.environment import HORIZON, Taxi

Floats = NDArray[np.float64]
Whole = NDArray[np.int64]

FRESH = 100
"""Number of the first draw of a step that is drawn again."""
MOST_DRAWS = 16


def throw(seed: int, step: int, draw: int, lane: int = 0) -> tuple[float, float]:
    """Two numbers from 0 to 1: one for the action, one for its wording.

    Draws are counted from 1 in the key: numpy pads keys with zeros, and draw 0 would be the rain of that step.
    """
    action, wording = np.random.default_rng((seed, step, 1 + draw, lane)).random(2)
    return float(action), float(wording)


def pick(odds: Floats, chance: float) -> int:
    """Position in a row of probabilities, by inverse CDF."""
    return min(int(np.searchsorted(np.cumsum(odds), chance, side="right")), len(odds) - 1)


def seeds(count: int, episodes: int) -> list[int]:
    """Seeds of the episodes: as the demo numbers them."""
    return [seed * 10_000 + number for seed in range(count) for number in range(episodes)]


@dataclass(frozen=True, slots=True)
class Chance:
    """All dice of E episodes, for simulating them at once."""

    seeds: Whole
    """[E]."""
    start: Whole
    """[E], first states."""
    rain: Floats
    """[E, 30]."""
    draws: Floats
    """[E, 30, K, 2], as `throw` gives them."""
    again: Floats
    """[E, 30, 8, 2]: the draws of a step that is drawn again; no rows where they were not asked for."""

    @classmethod
    def of(cls, seeds: Sequence[int], draws: int = MOST_DRAWS, *, again: bool = False) -> Chance:
        """The dice of these episodes."""
        steps = range(HORIZON)
        fresh = [[[throw(s, t, FRESH + k) for k in range(8)] for t in steps] for s in seeds] if again else []
        return cls(
            seeds=np.array(seeds),
            start=np.array([Taxi(seed).state for seed in seeds]),
            rain=np.array([[np.random.default_rng((s, t)).random() for t in steps] for s in seeds]),
            draws=np.array([[[throw(s, t, k) for k in range(draws)] for t in steps] for s in seeds]),
            again=np.array(fresh),
        )

    def take(self, places: Whole) -> Chance:
        """The dice of some of the episodes."""
        again = self.again[places] if len(self.again) else self.again
        return Chance(self.seeds[places], self.start[places], self.rain[places], self.draws[places], again)
