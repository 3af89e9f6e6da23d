"""Telemetry that fails must never reach the agent."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult

from pa_middleware.tracing import Telemetry
from pa_middleware.tracing import conventions as names

if TYPE_CHECKING:
    from tracing.conftest import Backend


class Broken:
    """Raises at whatever is asked of it."""

    def __getattr__(self, name: str) -> Any:
        raise OSError(f"no {name}")


class BrokenExporter(SpanExporter):
    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        raise OSError("no export")


class BrokenProcessor(SpanProcessor):
    def __init__(self, *where: str) -> None:
        self.where = where

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        if "start" in self.where:
            raise OSError("no start")

    def on_end(self, span: ReadableSpan) -> None:
        if "end" in self.where:
            raise OSError("no end")


class BrokenSpan(trace.NonRecordingSpan):
    """Records, and raises when told anything."""

    def is_recording(self) -> bool:
        return True

    def set_attribute(self, key: str, value: Any) -> None:
        raise OSError("no attribute")

    def set_attributes(self, attributes: Any) -> None:
        raise OSError("no attributes")

    def set_status(self, *_: Any, **__: Any) -> None:
        raise OSError("no status")

    def end(self, end_time: int | None = None) -> None:
        raise OSError("no end")


class BrokenSpans(trace.TracerProvider, trace.Tracer):
    """Tracer and provider of broken spans."""

    def get_tracer(self, *_: Any, **__: Any) -> trace.Tracer:
        return self

    def start_span(self, *_: Any, **__: Any) -> trace.Span:
        return BrokenSpan(trace.SpanContext(1, 2, is_remote=False, trace_flags=trace.TraceFlags(1)))

    def start_as_current_span(self, *_: Any, **__: Any) -> Any:
        raise OSError


def _provider(processor: SpanProcessor) -> TracerProvider:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(processor)
    return provider


PROVIDERS: dict[str, Any] = {
    "provider": Broken,
    "span": BrokenSpans,
    "processor at start": lambda: _provider(BrokenProcessor("start")),
    "processor at end": lambda: _provider(BrokenProcessor("end")),
    "exporter": lambda: _provider(SimpleSpanProcessor(BrokenExporter())),
}


def _tell(backend: Backend, telemetry: Telemetry, steps: int = 3) -> None:
    before = trace.get_current_span()
    for index in range(steps):
        with telemetry.step(index=index) as span:
            span.candidate(0, backend.score(), label="fail", message=backend.message())
            span.candidate(1, None, label="", error=ValueError())
            backend.decide(span, error=ValueError())
        assert trace.get_current_span() is before


@pytest.mark.parametrize("which", PROVIDERS)
def test_a_broken_tracer_never_reaches_the_caller_and_metrics_and_events_go_on(
    backend: Backend, caplog: pytest.LogCaptureFixture, which: str
) -> None:
    _tell(backend, backend.telemetry(tracer_provider=PROVIDERS[which](), content=True))
    assert backend.points(names.DECISIONS_METRIC)[0].value == 3
    assert len(backend.events()) == 6
    warnings = [record for record in caplog.records if record.name == names.LOGGER]
    assert len(warnings) == (0 if which == "exporter" else 1)  # the SDK itself logs what an exporter raises
    assert all(record.levelno == logging.WARNING for record in warnings)


def test_broken_meters_and_loggers_never_reach_the_caller_and_spans_go_on(
    backend: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    _tell(backend, backend.telemetry(meter_provider=Broken(), logger_provider=Broken()))
    assert len(backend.spans(names.SCORE_SPAN)) == 6
    assert len([record for record in caplog.records if record.name == names.LOGGER]) == 1


def test_each_telemetry_warns_once_of_its_own_failures(backend: Backend, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        _tell(backend, backend.telemetry(tracer_provider=Broken()))
    assert len([record for record in caplog.records if record.name == names.LOGGER]) == 2


def test_the_bodys_own_exception_passes_through_a_broken_tracer(backend: Backend) -> None:
    error = KeyError("the body's own")
    for broken in PROVIDERS.values():
        with pytest.raises(KeyError) as caught, backend.telemetry(tracer_provider=broken()).step(index=0):
            raise error
        assert caught.value is error


def test_a_score_that_is_no_score_never_reaches_the_caller(backend: Backend) -> None:
    wrong: Any = object()
    with backend.telemetry(content=True).step(index=wrong, attributes={"a": wrong, "b": 1}) as span:
        span.candidate(wrong, wrong, label=wrong, message=wrong)
        backend.decide(span, wrong, tool_names=wrong, candidate_count=wrong)
    assert backend.attributes(names.GUARD_SPAN)["b"] == 1


def test_content_that_cannot_be_read_leaves_the_score_on_its_span(backend: Backend) -> None:
    message: Any = Broken()
    with backend.telemetry(content=True).step(index=0) as span:
        span.candidate(0, backend.score(-1.5), label="fail", message=message)
    assert backend.attributes(names.SCORE_SPAN)[names.EVALUATION_SCORE] == -1.5
    assert len(backend.events()) == 1
