"""The branches of a beam search, what they can become, and which of them go before which."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from langgraph.types import StateSnapshot

from pa_middleware.guard.search import Choices
from pa_middleware.scoring.advantage import StepAggregation, run_score


@dataclass(slots=True)
class Branch:
    """A run that may go on."""

    thread: str
    scores: list[float] = field(default_factory=list)
    actions: int = 0
    over: bool = False
    doubtful: bool = False
    """It has an unscored step, or the guard ended it; branches that are none of this go before it."""
    found: Choices | None = None
    """The candidates of its next action."""
    before: StateSnapshot | None = None
    """The state before that action."""


@dataclass(frozen=True, slots=True)
class Child:
    """A branch as it would be with one of its candidates; None: as it is, since it is over."""

    branch: Branch
    number: int | None
    scores: list[float]
    doubtful: bool = False
    highest: float = math.inf
    """What its last score counts for at most: that of its branch's best, which is best whatever differs by rounding."""

    def rank(self, aggregation: StepAggregation) -> tuple[bool, float]:
        """Low goes before high."""
        counted = [*self.scores[:-1], *(min(score, self.highest) for score in self.scores[-1:])]
        return self.doubtful or not counted, -run_score(counted, aggregation) if counted else 0.0


def children(branch: Branch) -> list[Child]:
    """What a branch can become: its best first, then what the policy finds likelier, then the earlier draw."""
    found = branch.found
    if branch.over or found is None:
        return [Child(branch, None, branch.scores, branch.doubtful)]
    taken, draws = found.verdict.selected, found.hand.draws
    if found.open:
        likelihood = [0.0 if draw.score is None else draw.score.policy_log_prob for draw in draws]
        order = sorted(found.open, key=lambda number: (number != taken, -likelihood[number], number))
        return [
            Child(branch, number, [*branch.scores, found.score(number)], branch.doubtful, found.score(taken))
            for number in order
        ]
    # No candidate is good enough: the branch goes as its rules say.
    score = found.record["score"]
    if score is None or found.verdict.decision == "abstain":
        return [Child(branch, taken, branch.scores, doubtful=True)]
    return [Child(branch, taken, [*branch.scores, score], branch.doubtful)]
