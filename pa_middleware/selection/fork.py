"""The world beside the graph: LangGraph copies its own state and nothing else, so whoever forks a run forks its
world.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from langchain_core.messages import BaseMessage

from pa_middleware.selection.errors import SelectionError


@dataclass(frozen=True, slots=True)
class Fork:
    """A run that begins, and what its world has to be like."""

    target: str
    """Thread of the run that begins; its tools find their world by it, `config["configurable"]["thread_id"]`."""
    source: str | None
    """Thread that it goes on from; None if it begins with the input, in a fresh world."""
    steps: int
    """How many steps the source had taken at that point; 0 without a source. Later ones must have left no mark. Which
    calls of these steps ran (a guard may have blocked some) is in `messages`."""
    messages: Sequence[BaseMessage] = ()
    """The conversation at that point; a world that can be rebuilt is rebuilt from its calls."""
    luck: int | None = None
    """Which of several runs, from 0, that are to tell a step from luck: its world needs chance of its own, for instance
    from this number as a seed. None: the world goes on as the source's did, chance too if it can be held."""


ForkEnvironment = Callable[[Fork], Awaitable[None] | None]
"""Gives the target's thread a world of its own. It may be a coroutine function in what is awaited."""


def check_world(fork_environment: ForkEnvironment | None, *, side_effect_free: bool) -> None:
    """See to it that somebody forks the world, or says that there is nothing to fork.

    Raises:
        SelectionError: neither, or both.
    """
    if fork_environment is None and side_effect_free is not True:
        raise SelectionError(
            "the tools would run several times, in one world: the graph's state is copied, and what its tools act on "
            "is not. Give fork_environment=..., which makes a world for each run, or say side_effect_free=True if the "
            "tools only read"
        )
    if fork_environment is not None and side_effect_free:
        raise SelectionError("side_effect_free=True has no effect next to fork_environment; leave one of them out")
