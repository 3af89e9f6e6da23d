"""An event loop in a thread of its own, for work that neither the caller's thread nor the caller's loop waits in."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

from pa_middleware.scoring.forks import start_anew_after_fork

Result = TypeVar("Result")


class LoopThread:
    """Runs coroutines. The thread starts with the first of them, is a daemon, and a forked child starts its own."""

    def __init__(self) -> None:
        self._closed = False
        self.start_anew()
        start_anew_after_fork(self)

    def start_anew(self) -> None:
        """Begin without the thread and the lock of before."""
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def submit(self, work: Coroutine[Any, Any, Result]) -> Future[Result]:
        """Run this on the loop, in a copy of the caller's context. Cancelling the future cancels it there.

        Raises:
            RuntimeError: the thread was closed.
        """
        with self._lock:
            if self._closed:
                work.close()
                raise RuntimeError("this was closed; make a new one")
            if self._loop is None:
                loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=_run, args=(loop,), name="pa-engines", daemon=True)
                self._thread.start()
                self._loop = loop
            return asyncio.run_coroutine_threadsafe(work, self._loop)

    def close(self, last: Coroutine[Any, Any, object] | None = None) -> None:
        """Cancel what runs, run one last thing, and end the thread; a second time does nothing."""
        with self._lock:
            loop, thread = self._loop, self._thread
            self._closed, self._loop = True, None
        if loop is None or thread is None:
            if last is not None:
                last.close()
            return
        try:
            asyncio.run_coroutine_threadsafe(_wind_up(last), loop).result()
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()


def _run(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


async def _wind_up(last: Coroutine[Any, Any, object] | None) -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    if last is not None:
        await last
