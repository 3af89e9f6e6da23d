"""The tracing tests' backend in memory, for guarded agents."""

from __future__ import annotations

from tracing.conftest import Backend, backend

__all__ = ["Backend", "backend"]
