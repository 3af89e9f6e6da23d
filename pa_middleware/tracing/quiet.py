"""Telemetry must never break an agent: a block whose exceptions are logged once and otherwise ignored."""

from __future__ import annotations

import logging
from types import TracebackType

from pa_middleware.tracing import conventions

_logger = logging.getLogger(conventions.LOGGER)


class Quiet:
    """Context manager that swallows every `Exception` of its block and warns of the first one only.

    Reusable and reentrant. KeyboardInterrupt and the like pass. Put nothing but telemetry inside.
    """

    __slots__ = ("_warned",)

    def __init__(self) -> None:
        self._warned = False

    def __enter__(self) -> None:
        """Nothing to prepare."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> bool:
        """Swallow an `Exception`; let anything else through."""
        if not isinstance(error, Exception):
            return False
        if not self._warned:
            self._warned = True
            _logger.warning(
                "Telemetry failed (%s); the agent goes on, its spans and metrics may be incomplete. "
                "Further failures of this Telemetry are not logged.",
                type(error).__name__,
                exc_info=error,
            )
        return True
