"""An event loop in a thread of its own, for work that neither the caller's thread nor the caller's loop waits in."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Coroutine
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, TypeVar

from pa_middleware.scoring.forks import start_anew_after_fork

Result = TypeVar("Result")

_PATIENCE = 1.0
"""Seconds for which the end of the program waits for a loop whose work does not let itself be cancelled."""


class LoopThread:
    """Runs coroutines. The thread starts with the first of them, is a daemon, and a forked child starts its own.

    The thread ends when this is closed, when nobody has it any more, or with the program; what still runs is cancelled
    then.
    """

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
            RuntimeError: this was closed, or the process can have no more threads.
        """
        with self._lock:
            try:
                loop = self._loop = self._loop or self._started()
            except RuntimeError:
                work.close()
                raise
            return asyncio.run_coroutine_threadsafe(work, loop)

    def close(self, last: Coroutine[Any, Any, object] | None = None) -> None:
        """Cancel what runs, run one last thing, and end the thread; a second time does nothing.

        Raises:
            RuntimeError: called on the loop itself, which cannot wait for its own end.
            Exception: what the last thing raised; the thread has ended by then.
        """
        if self._thread is threading.current_thread():
            if last is not None:
                last.close()
            raise RuntimeError("this is the loop's own thread, which cannot wait for its end; close it from another")
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

    def _started(self) -> asyncio.AbstractEventLoop:
        if self._closed:
            raise RuntimeError("this was closed; make a new one")
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=_run, args=(loop,), name="pa-engines", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            loop.close()
            raise
        self._thread = thread
        weakref.finalize(self, _stop, loop, thread)
        return loop


def _stop(loop: asyncio.AbstractEventLoop, thread: threading.Thread) -> None:
    with suppress(RuntimeError):  # closed already
        loop.call_soon_threadsafe(loop.stop)
    if thread is not threading.current_thread():
        thread.join(_PATIENCE)


def _run(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        loop.run_until_complete(_wind_up(None))
        loop.run_until_complete(loop.shutdown_asyncgens())
        with suppress(RuntimeError):  # at exit no thread can be begun, and those of the executor have ended
            loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


async def _wind_up(last: Coroutine[Any, Any, object] | None) -> None:
    while others := asyncio.all_tasks() - {asyncio.current_task()}:  # one that ends may have begun another
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
    if last is not None:
        await last
