"""Scores and decisions of a guard as OpenTelemetry spans, events and metrics; a local trace file, and its reader."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pa_middleware.tracing.reader import Reader, read
from pa_middleware.tracing.spans import Telemetry

if TYPE_CHECKING:
    from pa_middleware.tracing.store import record

__all__ = ["Reader", "Telemetry", "read", "record"]


def __getattr__(name: str) -> Any:
    if name == "record":
        from pa_middleware.tracing.store import record as found

        return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
