"""Which recording is open, so that a `Telemetry` without a provider finds it at each step. No SDK here."""

from __future__ import annotations

import contextlib
from contextvars import ContextVar

from opentelemetry.trace import TracerProvider


class OpenRecording:
    """The entry of one open recording; `provider` is None once it was closed."""

    __slots__ = ("provider",)

    def __init__(self, provider: TracerProvider) -> None:
        self.provider: TracerProvider | None = provider


_in_context: ContextVar[tuple[OpenRecording, ...]] = ContextVar("pa_middleware_recordings", default=())
_in_process: list[OpenRecording] = []


def opened(provider: TracerProvider) -> OpenRecording:
    """Enter a recording that was just opened; hand the answer to `closed` later."""
    entry = OpenRecording(provider)
    _in_context.set((*(other for other in _in_context.get() if other.provider is not None), entry))
    _in_process.append(entry)
    return entry


def closed(entry: OpenRecording) -> None:
    """Take a recording out. It may be closed from another thread or task than the one that opened it."""
    entry.provider = None
    _in_context.set(tuple(other for other in _in_context.get() if other is not entry))
    with contextlib.suppress(ValueError):
        _in_process.remove(entry)


def current_provider() -> TracerProvider | None:
    """Provider of the recording opened last in this context, else of the one opened last in this process, else None.

    The context comes first so that two recordings in concurrent tasks stay apart; the process comes second so that a
    step on a thread that inherited no context is not lost.
    """
    for entry in reversed(_in_context.get()):
        if entry.provider is not None:
            return entry.provider
    return next((entry.provider for entry in _in_process[-1:]), None)
