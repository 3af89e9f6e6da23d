"""What choosing the best of N actions gains on data of one's own, and whether the scorer beats random there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from pa_middleware.intervals import Estimate, means
from pa_middleware.selection.gain_choices import gain_of_choices
from pa_middleware.selection.gain_result import fewest_that_tell


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionGain:
    """Expected reward of the best of N actions by score, for N = 1, 2, ..., each step counted once."""

    chosen: tuple[Estimate, ...]
    """Of the action with the highest score among N."""
    gain: tuple[Estimate, ...]
    """The same less what a random action gets, paired."""
    oracle: tuple[Estimate, ...]
    """Of the best action among N: no scorer gets more."""
    random: Estimate
    """Of an action picked at random, whatever N is."""
    steps: int
    mixed: int
    """Steps whose actions differ in reward: only there it matters which one is taken."""
    confidence: float
    """Of all intervals."""

    @property
    def beats_random(self) -> bool:
        """Whether the interval of the gain at the largest N lies above 0, and there are mixed steps enough to tell."""
        return self.mixed >= fewest_that_tell(self.confidence) and self.gain[-1].low > 0

    @property
    def worse_than_random(self) -> bool:
        """Whether that interval lies below 0."""
        return self.mixed >= fewest_that_tell(self.confidence) and self.gain[-1].high < 0

    @property
    def verdict(self) -> str:
        """What the user should know before choosing by this score, with the figures."""
        last, needed = self.gain[-1], fewest_that_tell(self.confidence)
        figures = (
            f"the best of {len(self.gain)} by score gets {self.chosen[-1].value:.3g}, a random one "
            f"{self.random.value:.3g}, difference {last.value:+.3f} [{last.low:+.3f}, {last.high:+.3f}] "
            f"({100 * self.confidence:g} % interval; {self.steps} steps, {self.mixed} of them with actions of unequal "
            "reward)"
        )
        if self.beats_random:
            return f"this scorer beats picking at random here: {figures}"
        if self.worse_than_random:
            return f"this scorer is WORSE than picking at random here: {figures}"
        few = f"; it takes {needed} such steps to tell" if self.mixed < needed else ""
        return f"no evidence that this scorer beats random here: {figures}{few}"


def gain_of_actions(
    scores: ArrayLike,
    rewards: ArrayLike,
    steps: ArrayLike,
    *,
    max_n: int | None = None,
    seed: int = 0,
    confidence: float = 0.95,
) -> ActionGain:
    """What `Rules(draws=N, select="best")` gains for each N, from actions whose score and reward are known.

    Exact averages over all sets of N actions of a step, see `gain_of_choices`; intervals from resampling the steps.
    Steps of one run resemble each other: take few of each, or the intervals come out too narrow.

    Args:
        scores: [M], finite.
        rewards: [M], finite, such as 1 where the run went well from there and 0 where it did not.
        steps: [M], whole numbers or text: which step an action was drawn for.
        max_n: at most as many as the step with the fewest has, which is the default.
        seed: of the intervals.
        confidence: of the intervals, between 0 and 1.

    Raises:
        ValueError: as `gain_of_choices`; or a confidence that is not between 0 and 1.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence!r}; allowed: a number between 0 and 1, such as 0.95")
    chosen = gain_of_choices(scores, rewards, steps, max_n=max_n)
    oracle = gain_of_choices(rewards, rewards, steps, max_n=max_n)
    random, most = chosen[:, :1], chosen.shape[1]
    columns = np.concatenate([chosen, chosen - random, oracle, random], axis=1)
    found = means(columns, np.random.default_rng(seed), confidence=confidence)
    reward, label = np.asarray(rewards, dtype=np.float64), np.asarray(steps)
    return ActionGain(
        chosen=tuple(found[:most]),
        gain=tuple(found[most : 2 * most]),
        oracle=tuple(found[2 * most : 3 * most]),
        random=found[-1],
        steps=len(chosen),
        mixed=sum(len(np.unique(reward[label == step])) > 1 for step in np.unique(label)),
        confidence=confidence,
    )
