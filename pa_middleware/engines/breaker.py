"""A circuit breaker: an engine that failed again and again is left alone for a while."""

from __future__ import annotations

import time
from collections.abc import Callable

from pa_middleware.engines.settings import positive, whole


class Breaker:
    """Used on one event loop.

    Closed, it lets every call through. After `failures` failed calls in a row it is open for `cooldown` seconds and
    lets none through; then it lets one through, the trial, whose outcome closes it or opens it again. Calls that began
    before it opened and end after that change nothing, unless they are answered: that closes it.

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
        self._most, self._cooldown = whole("failures", failures, 1), positive("cooldown", cooldown)
        self._clock = clock
        self._failed = 0
        self._until = 0.0
        self._trial = False

    def remaining(self) -> float:
        """Seconds until a call is let through; 0 if one is now. While the trial runs, as if it were to fail now."""
        if self._failed < self._most:
            return 0.0
        return self._cooldown if self._trial else max(0.0, self._until - self._clock())

    def begin(self) -> bool:
        """A call was let through; whether it is the trial."""
        self._trial = self._failed >= self._most
        return self._trial

    def succeeded(self) -> None:
        """A call was answered."""
        self._failed, self._trial = 0, False

    def failed(self, *, trial: bool) -> None:
        """A call was not answered: no attempt of it was, or the engine had long enough for it and gave no answer."""
        if self._failed >= self._most and not trial:
            return
        self._failed += 1
        if self._failed >= self._most:
            self._until, self._trial = self._clock() + self._cooldown, False

    def dropped(self, *, trial: bool) -> None:
        """A call ended before the engine had had long enough for it, which says nothing of the engine."""
        if trial:
            self._trial = False
