"""How a search takes a step over: whoever runs a graph says what its next guarded step is to do, and is told what came.

`Expanding` makes the step draw so many candidates, take the best, and show all of them. `Taking` makes the step of
another run that has come to the same point take one of these candidates, without drawing or scoring it again.
`Resuming` leaves the step to the rules and begins a trace with it. Each holds for one step; later ones go by the rules.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from langchain_core.runnables import RunnableConfig

from pa_middleware.guard.core import GuardCore
from pa_middleware.guard.errors import GuardError
from pa_middleware.guard.hand import Hand
from pa_middleware.guard.judge import Verdict, passes
from pa_middleware.guard.record import Record
from pa_middleware.guard.rules import Rules


@dataclass(frozen=True, slots=True)
class Choices:
    """What a step could have done."""

    core: GuardCore = field(repr=False)
    hand: Hand = field(repr=False)
    verdict: Verdict
    record: Record
    """Of the step, as it was taken."""
    open: tuple[int, ...]
    """Draws that a search may go on with, in the order drawn: good enough under the rules, each action once. Empty if
    none is; what the verdict made of the step is all there is then."""

    def score(self, number: int) -> float:
        """Of one of the open draws."""
        score = self.hand.draws[number].score
        if score is None:
            raise GuardError(f"draw {number} has no score; open: {self.open}")
        return score.score


@dataclass(slots=True)
class Expanding:
    """Draw so many candidates in the next guarded step, and take the best."""

    draws: int
    forked: bool = False
    """The run is a fork whose trace begins here, not where the steps before were traced."""
    found: Choices | None = None
    """None until that step was taken."""

    def rules(self, own: Rules) -> Rules:
        """The guard's rules for this step: its thresholds hold if it enforces them, and no budget does."""
        several: dict[str, Any] = {"draws": self.draws, "select": "best" if self.draws > 1 else "first_pass"}
        if own.judges and own.effective_mode == "enforce":
            return replace(own, **several, draws_per_run=None, stop_at=None, drawn_by=None)
        return Rules(
            **several,
            tools=own.tools,
            scoring_timeout=own.scoring_timeout,
            on_scorer_error=own.on_scorer_error,
            abstain_message=own.abstain_message,
        )


@dataclass(slots=True)
class Taking:
    """Take a candidate that was drawn before, in a run that is a fork of the one it was drawn in."""

    forked: ClassVar = True
    choices: Choices
    number: int
    """One of the open draws."""
    record: Record | None = None
    """Of the step that took it; None until one did."""

    def verdict(self, core: GuardCore) -> Verdict:
        """That candidate's.

        Raises:
            GuardError: another guard drew it.
        """
        if core is not self.choices.core:
            raise GuardError("the candidate was drawn by another guard than the one whose step comes next")
        return Verdict("pass", "searched", self.number)


@dataclass(frozen=True, slots=True)
class Resuming:
    """Go by the rules, in a run that is a fork whose trace begins with the next of its own steps."""

    thread: str
    steps: int
    """That it has taken so far."""

    def begins(self, steps: int, config: RunnableConfig) -> bool:
        """Whether a step that comes after so many others is that one, and not one of an agent within the run."""
        configurable = config.get("configurable", {})
        nested = "|" in configurable.get("checkpoint_ns", "")
        return not nested and (configurable.get("thread_id"), steps) == (self.thread, self.steps)


Asked = Expanding | Taking | Resuming

_current: ContextVar[Asked | None] = ContextVar("pa_middleware_search", default=None)


def search() -> Asked | None:
    """What the guarded step that begins here is to do; None to go by the rules."""
    current = _current.get()
    match current:
        case Expanding(found=None) | Taking(record=None) | Resuming():
            return current
        case _:
            return None


@contextmanager
def searching(step: Asked | None) -> Iterator[None]:
    """Let this be what the next guarded step of a graph run in this block does; None: as its rules say."""
    token = _current.set(step)
    try:
        yield
    finally:
        _current.reset(token)


def choices(core: GuardCore, hand: Hand, verdict: Verdict, record: Record) -> Choices:
    """What a step could have done."""
    able = verdict.decision == "pass"
    opened = [
        number
        for number, draw in enumerate(hand.draws)
        if able and draw.same_as is None and not draw.failed and passes(draw, hand.rules)
    ]
    return Choices(core, hand, verdict, record, tuple(opened))
