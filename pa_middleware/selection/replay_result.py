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
    """False if the draw taken is the action of the original again: then only later steps were drawn anew."""


@dataclass(frozen=True, slots=True)
class Ending:
    """A run on from one step."""

    run: Trajectory
    succeeded: bool | None


@dataclass(frozen=True, slots=True)
class Confirmation:
    """Runs on from one step, with its new action and with the old one; all later steps were drawn anew in both."""

    step: int
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

    def _counts(self) -> tuple[int, int] | None:
        """Successes with the new action, and with the old."""
        if any(ending.succeeded is None for ending in (*self.otherwise, *self.as_it_was)):
            return None
        return sum(bool(one.succeeded) for one in self.otherwise), sum(bool(one.succeeded) for one in self.as_it_was)


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
    confirmation: Confirmation | None = None
    """Of the step whose change made the run succeed; None if that was not asked for, or none did."""

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
        """The step whose change made the run succeed; None if none did."""
        won = (attempt.step for attempt in self.attempts if attempt.changed and attempt.succeeded)
        return next(won, None) if self.flipped else None
