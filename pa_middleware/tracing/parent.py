"""Where a guard span hangs: the parent it should have, given what instrumentation is (or is not) around.

The current OpenTelemetry context alone is not enough. Without instrumentation every step would be a trace of its own,
and OpenInference never makes its spans current. Hence, in this order: the deeper of the current and OpenInference's
span, else the run's anchor, else nothing.
"""

from __future__ import annotations

import re
import sys

from opentelemetry import trace

from pa_middleware.tracing import conventions

_TRACEPARENT = re.compile("00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")


def traceparent(span: trace.Span) -> str:
    """The span's identity as a W3C traceparent header, "" if it has none."""
    context = span.get_span_context()
    if not context.is_valid:
        return ""
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


def trace_of(span: trace.Span) -> str:
    """The id of the trace that a span is in."""
    return f"{span.get_span_context().trace_id:032x}"


def live_parent() -> trace.Span | None:
    """The innermost live span around the caller, None if there is none."""
    current = trace.get_current_span()
    other = _openinference_span()
    if other is None or not other.get_span_context().is_valid:
        return current if current.get_span_context().is_valid else None
    here, there = current.get_span_context(), other.get_span_context()
    if not here.is_valid:
        return other
    deeper = here.trace_id == there.trace_id and _started(other) > _started(current)
    return other if deeper else current


def anchored(anchor: str | None) -> trace.Span | None:
    """The span that a traceparent names, as a parent; None if it is empty or not well formed."""
    match = _TRACEPARENT.fullmatch(anchor or "")
    if match is None:
        return None
    trace_id, span_id, flags = (int(part, 16) for part in match.groups())
    context = trace.SpanContext(trace_id, span_id, is_remote=True, trace_flags=trace.TraceFlags(flags))
    return trace.NonRecordingSpan(context) if context.is_valid else None


def _openinference_span() -> trace.Span | None:
    module = sys.modules.get(conventions.OPENINFERENCE_MODULE)
    lookup = getattr(module, "get_current_span", None)
    try:
        span = lookup() if lookup is not None else None
    except Exception:  # noqa: BLE001 - a foreign module's failure only costs its better parent
        return None
    return span if isinstance(span, trace.Span) else None


def _started(span: trace.Span) -> int:
    return getattr(span, "start_time", None) or 0
