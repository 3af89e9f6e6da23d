"""What the page knows of every run at once: numbers to list, sort and filter by. No content but ids and tool names."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, Generic, TypeVar

from pa_middleware.debugging.explain import Attribution
from pa_middleware.tracing import conventions as names
from pa_middleware.tracing.runs import Run

_SUSPECTS = 10
"""Suspects told of a run."""

_T = TypeVar("_T", bound=Hashable)


class Numbered(Generic[_T]):
    """Gives equal values the same number, from 0 in the order of their first use."""

    def __init__(self) -> None:
        self._numbers: dict[_T, int] = {}

    def __getitem__(self, value: _T) -> int:
        return self._numbers.setdefault(value, len(self._numbers))

    def __iter__(self) -> Any:
        return iter(self._numbers)


class Overview:
    """Collects the runs' rows; what repeats from step to step is numbered."""

    def __init__(self) -> None:
        self._actions: Numbered[tuple[str, ...]] = Numbered()
        self._decisions: Numbered[str] = Numbered()

    def row(self, run: Run, found: Attribution) -> dict[str, Any]:
        """One run: of each step its number, score, threshold, decision, tools and draws, column by column."""
        steps = run.steps
        ends = [step.end_ns for step in steps if step.end_ns is not None]
        return {
            "id": run.id,
            "trace": run.trace_id,
            "conversation": run.conversation_id,
            "agent": run.agent,
            "task": run.task,
            "success": run.success,
            "start": steps[0].start_ns // 1_000_000 if steps else None,
            "duration": (max(ends) - steps[0].start_ns) // 1_000_000 if ends else None,
            "shadow": any(step.mode == names.MODE_SHADOW for step in steps),
            "suspects": [[each.step, each.value, each.margin] for each in found.suspects[:_SUSPECTS]],
            "resamples": found.stays_first,
            "stands": found.stands_out,
            "why": found.why,
            "number": _column([step.index for step in steps], range(len(steps))),
            "score": [step.score for step in steps],
            "threshold": _alike([step.threshold for step in steps]),
            "decision": [self._decisions[step.decision] for step in steps],
            "action": [self._actions[step.tool_names or (step.action_kind,)] for step in steps],
            "draws": _alike([step.draws for step in steps]),
        }

    def shared(self) -> dict[str, Any]:
        """What the numbers in the rows stand for. An action is the names of its tools, or else its kind."""
        return {"actions": list(self._actions), "decisions": list(self._decisions)}


def _column(values: Sequence[int], usual: Sequence[int]) -> list[int] | None:
    """None for the usual values."""
    return None if list(values) == list(usual) else list(values)


def _alike(values: Sequence[_T]) -> _T | list[_T] | None:
    """The one value that all of them have, else all."""
    return next(iter(values), None) if len(set(values)) < 2 else list(values)
