"""A small real graph, guarded and recorded: what a run's actions score is said when it is started."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from calibration.made import SCORER
from guard.agents import ByArgument, Scripted, World, act, agent_node, build, run, say

from pa_middleware import Guard, Rules, record
from pa_middleware.guard.record import Record

SHADOW = Rules(threshold=-1000.0, mode="shadow")


class Known(ByArgument):
    """The scorer of the guard's tests, with a fingerprint."""

    def __init__(self, parts: Mapping[str, str] = SCORER) -> None:
        super().__init__()
        self._parts = parts

    def fingerprint(self) -> Mapping[str, str]:
        return self._parts


def take_run(
    name: str, scores: Sequence[float], *, scorer: Any = None, rules: Rules = SHADOW, replies: Any = None
) -> list[Record]:
    """One run to its end; all scores but the last are those of a tool call each, the last the answer's."""
    *calls, answer = scores
    replies = replies or [*(act(score) for score in calls), say(answer)]
    guard = Guard(scorer or Known(), rules)
    graph = build(guard, agent_node(Scripted(replies=replies)), World()).compile()
    records: list[Record] = run(graph, config={"configurable": {"thread_id": name}})["pa"]
    return records


def recorded(file: Path, runs: Mapping[str, Sequence[float]], **settings: Any) -> Path:
    """A trace file of runs by conversation id."""
    with record(file):
        for name, scores in runs.items():
            take_run(name, scores, **settings)
    return file
