"""A telemetry backend in memory, on providers of its own: no global is ever set."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from langchain_core.messages import AIMessage
from opentelemetry.sdk._logs import LoggerProvider, ReadableLogRecord
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.util.types import AttributeValue

from pa_middleware.scoring.scorer import CallScore, CandidateScore
from pa_middleware.tracing import Telemetry
from pa_middleware.tracing.step import StepSpan

CANARY = "canary-7f3e"


class Backend:
    """Everything a `Telemetry` exports, and short ways to make it export."""

    canary = CANARY

    def __init__(self) -> None:
        self._spans = InMemorySpanExporter()
        self._logs = InMemoryLogRecordExporter()  # type: ignore[no-untyped-call]
        self._metrics = InMemoryMetricReader()
        self.tracer_provider = TracerProvider(shutdown_on_exit=False)
        self.tracer_provider.add_span_processor(SimpleSpanProcessor(self._spans))
        self.logger_provider = LoggerProvider(shutdown_on_exit=False)
        self.logger_provider.add_log_record_processor(SimpleLogRecordProcessor(self._logs))
        self.meter_provider = MeterProvider([self._metrics], shutdown_on_exit=False)

    def telemetry(self, **settings: Any) -> Telemetry:
        return Telemetry(
            **{
                "scorer": "scripted",
                "tracer_provider": self.tracer_provider,
                "logger_provider": self.logger_provider,
                "meter_provider": self.meter_provider,
                **settings,
            }
        )

    def score(self, score: float = -1.5, ratios: tuple[float, ...] = (-2.0, 0.5), *calls: CallScore) -> CandidateScore:
        return CandidateScore(score, -4.0, -2.5, ratios, calls)

    def message(self) -> AIMessage:
        call = {"name": "search", "args": {"query": f"arguments {CANARY}"}, "id": "call-1", "type": "tool_call"}
        return AIMessage(f"text {CANARY}", tool_calls=[call])

    def decide(self, span: StepSpan, score: float | None = -1.5, **changes: Any) -> None:
        span.decided(
            **{
                "decision": "flag",
                "reason": "below_threshold",
                "score": score,
                "threshold": -0.5,
                "aggregation": "sum",
                "candidate_count": 1,
                "selected_index": 0,
                "action_kind": "tool_call",
                "tool_names": ["search"],
                "tool_call_ids": ["call-1"],
                **changes,
            }
        )

    def spans(self, name: str = "") -> list[ReadableSpan]:
        found = [span for span in self._spans.get_finished_spans() if name in span.name]
        return sorted(found, key=lambda span: (span.start_time or 0, self.id(span)))

    def span(self, name: str) -> ReadableSpan:
        (only,) = self.spans(name)
        return only

    def attributes(self, name: str) -> dict[str, AttributeValue]:
        return dict(self.span(name).attributes or {})

    def id(self, span: ReadableSpan) -> int:
        assert span.context is not None
        return int(span.context.span_id)

    def traces(self) -> set[int]:
        return {span.context.trace_id for span in self.spans() if span.context is not None}

    def events(self) -> list[ReadableLogRecord]:
        return list(self._logs.get_finished_logs())

    def points(self, metric: str) -> list[Any]:
        data = self._metrics.get_metrics_data()
        if data is None:
            return []
        return [
            point
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for each in scope.metrics
            if each.name == metric
            for point in each.data.data_points
        ]

    def everything(self) -> str:
        """All that was exported, of all three signals, as text."""
        data = self._metrics.get_metrics_data()
        parts = [span.to_json() for span in self.spans()] + [log.to_json() for log in self.events()]
        return "\n".join([*parts, data.to_json() if data is not None else json.dumps(None)])


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> Iterator[Backend]:
    monkeypatch.delenv("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", raising=False)
    monkeypatch.delitem(sys.modules, "openinference.instrumentation.langchain", raising=False)
    backend = Backend()
    yield backend
    backend.tracer_provider.shutdown()
    backend.logger_provider.shutdown()
    backend.meter_provider.shutdown()
