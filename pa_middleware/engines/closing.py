"""What becomes of work on a loop that is closed before it is done: it fails, as it does for any other reason."""

from __future__ import annotations

from concurrent.futures import Future
from typing import TypeVar

from pa_middleware.engines.errors import EngineUnavailableError

Result = TypeVar("Result")


def unless_closed(work: Future[Result], whose: str) -> Future[Result]:
    """The same result or error, later; cancelling it cancels the work.

    Work that something else cancels, such as the end of its loop, is an error here. Who awaits a future that is
    cancelled could not tell it from being cancelled itself, and so would its own caller.

    Args:
        work: on a loop.
        whose: what was closed, for people to read.
    """
    told: Future[Result] = Future()

    def tell(done: Future[Result]) -> None:
        if not told.set_running_or_notify_cancel():
            return  # whoever asked has left
        if done.cancelled():
            told.set_exception(EngineUnavailableError(f"{whose} was closed before this was scored"))
        elif (error := done.exception()) is not None:
            told.set_exception(error)
        else:
            told.set_result(done.result())

    told.add_done_callback(lambda left: work.cancel() if left.cancelled() else None)
    work.add_done_callback(tell)
    return told
