"""One run as a search sees it: the scores of its actions, where it ended, and what it took."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage
from langgraph.types import StateSnapshot

from pa_middleware.guard.record import RECORDS, Record, steps_of
from pa_middleware.scoring.advantage import StepAggregation, run_score
from pa_middleware.selection.driving import Driver, in_thread
from pa_middleware.selection.errors import SelectionError


@dataclass(frozen=True, slots=True)
class Trajectory:
    """A run, finished or not."""

    thread: str
    """Where its checkpoints are, if it has any."""
    records: tuple[Record, ...] = field(repr=False)
    """The guard's, one a step."""
    values: Mapping[str, Any] = field(repr=False)
    """The state it ended in."""
    finished: bool
    """False if it waits for a human, or was cut off."""
    messages_key: str = "messages"

    @property
    def scores(self) -> tuple[float | None, ...]:
        """Of the action of each step, in order; None where the scorer failed.

        If the run was `stopped`, the last one is of the action that was not let run.
        """
        return tuple(record["score"] for record in self.records)

    @property
    def length(self) -> int:
        """How many steps it has; if it was `stopped`, one more than actions that were taken."""
        return len(self.records)

    @property
    def stopped(self) -> bool:
        """Whether the guard ended it: it abstained from the action of the last step, and that one never ran."""
        last = self.records[-1]
        return bool(last["decision"] == "abstain" and last["mode"] == "enforce")

    @property
    def messages(self) -> Sequence[BaseMessage]:
        """The conversation."""
        messages: Sequence[BaseMessage] = self.values.get(self.messages_key, ())
        return messages

    @property
    def draws(self) -> int:
        """Actions drawn, those not taken among them."""
        return sum(len(record["candidates"]) for record in self.records)

    @property
    def output_tokens(self) -> int | None:
        """Generated for all draws; None if the model did not say."""
        told = [each["output_tokens"] for record in self.records for each in record["candidates"]]
        return None if None in told else sum(told)

    def action(self, step: int) -> AIMessage | None:
        """What was done in a step; None if the conversation does not keep it."""
        number = self.records[step]["id"]
        kept = (each for each in reversed(self.messages) if isinstance(each, AIMessage) and each.id == number)
        return next(kept, None)

    def score(self, aggregation: StepAggregation, prefix: int | None = None) -> float | None:
        """Of the run's first steps as one number; None if one of them has no score, or there is none.

        Args:
            aggregation: of the steps, as in the paper.
            prefix: how many steps; None: all.
        """
        first = self.scores[:prefix]
        known = [score for score in first if score is not None]
        return run_score(known, aggregation) if known and len(known) == len(first) else None


async def reached(driver: Driver, thread: str) -> Trajectory:
    """The run of a thread, as far as it has come.

    Raises:
        SelectionError: no guard wrote records into it.
    """
    return trajectory(await driver.state(in_thread(thread)), thread, messages_key=driver.messages_key)


def trajectory(snapshot: StateSnapshot, thread: str, *, messages_key: str = "messages") -> Trajectory:
    """The run that a thread stands at the end of, or in the midst of.

    Raises:
        SelectionError: no guard wrote records into it.
    """
    finished = not snapshot.next and not snapshot.interrupts
    return from_values(snapshot.values, thread, finished=finished, messages_key=messages_key)


def from_values(
    values: Mapping[str, Any], thread: str, *, finished: bool, messages_key: str = "messages"
) -> Trajectory:
    """The run that ended in a state.

    Raises:
        SelectionError: no guard wrote records into it.
    """
    records = values.get(RECORDS) if isinstance(values, Mapping) else None
    if not records:
        raise SelectionError(
            f"the run {thread!r} holds no scores: its state has no guard's records under {RECORDS!r}. Guard the graph "
            "(mode='shadow' is enough); an agent of create_agent needs a checkpointer as well, since its output leaves "
            "them out"
        )
    return Trajectory(thread, tuple(steps_of(records)), values, finished, messages_key)
