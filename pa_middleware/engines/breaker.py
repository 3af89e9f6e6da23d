"""A circuit breaker: an engine that failed again and again is left alone for a while."""

from __future__ import annotations

import time
from collections.abc import Callable


class Breaker:
    """Used on one event loop.

    Closed, it lets every call through. After `failures` failed calls in a row it is open for `cooldown` seconds and
    lets none through; then it lets one through, and that one's outcome closes it or opens it again.

    Args:
        failures: at least 1.
        cooldown: seconds, more than 0.
        clock: seconds.

    Raises:
        ValueError: a setting outside what is allowed.
    """

    def __init__(
        self, *, failures: int = 5, cooldown: float = 10.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        if failures < 1:
            raise ValueError(f"failures is {failures!r}; allowed: a whole number from 1 on")
        if not cooldown > 0:
            raise ValueError(f"cooldown is {cooldown!r}; allowed: seconds, more than 0")
        self._most, self._cooldown, self._clock = failures, cooldown, clock
        self._failed = 0
        self._until = 0.0
        self._trial = False

    def remaining(self) -> float:
        """Seconds until a call is let through; 0 if one is now."""
        if self._failed < self._most:
            return 0.0
        left = self._until - self._clock()
        if left > 0:
            return left
        return self._cooldown if self._trial else 0.0

    def begin(self) -> None:
        """A call was let through."""
        if self._failed >= self._most:
            self._trial = True

    def succeeded(self) -> None:
        """It was answered."""
        self._failed, self._trial = 0, False

    def failed(self) -> None:
        """It was not."""
        self._failed, self._trial = self._failed + 1, False
        if self._failed >= self._most:
            self._until = self._clock() + self._cooldown

    def dropped(self) -> None:
        """Whoever made it wants no answer any more, which says nothing of the engine."""
        self._trial = False
