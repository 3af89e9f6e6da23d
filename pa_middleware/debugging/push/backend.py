"""What every backend is asked for: to take a request of spans, and to take scores."""

from __future__ import annotations

import gzip
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import httpx
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from pa_middleware.debugging.push.errors import PushError
from pa_middleware.debugging.push.scores import Score
from pa_middleware.debugging.push.server import Server

REFUSALS = frozenset({400, 404, 409, 413, 422})
"""Answers that concern what was sent, and not the backend or its key."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where to push to, as it was given; None is for the backend to find out."""

    endpoint: str | None = None
    project: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    allow_http: bool = False


@dataclass(slots=True)
class Taken:
    """What a backend took of what it was given, and why not the rest."""

    count: int = 0
    failed: int = 0
    reasons: list[str] = field(default_factory=list)

    def refuse(self, count: int, reason: str) -> None:
        """Note that so many were refused."""
        self.failed += count
        self.reasons.append(reason)


class Backend(ABC):
    """One backend under one endpoint. Its making raises PushError where a setting or a key is missing."""

    takes_scores: ClassVar[bool] = True
    """False if scores go along as attributes of the spans only."""
    server: Server
    project: str
    _patient = True
    """Until a span did not come in spite of all waiting: the next ones are not waited for."""

    @abstractmethod
    def __init__(self, target: Target) -> None: ...

    @abstractmethod
    def send(self, request: ExportTraceServiceRequest, spans: int) -> Taken:
        """Send so many spans."""

    @abstractmethod
    def post(self, scores: Sequence[Score]) -> Taken:
        """Post scores, so that those that are there already are replaced."""

    def _early(self, answer: httpx.Response) -> bool:
        """True if the span of a score is not there yet, as spans are taken in the background, and may come."""
        return self._patient and answer.status_code == httpx.codes.NOT_FOUND

    def _send(self, path: str, request: ExportTraceServiceRequest, spans: int, **headers: str) -> Taken:
        """Send spans by OTLP, http/protobuf, with more headers (their underscores are dashes)."""
        answer = self.server.ask(
            "POST",
            path,
            content=gzip.compress(request.SerializeToString(), mtime=0),
            headers={
                "content-type": "application/x-protobuf",
                "content-encoding": "gzip",
                **{name.replace("_", "-"): value for name, value in headers.items()},
            },
            refusals=frozenset({400, 413, 422}),
        )
        if not answer.is_success:
            return Taken(0, spans, [f"spans: {self.server.told(answer)}"])
        told = ExportTraceServiceResponse()
        if answer.headers.get("content-type", "").startswith("application/x-protobuf"):
            try:
                told.ParseFromString(answer.content)
            except DecodeError:
                return Taken(spans)
        partial = told.partial_success
        rejected = min(max(partial.rejected_spans, 0), spans)
        return Taken(
            spans - rejected, rejected, [f"spans: {self.server.clean(partial.error_message)}"] if rejected else []
        )


def setting(name: str, *, of: str, what: str) -> str:
    """An environment variable that has to be set; raises PushError if it is not."""
    if value := os.environ.get(name, "").strip():
        return value
    raise PushError(f"{of} needs {what}: set {name}")
