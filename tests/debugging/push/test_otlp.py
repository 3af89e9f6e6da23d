"""Spans to any OTLP endpoint."""

from __future__ import annotations

from pathlib import Path

import pytest
from debugging.push.loopback import Answer, loopback
from debugging.push.recorded import SPANS
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from pa_middleware.debugging.push import PushError, push


def test_spans_go_as_compressed_protobuf(trace: Path) -> None:
    with loopback() as server:
        pushed = push(trace, "otlp", endpoint=f"{server.url}/")
    (asked,) = server.asked
    assert (asked.method, asked.path) == ("POST", "/v1/traces")
    assert asked.headers["content-type"] == "application/x-protobuf"
    assert sum(len(each.scope_spans[0].spans) for each in asked.spans.resource_spans) == SPANS
    assert (pushed.spans, pushed.scores, pushed.endpoint) == (SPANS, 0, server.url)


def test_standard_variables_name_endpoint_and_headers(trace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with loopback() as server:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"{server.url}/base")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-one=1, x-two=a%20b")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "x-one=2")
        push(trace, "otlp", headers={"x-three": "3"})
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", f"{server.url}/as/it/is")
        push(trace, "otlp")
        push(trace, "otlp", endpoint=server.url)
    assert server.paths() == ["/base/v1/traces", "/as/it/is", "/v1/traces"]
    sent = server.asked[0].headers
    assert (sent["x-one"], sent["x-two"], sent["x-three"]) == ("2", "a b", "3")


def test_headers_that_are_no_pairs_are_refused(trace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "secret")
    with pytest.raises(PushError, match="OTEL_EXPORTER_OTLP_HEADERS is not a list") as caught:
        push(trace, "otlp")
    assert "secret" not in str(caught.value)


def test_spans_that_a_server_rejects_are_counted_with_its_words(trace: Path) -> None:
    told = ExportTraceServiceResponse()
    told.partial_success.rejected_spans = 2
    told.partial_success.error_message = "too old"
    answer = Answer(200, told.SerializeToString(), {"content-type": "application/x-protobuf"})
    with loopback(lambda _: answer) as server:
        pushed = push(trace, "otlp", endpoint=server.url)
    assert (pushed.spans, pushed.failed, pushed.reasons) == (SPANS - 2, 2, ("spans: too old",))


def test_a_project_or_scores_alone_mean_nothing_to_it(trace: Path) -> None:
    with pytest.raises(PushError, match="knows no projects"):
        push(trace, "otlp", project="taxi")
    with pytest.raises(PushError, match="spans only"):
        push(trace, "otlp", spans=False)
