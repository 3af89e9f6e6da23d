"""What graphs inside a draw would store in the thread, kept apart until it is known what becomes of the draw.

A graph that a guarded node is, or calls, stores its checkpoints with the checkpointer it inherits. Those of a rejected
draw are not to be found in the thread, so each draw has a store of its own, which shows what the thread's holds already
and writes to memory. Those of the draw that is taken are passed on once it is; the others are dropped.

A draw whose graph waits for an answer is another matter: whoever gives the answer may do so after a restart, or in
another process, and LangGraph then runs the node from its start and each of its graphs from where it was. So all that a
step had stored by then is passed on, its other draws included, and stays in the thread: without them the questions that
were answered would be asked again, and a step of several draws would never end.
"""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from inspect import signature
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    get_checkpoint_id,
)
from langgraph.checkpoint.memory import InMemorySaver

Writes = Sequence[tuple[str, Any]]


class Unsettled(InMemorySaver):
    """The checkpointer of one draw.

    Args:
        thread: the checkpointer that the draw's node was given.
    """

    def __init__(self, thread: BaseCheckpointSaver[Any]) -> None:
        super().__init__(serde=thread.serde)
        self._thread = thread
        self._stored: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []
        """Calls that stored something, in order: method and arguments."""

    def settle(self) -> None:
        """Store in the thread what was stored here."""
        for method, arguments, optional in self._stored:
            call = getattr(self._thread, method)
            call(*arguments, **_accepted(call, optional))

    async def asettle(self) -> None:
        """As `settle`, by the checkpointer's async twins."""
        for method, arguments, optional in self._stored:
            call = getattr(self._thread, f"a{method}")
            await call(*arguments, **_accepted(call, optional))

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Store a checkpoint here."""
        stored = super().put(config, checkpoint, metadata, new_versions)
        self._stored.append(("put", (config, checkpoint, metadata, new_versions), {}))
        return stored

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """As `put`."""
        return self.put(config, checkpoint, metadata, new_versions)

    def put_writes(self, config: RunnableConfig, writes: Writes, task_id: str, task_path: str = "") -> None:
        """Store a task's writes here."""
        super().put_writes(config, writes, task_id, task_path)
        self._stored.append(("put_writes", (config, writes, task_id), {"task_path": task_path}))

    async def aput_writes(self, config: RunnableConfig, writes: Writes, task_id: str, task_path: str = "") -> None:
        """As `put_writes`."""
        self.put_writes(config, writes, task_id, task_path)

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """The checkpoint from here or the thread, the later one unless the config names it."""
        if not self._has(config, get_checkpoint_id(config)):
            self._copy(config, self._thread.get_tuple(config))
        return super().get_tuple(config)

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """As `get_tuple`."""
        if not self._has(config, get_checkpoint_id(config)):
            self._copy(config, await self._thread.aget_tuple(config))
        return super().get_tuple(config)

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,  # noqa: A002 - LangGraph's signature
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        """The checkpoints from here and the thread, latest first."""
        ours = super().list(config, filter=filter, before=before)
        theirs = self._thread.list(config, filter=filter, before=before, limit=limit)
        yield from _merged(ours, theirs, limit)

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,  # noqa: A002
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """As `list`."""
        ours = super().list(config, filter=filter, before=before)
        theirs = [each async for each in self._thread.alist(config, filter=filter, before=before, limit=limit)]
        for each in _merged(ours, theirs, limit):
            yield each

    def get_delta_channel_history(self, *, config: RunnableConfig, channels: Sequence[str]) -> Mapping[str, Any]:
        """By way of `get_tuple`: the checkpoints before may be in the thread."""
        return BaseCheckpointSaver.get_delta_channel_history(self, config=config, channels=channels)

    async def aget_delta_channel_history(self, *, config: RunnableConfig, channels: Sequence[str]) -> Mapping[str, Any]:
        """As `get_delta_channel_history`."""
        return await BaseCheckpointSaver.aget_delta_channel_history(self, config=config, channels=channels)

    def get_next_version(self, current: Any, channel: None) -> Any:
        """The thread's: what is passed on has to fit what is there."""
        return self._thread.get_next_version(current, channel)

    def with_allowlist(self, extra_allowlist: Collection[tuple[str, ...]]) -> Unsettled:
        """A twin that shares what is stored here, and reads such types."""
        twin = copy.copy(self)
        twin._thread = self._thread.with_allowlist(extra_allowlist)
        twin.serde = twin._thread.serde
        return twin

    def _has(self, config: RunnableConfig, checkpoint: str | None) -> bool:
        """Whether this checkpoint is here; None, the latest, may always be one of the thread's."""
        thread, namespace = _place(config)
        return checkpoint is not None and checkpoint in self.storage.get(thread, {}).get(namespace, {})

    def _copy(self, asked: RunnableConfig, found: CheckpointTuple | None) -> None:
        """Have a checkpoint of the thread here as well, so that writes which follow it join its own."""
        if found is None or self._has(asked, found.checkpoint["id"]):
            return
        thread, namespace = _place(asked)
        parent = (found.parent_config or {}).get("configurable", {}).get("checkpoint_id")
        here = super().put(
            {"configurable": {"thread_id": thread, "checkpoint_ns": namespace, "checkpoint_id": parent}},
            found.checkpoint,
            found.metadata,
            found.checkpoint["channel_versions"],
        )
        writes: dict[str, list[tuple[str, Any]]] = {}
        for task, channel, value in found.pending_writes or ():
            writes.setdefault(task, []).append((channel, value))
        for number, (task, of_task) in enumerate(writes.items()):
            # Paths are not told, and writes are read in their order: these keep theirs, before any that follow.
            super().put_writes(here, of_task, task, f"{number:08}")


def _accepted(call: Callable[..., Any], optional: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments without those that a checkpointer does not take: tasks had no paths once."""
    takes = signature(call).parameters
    return {name: value for name, value in optional.items() if name in takes}


def _merged(
    ours: Iterable[CheckpointTuple], theirs: Iterable[CheckpointTuple], limit: int | None
) -> Sequence[CheckpointTuple]:
    found = {(*_place(each.config), each.checkpoint["id"]): each for each in (*theirs, *ours)}
    return sorted(found.values(), key=lambda each: str(each.checkpoint["id"]), reverse=True)[:limit]


def _place(config: RunnableConfig) -> tuple[str, str]:
    place = config["configurable"]
    return place["thread_id"], place.get("checkpoint_ns", "")
