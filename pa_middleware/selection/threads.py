"""Threads that a search begins: each is new, and no other search of this process begins it at the same time."""

from __future__ import annotations

from threading import Lock
from types import TracebackType
from uuid import uuid4
from weakref import WeakKeyDictionary

from langchain_core.runnables import RunnableConfig

from pa_middleware.selection.driving import Driver, in_thread
from pa_middleware.selection.errors import SelectionError

_lock = Lock()
_begun: WeakKeyDictionary[object, set[str]] = WeakKeyDictionary()
"""By checkpointer: threads whose search goes on, which may not be stored yet."""


class Threads:
    """The threads of one search; as a context manager it gives their names back, once all of them are stored."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self.names: list[str] = []

    def __enter__(self) -> Threads:
        """Begin the search."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        """End the search."""
        if self.names:
            with _lock:
                _begun[self._driver.graph.checkpointer].difference_update(self.names)

    async def new(self, name: str) -> str:
        """This thread, which nobody has begun.

        Raises:
            SelectionError: it exists.
        """
        if not await self._take(name):
            raise SelectionError(
                f"the thread {name!r} exists already, and a run that begins would go on from it; give another thread_id"
            )
        return name

    async def free(self, name: str) -> str:
        """A thread of this name, with a number behind it if there are some already."""
        number = 0
        while not await self._take(thread := f"{name}.{number}" if number else name):
            number += 1
        return thread

    async def _take(self, name: str) -> bool:
        with _lock:
            begun = _begun.setdefault(self._driver.graph.checkpointer, set())
            if name in begun:
                return False
            begun.add(name)
            self.names.append(name)
        if (await self._driver.state(in_thread(name))).values:
            with _lock:
                begun.discard(name)
                self.names.remove(name)
            return False
        return True


def base_name(config: RunnableConfig | None, what: str) -> str:
    """What the threads of a search are named after: the thread of its config, or a name of its own."""
    return (config or {}).get("configurable", {}).get("thread_id") or f"{what}-{uuid4()}"
