"""One step of an agent as a framework presents it: what a guard needs to draw, score and answer, and no more."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from langchain_core.messages import AIMessage, BaseMessage

from pa_middleware.guard.quiet import Muted
from pa_middleware.guard.record import Record
from pa_middleware.guard.rules import Rules
from pa_middleware.guard.tiers import Tier, tier_of
from pa_middleware.scoring.scorer import Tool


class LetBe(Exception):  # noqa: N818 - it is no error
    """A draw that holds no action to judge, in a guard that only watches: `answer` is the framework's, as it is."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        super().__init__("nothing to judge")


class Proposed(Protocol):
    """One draw of the agent."""

    @property
    def action(self) -> AIMessage:
        """The proposed action; it and each of its calls have ids."""
        ...

    def accepted(self, record: Record) -> Any:
        """The framework's answer when this draw is taken, the record beside it."""
        ...


@dataclass(frozen=True, slots=True)
class Shown:
    """What the model is shown in a step."""

    history: Callable[[], Sequence[BaseMessage]]
    """The messages, oldest first."""
    tools: Sequence[Tool]
    answers: frozenset[str] = frozenset()
    """Names of tools that nothing runs: calling one of them gives the final answer its form."""

    metadata: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """What the tools say of themselves, by name."""

    def tiers(self, action: AIMessage, rules: Rules) -> tuple[Tier | None, ...]:
        """The tier of each call of an action; None for one that only gives the final answer its form."""
        return tuple(self.tier(call["name"], rules) for call in action.tool_calls)

    def tier(self, name: str, rules: Rules) -> Tier | None:
        """The tier of a tool; None for one that only gives the final answer its form."""
        return None if name in self.answers else tier_of(name, rules.tools, self.metadata.get(name))


@dataclass(frozen=True, slots=True)
class Turn:
    """One step of an agent."""

    records: Sequence[Record]
    """The guard's, of all of the run, oldest first."""
    shown: Shown
    draw: Callable[[Muted], Awaitable[Proposed]]
    """Makes one draw, muted."""
    abstained: Callable[[AIMessage, Record], Any]
    """The framework's answer when a safe message stands in for every draw."""
