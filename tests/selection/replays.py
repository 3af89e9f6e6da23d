"""A run of which one step can be taken otherwise, and its replay."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from selection.worlds import GO, How, Path, agent, run, taken, thread

from pa_middleware import Rules
from pa_middleware.selection import Replay, Trajectory, areplay, replay

PLAN = (1.0, -5.0, 2.0)
"""What the agent does by itself; at the second step it could also do 4, and then goes on with 3."""


def follows(path: Path) -> Sequence[float | None]:
    if len(path) >= 3:
        return [None]
    if len(path) == 1:
        return [-5.0, 4.0, -5.0]
    return [3.0] if 4.0 in path else [PLAN[len(path)], PLAN[len(path)], 0.5]


def succeeded(run: Trajectory) -> bool:
    return 4.0 in taken(run.messages)


def ran(how: How, **settings: Any) -> tuple[Any, Any, Any]:
    """An agent, its worlds and its model, after its run."""
    graph, worlds, model = agent(follows, Rules(mode="shadow"), how=how, **settings)
    config = thread("run")
    if how == "sync":
        graph.invoke(GO, config, durability="sync")
    else:
        asyncio.run(graph.ainvoke(GO, config, durability="sync"))
    return graph, worlds, model


def replayed(how: How, graph: Any, worlds: Any, **given: Any) -> Replay:
    fork = worlds.fork if how == "sync" else worlds.afork
    settings = {"fork_environment": fork, "succeeded": succeeded, "draws": 3, **given}
    found: Replay = run(how, replay, areplay, graph, "run", **settings)
    return found
