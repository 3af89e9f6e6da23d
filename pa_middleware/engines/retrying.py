"""When an attempt is made again: after waits that grow, as often and as late as a call may."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type

_FIRST_WAIT, _LONGEST_WAIT = 0.1, 5.0


class TryAgainError(Exception):
    """An attempt that failed in a way that another may not.

    Args:
        said: what went wrong.
        after: seconds that the server wants to be left alone.
    """

    def __init__(self, said: str, *, after: float | None = None) -> None:
        self.after = after
        super().__init__(said)


def retrying(
    *,
    attempts: int,
    end: float | None,
    sleep: Callable[[float], Awaitable[None]],
    chance: Callable[[], float],
) -> AsyncRetrying:
    """Calls something until it raises no `TryAgainError`; the last one is raised as it is.

    Args:
        attempts: the most.
        end: by the loop's clock; an attempt that could only come after it is not waited for.
        sleep: waits between attempts.
        chance: from 0 to 1, for the jitter of these waits.
    """
    loop = asyncio.get_running_loop()

    def stop(state: RetryCallState) -> bool:
        late = end is not None and loop.time() + state.upcoming_sleep >= end
        return late or state.attempt_number >= attempts

    def wait(state: RetryCallState) -> float:
        """Seconds until the next attempt: anything up to a limit that doubles, behind what the server asks for."""
        error = state.outcome.exception() if state.outcome is not None else None
        asked = error.after if isinstance(error, TryAgainError) and error.after is not None else 0.0
        limit: float = min(_LONGEST_WAIT, _FIRST_WAIT * 2 ** (state.attempt_number - 1))
        return asked + chance() * limit

    return AsyncRetrying(stop=stop, wait=wait, retry=retry_if_exception_type(TryAgainError), sleep=sleep, reraise=True)
