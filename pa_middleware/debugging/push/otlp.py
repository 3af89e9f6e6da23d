"""Any OpenTelemetry collector or backend: spans only, on which the scores are attributes."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from urllib.parse import unquote

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from pa_middleware.debugging.push.backend import Backend, Taken, Target
from pa_middleware.debugging.push.errors import PushError
from pa_middleware.debugging.push.scores import Score
from pa_middleware.debugging.push.server import Server

DEFAULT = "http://127.0.0.1:4318"
TRACES = "/v1/traces"
ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
TRACES_ENDPOINT = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
HEADERS = "OTEL_EXPORTER_OTLP_HEADERS"
TRACES_HEADERS = "OTEL_EXPORTER_OTLP_TRACES_HEADERS"


class Otlp(Backend):
    """An OTLP endpoint, http/protobuf. Standard variables tell endpoint and headers; those of traces come first.

    An endpoint is a base URL to which /v1/traces is added, except in OTEL_EXPORTER_OTLP_TRACES_ENDPOINT.
    """

    takes_scores = False

    def __init__(self, target: Target) -> None:
        if target.project is not None:
            raise PushError(f"--project {target.project!r} has no effect with otlp, which knows no projects")
        whole = "" if target.endpoint else os.environ.get(TRACES_ENDPOINT, "").strip()
        self._path = "" if whole else TRACES
        self.project = ""
        self.server = Server(
            "otlp",
            whole or target.endpoint or os.environ.get(ENDPOINT, "").strip() or DEFAULT,
            {**_headers(HEADERS), **_headers(TRACES_HEADERS), **target.headers},
            keys=f"--headers and {HEADERS}",
            allow_http=target.allow_http,
        )

    def send(self, request: ExportTraceServiceRequest, spans: int) -> Taken:
        """Send so many spans."""
        return self._send(self._path, request, spans)

    def post(self, scores: Sequence[Score]) -> Taken:  # noqa: ARG002
        """Nothing: the spans carry the scores."""
        return Taken()


def _headers(variable: str) -> Mapping[str, str]:
    """Headers as the variable lists them: key=value, separated by commas, values percent-encoded."""
    found = {}
    for pair in filter(None, (each.strip() for each in os.environ.get(variable, "").split(","))):
        name, equals, value = pair.partition("=")
        if not (equals and name.strip()):
            raise PushError(f"{variable} is not a list of key=value, separated by commas; correct it")
        found[name.strip().lower()] = unquote(value.strip())
    return found
