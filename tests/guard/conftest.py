"""The tracing tests' backend in memory, for guards."""

from __future__ import annotations

from tracing.conftest import Backend, backend

__all__ = ["Backend", "backend"]
