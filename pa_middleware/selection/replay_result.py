"""What a replay came to: its attempts, and how sure it is that the step made the difference."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from pa_middleware.debugging.attribution import Suspect
from pa_middleware.guard.record import Record
from pa_middleware.selection.trajectory import Trajectory

Succeeded = Callable[[Trajectory], bool | None]
"""Whether a run did what it was to do; None if that cannot be said."""

LEAST = 3
"""Runs each way from which a confirmation can come: three against none are a matter of chance in one case of twenty."""
_RARE = 0.05


@dataclass(frozen=True, slots=True)
class Ending:
    """A run on from one step, and how it ended."""

    run: Trajectory
    succeeded: bool | None
    """None where nobody can say."""
    error: str | None = None
    """What the graph raised, if it did."""


@dataclass(frozen=True, slots=True)
class Confirmation:
    """Runs on from one step, with its new action and with the old one.

    All that comes later is drawn anew in each of them, as far as `fork_environment` gives worlds of their own luck.
    """

    otherwise: tuple[Ending, ...]
    """With the new action. The attempt that flipped the run is none of them, for it was chosen since it succeeded."""
    as_it_was: tuple[Ending, ...]
    """With the action of the original."""

    @property
    def gain(self) -> float | None:
        """Share of successes with the new action, less that with the old one; None where nobody can say.

        Unbiased for what the new action adds to the chance of success from that step on.
        """
        counts = self._counts()
        return None if counts is None else counts[0] / len(self.otherwise) - counts[1] / len(self.as_it_was)

    @property
    def p_value(self) -> float | None:
        """Chance of a gain as large or larger if the action makes no difference; None where nobody can say.

        Fisher's exact test, one-sided. Naive equivalent: of all ways to share out the endings on the two actions, the
        share in which the new one has at least as many successes.
        """
        counts = self._counts()
        if counts is None:
            return None
        new, old, won = len(self.otherwise), len(self.as_it_was), sum(counts)
        ways = sum(math.comb(new, one) * math.comb(old, won - one) for one in range(counts[0], min(new, won) + 1))
        return ways / math.comb(new + old, won)

    @property
    def confirmed(self) -> bool | None:
        """Whether the gain is more than chance: at most one in twenty is as large by it.

        None where nobody can say: outcomes are unknown, or all runs `alike`.
        """
        chance = self.p_value
        return None if chance is None or self.alike else chance <= _RARE

    @property
    def alike(self) -> bool:
        """Whether all runs of each way scored alike, step by step, as if nothing was drawn anew in them.

        They may be one run each then, with one luck.
        """
        return all(len({ending.run.scores for ending in way}) == 1 for way in (self.otherwise, self.as_it_was))

    def _counts(self) -> tuple[int, int] | None:
        """Successes with the new action, and with the old."""
        if any(ending.succeeded is None for ending in (*self.otherwise, *self.as_it_was)):
            return None
        return sum(bool(one.succeeded) for one in self.otherwise), sum(bool(one.succeeded) for one in self.as_it_was)


@dataclass(frozen=True, slots=True)
class Attempt:
    """The run again, with one step drawn again."""

    step: int
    """The step that was drawn again, from 0."""
    choice: Record
    """Its record: the candidates, their scores, and which was taken."""
    run: Trajectory
    succeeded: bool | None
    """None where nobody can say."""
    changed: bool = True
    """False if the draw taken is what the original did, text and calls. Then a suspect's run ends with it."""
    confirmation: Confirmation | None = None
    """If the attempt flipped the run, and that was to be confirmed."""


@dataclass(frozen=True, slots=True)
class Replay:
    """A run, and what became of it with one step taken otherwise."""

    original: Trajectory
    succeeded: bool | None
    """Whether the original did; None where nobody can say."""
    suspects: tuple[Suspect, ...]
    """Steps of the original, most suspect first; empty if the step was given."""
    attempts: tuple[Attempt, ...]
    """In the order they were made; each draws one step of the original again."""

    @property
    def flipped(self) -> bool | None:
        """Whether the run failed, and succeeded with another action in an attempt; None where nobody can say.

        An attempt that succeeded tells, whatever became of those before it. One that took the same action again tells
        nothing.
        """
        outcomes = [attempt.succeeded for attempt in self.attempts if attempt.changed]
        if self.succeeded is not False:
            return None if self.succeeded is None else False
        if any(outcomes):
            return True
        return None if None in outcomes else False

    @property
    def flipped_at(self) -> int | None:
        """The first step with another action of which the run succeeded; None if there is none."""
        won = (attempt.step for attempt in self.attempts if attempt.changed and attempt.succeeded)
        return next(won, None) if self.flipped else None

    @property
    def confirmed_at(self) -> int | None:
        """The step whose new action made the difference, by further runs; None if none is confirmed."""
        tried = ((attempt.step, attempt.confirmation) for attempt in self.attempts)
        return next((step for step, each in tried if each is not None and each.confirmed), None)
