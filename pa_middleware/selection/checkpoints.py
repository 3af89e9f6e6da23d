"""Where a finished run can be forked: its checkpoints right before and right after one of its steps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import takewhile
from typing import Any

from langgraph.types import StateSnapshot

from pa_middleware.guard.record import RECORDS, steps_of
from pa_middleware.selection.errors import SelectionError


def before(history: Sequence[StateSnapshot], step: int) -> StateSnapshot:
    """The last checkpoint before a step, on the way that led to the latest one.

    Args:
        history: all checkpoints of a thread, the latest first.
        step: from 0.

    Raises:
        SelectionError: there is none, from which the step would be taken.
    """
    at = next((one for one in _way(history) if _steps(one) <= step), None)
    return _found(at, step, step, "before")


def after(history: Sequence[StateSnapshot], step: int) -> StateSnapshot:
    """The first checkpoint after a step, on the same way: the action is chosen, and has not run.

    If somebody wrote into the state before it ran (`update_state`), the checkpoint is the last one of that.

    Raises:
        SelectionError: there is none.
    """
    standing = [one for one in _way(history) if _steps(one) == step + 1][::-1]
    at = standing[0] if standing else None
    for written in takewhile(_is_written, standing[1:]):
        at = written
    return _found(at, step, step + 1, "after")


def _is_written(snapshot: StateSnapshot) -> bool:
    return (snapshot.metadata or {}).get("source") == "update"


def _way(history: Sequence[StateSnapshot]) -> Iterator[StateSnapshot]:
    """The checkpoints that led to the latest one, it first; those that were left behind by time travel are none."""
    known = {snapshot.config["configurable"]["checkpoint_id"]: snapshot for snapshot in history}
    at: StateSnapshot | None = history[0]
    while at is not None:
        yield at
        parent: Any = at.parent_config
        at = None if parent is None else known.get(parent["configurable"]["checkpoint_id"])


def _steps(snapshot: StateSnapshot) -> int:
    return len(steps_of(snapshot.values.get(RECORDS) or ()))


def _found(at: StateSnapshot | None, step: int, steps: int, where: str) -> StateSnapshot:
    if at is None or _steps(at) != steps or (where == "before" and not at.next):
        raise SelectionError(
            f"there is no checkpoint right {where} step {step}. A run can be replayed if the checkpointer keeps all of "
            "its steps (durability='sync' or 'async', not 'exit'), and if the agent is a node of this graph; one in a "
            "subgraph takes its steps within one step of this graph"
        )
    return at
