"""What the command line needs of an agent to replay its runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pa_middleware.selection.driving import Graph
from pa_middleware.selection.fork import ForkEnvironment
from pa_middleware.selection.replay_result import Succeeded


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayable:
    """An agent whose finished runs can be replayed: `pa-middleware replay RUN --app module:name` names one."""

    graph: Graph
    """Compiled with the checkpointer that holds the runs, and guarded."""
    fork_environment: ForkEnvironment | None = None
    """Makes a world for the replayed run; see `Fork`."""
    side_effect_free: bool = False
    """Say that the tools change nothing, in place of `fork_environment`."""
    succeeded: Succeeded | None = None
    """Tells whether a run did what it was to do."""
    context: Any = None
    """Of the replayed run, for a graph that has a `context_schema`."""
    messages_key: str = "messages"
    """The state key of the conversation."""
    close: Callable[[], None] | None = None
    """Called in the end."""
