"""Trace files as OTLP requests of bounded size, each with the scores its spans hold; files are read in a stream."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from google.protobuf.json_format import ParseDict, ParseError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, Span

from pa_middleware.debugging.push.scores import Score, scores
from pa_middleware.tracing.otlp import dicts, requests, span_record

LIMIT = 2 * 2**20
"""Bytes of a request before it is compressed; only a span that is larger by itself makes a larger one."""
_OVERHEAD = 16
"""Bytes that a message may need beside its own."""
_IDS = {"traceId": 16, "spanId": 8, "parentSpanId": 8}
"""Lengths of the ids in bytes. OTLP-JSON spells them in hex, where other protobuf JSON has base64."""


@dataclass(slots=True)
class Batch:
    """Spans that are sent in one request, and the scores to post after them."""

    request: ExportTraceServiceRequest = field(default_factory=ExportTraceServiceRequest)
    scores: list[Score] = field(default_factory=list)
    spans: int = 0
    malformed: int = 0
    """Spans that were left out."""
    size: int = 0
    """Bytes of the request, or somewhat more."""
    _frame: dict[str, Any] | None = None

    def fits(self, span: Span) -> bool:
        """True if the request stays below the limit with this span."""
        return not self.spans or self.size + span.ByteSize() + _OVERHEAD <= LIMIT

    def add(self, frame: dict[str, Any], span: Span) -> None:
        """Take a span with its frame: the resource and scope it stands in. Raises ParseError for one that is none."""
        if frame != self._frame:
            made = ParseDict(frame, ResourceSpans(), ignore_unknown_fields=True)
            self.request.resource_spans.append(made)
            self.size += made.ByteSize() + 2 * _OVERHEAD
            self._frame = frame
        self.request.resource_spans[-1].scope_spans[-1].spans.append(span)
        self.size += span.ByteSize() + _OVERHEAD
        self.spans += 1


def batches(files: Iterable[Path]) -> Iterator[Batch]:
    """All spans of the files as they were recorded, whoever wrote them, in batches; in memory is one of these."""
    batch = Batch()
    for file in files:
        for _, request in requests(file):
            for frame, told in _spans(request):
                try:
                    span = _encoded(told)
                    if not batch.fits(span):
                        yield batch
                        batch = Batch()
                    batch.add(frame, span)
                except (ParseError, ValueError, TypeError, AttributeError, RecursionError):
                    batch.malformed += 1
                    continue
                if (record := span_record(told)) is not None:
                    batch.scores.extend(scores(record))
    if batch.spans or batch.malformed:
        yield batch


def _spans(request: dict[str, Any]) -> Iterator[tuple[dict[str, Any], Any]]:
    """Each span of a line, with its resource and scope as a `ResourceSpans` that is otherwise empty."""
    for resource in dicts(request.get("resourceSpans")):
        for scope in dicts(resource.get("scopeSpans")):
            frame = _kept(resource, "resource", "schemaUrl")
            frame["scopeSpans"] = [_kept(scope, "scope", "schemaUrl")]
            told = scope.get("spans")
            for span in told if isinstance(told, list) else ():
                yield frame, span


def _encoded(told: dict[str, Any]) -> Span:
    """The span as protobuf. Raises what ParseDict and `bytes.fromhex` raise for one that is malformed."""
    links = [_with_ids(link) for link in told.get("links") or ()]
    span = ParseDict({**_with_ids(told), "links": links}, Span(), ignore_unknown_fields=True)
    if not (any(span.trace_id) and any(span.span_id)):
        raise ValueError("a span without an id")
    return span


def _with_ids(told: dict[str, Any]) -> dict[str, Any]:
    ids = {}
    for name, length in _IDS.items():
        if spelled := told.get(name):
            raw = bytes.fromhex(spelled)
            if len(raw) != length:
                raise ValueError(f"{name} of {len(raw)} bytes")
            ids[name] = base64.b64encode(raw).decode()
    return {**told, **ids}


def _kept(told: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: told[name] for name in names if name in told}
