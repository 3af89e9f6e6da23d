"""How a search drives a compiled graph, in a thread that waits or in an event loop: the same coroutines over both."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver, CheckpointMetadata, CheckpointTuple
from langgraph.pregel import Pregel
from langgraph.types import StateSnapshot

from pa_middleware.guard.way import Making, Result, in_tasks, in_threads
from pa_middleware.selection.errors import SelectionError
from pa_middleware.selection.fork import Fork, ForkEnvironment

Graph = Pregel[Any, Any, Any, Any]


@dataclass(frozen=True, slots=True)
class Driver:
    """Drives one graph."""

    graph: Graph
    fork_environment: ForkEnvironment | None
    waits: bool
    """In a thread that waits: then none of these coroutines ever suspends."""
    context: Any = None
    """Of every run, for a graph that has a `context_schema`."""
    messages_key: str = "messages"
    """The state key of the conversation."""

    async def run(self, value: Any, config: RunnableConfig, **settings: Any) -> Any:
        """The graph's output. Decisions are stored before their tools run, where they are stored at all."""
        settings["context"] = self.context
        if isinstance(self.graph.checkpointer, BaseCheckpointSaver):
            settings["durability"] = "sync"
        if self.waits:
            return self.graph.invoke(value, config, **settings)
        return await self.graph.ainvoke(value, config, **settings)

    async def state(self, config: RunnableConfig) -> StateSnapshot:
        """Where a thread stands."""
        return self.graph.get_state(config) if self.waits else await self.graph.aget_state(config)

    async def history(self, thread: str) -> list[StateSnapshot]:
        """All checkpoints of a thread, the latest first."""
        if self.waits:
            return list(self.graph.get_state_history(in_thread(thread)))
        return [snapshot async for snapshot in self.graph.aget_state_history(in_thread(thread))]

    async def kept(self, thread: str) -> list[CheckpointTuple]:
        """The same, as the checkpointer keeps them."""
        saver = saver_of(self.graph)
        if self.waits:
            return list(saver.list(in_thread(thread)))
        return [kept async for kept in saver.alist(in_thread(thread))]

    async def copy(self, source: RunnableConfig, thread: str) -> None:
        """Begin a thread with a checkpoint of another."""
        saver = saver_of(self.graph)
        found = saver.get_tuple(source) if self.waits else await saver.aget_tuple(source)
        if found is None:
            raise SelectionError("the checkpoint to fork from is gone from the checkpointer")
        config: RunnableConfig = {"configurable": {"thread_id": thread, "checkpoint_ns": ""}}
        metadata: CheckpointMetadata = {**found.metadata, "source": "fork", "parents": {}}
        copied = (config, found.checkpoint, metadata, found.checkpoint["channel_versions"])
        if self.waits:
            saver.put(*copied)
        else:
            await saver.aput(*copied)

    async def fork(self, fork: Fork) -> None:
        """Fork the world.

        Raises:
            SelectionError: by a coroutine function, where nothing could await it.
        """
        done = None if self.fork_environment is None else self.fork_environment(fork)
        if not inspect.isawaitable(done):
            return
        if self.waits:
            if inspect.iscoroutine(done):
                done.close()
            raise SelectionError(
                "fork_environment is a coroutine function, and nothing awaits it here; use the search of the same name "
                "with an `a` in front, or a plain function"
            )
        await done

    async def several(self, making: Sequence[Making[Result]], at_once: int | None = None) -> list[Result]:
        """All of them, so many at the same time, in their order. None: all in an event loop, one in a thread."""
        if self.waits:
            return await in_threads(making, at_once or 1)
        return await in_tasks(making, at_once or max(1, len(making)))


def in_thread(thread: str, config: RunnableConfig | None = None) -> RunnableConfig:
    """A config of the thread, like another in all else but the checkpoint that one may name."""
    base = config or {}
    kept = {key: value for key, value in base.get("configurable", {}).items() if not key.startswith("checkpoint_")}
    return {**base, "configurable": {**kept, "thread_id": thread}}


def check_graph(graph: object, *, forks: bool) -> None:
    """See to it that a graph can be driven.

    Args:
        graph: what was given.
        forks: whether runs will be forked by their checkpoints.

    Raises:
        SelectionError: it is not compiled, or has no checkpoints that can be copied.
    """
    if not isinstance(graph, Pregel):
        raise SelectionError(f"graph is {graph!r:.100}; needed: a compiled graph, builder.compile(...)")
    if forks:
        saver_of(graph)
        _refuse_unkept(graph)


def check_unpaused(graph: Graph) -> None:
    """See to it that a graph does not pause by itself.

    Raises:
        SelectionError: it is compiled with breakpoints.
    """
    if graph.interrupt_before_nodes or graph.interrupt_after_nodes:
        raise SelectionError(
            "the graph pauses by itself, and in a search nobody lets it go on; compile it without interrupt_before and "
            "interrupt_after"
        )


def check_count(name: str, value: object, *, least: int = 1) -> None:
    """See to it that a setting is a whole number from `least` on.

    Raises:
        SelectionError: it is not.
    """
    if type(value) is not int or value < least:
        raise SelectionError(f"{name} is {value!r}; allowed: a whole number from {least} on")


def saver_of(graph: Graph) -> BaseCheckpointSaver[Any]:
    """The graph's checkpointer.

    Raises:
        SelectionError: it has none of its own.
    """
    if not isinstance(graph.checkpointer, BaseCheckpointSaver):
        raise SelectionError(
            "the graph has no checkpointer, and a run is forked by its checkpoints; use "
            "builder.compile(checkpointer=...)"
        )
    return graph.checkpointer


def _refuse_unkept(graph: Graph) -> None:
    """What a checkpoint does not hold whole, a copy of it would begin without."""
    lost = {"DeltaChannel": "keep differences only", "UntrackedValue": "are in no checkpoint"}
    for kind, why in lost.items():
        keys = [name for name, channel in graph.channels.items() if type(channel).__name__ == kind]
        if keys:
            raise SelectionError(
                f"the state's keys {keys} {why} ({kind}), so that a run cannot be forked; give them another channel"
            )
