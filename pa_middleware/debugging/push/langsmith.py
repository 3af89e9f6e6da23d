"""LangSmith: spans into a project, scores as feedback of the runs that LangSmith makes of spans."""

from __future__ import annotations

import os
import uuid
from collections.abc import Sequence
from typing import Any

import httpx
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from pa_middleware.debugging.push.backend import REFUSALS, Backend, Taken, Target, setting
from pa_middleware.debugging.push.errors import PushError
from pa_middleware.debugging.push.scores import Score
from pa_middleware.debugging.push.server import Server, within
from pa_middleware.tracing import conventions as names

DEFAULT = "https://api.smith.langchain.com"
ENDPOINT = "LANGSMITH_ENDPOINT"
PROJECT = "LANGSMITH_PROJECT"
KEY = "LANGSMITH_API_KEY"
DECIMALS = 4
"""Of a score: LangSmith stores no more."""


class LangSmith(Backend):
    """LangSmith under an endpoint, and a project, each by its variable if not given; with the key in the environment.

    The project is made by the first spans.
    """

    def __init__(self, target: Target) -> None:
        self.project = target.project or os.environ.get(PROJECT, "").strip() or names.SCOPE
        self._session: str | None = None
        self.server = Server(
            "langsmith",
            target.endpoint or os.environ.get(ENDPOINT, "").strip() or DEFAULT,
            {"x-api-key": setting(KEY, of="langsmith", what="an API key"), **target.headers},
            keys=f"{KEY}, and that it belongs to this region and workspace",
            allow_http=target.allow_http,
        )

    def send(self, request: ExportTraceServiceRequest, spans: int) -> Taken:
        """Send so many spans."""
        return self._send("/otel/v1/traces", request, spans, langsmith_project=self.project)

    def post(self, scores: Sequence[Score]) -> Taken:
        """Post scores as feedback; one with the same id is replaced."""
        taken = Taken()
        for score in scores:
            answer = self.server.ask(
                "POST", "/feedback", json=self._feedback(score), refusals=REFUSALS, early=self._early
            )
            if answer.status_code == httpx.codes.CONFLICT:
                answer = self.server.ask("PATCH", f"/feedback/{score.id}", json=_told(score), refusals=REFUSALS)
            if answer.is_success:
                taken.count += 1
            else:
                self._patient &= answer.status_code != httpx.codes.NOT_FOUND
                taken.refuse(1, f"score of span {score.span_id}: {self.server.told(answer)}")
        return taken

    def _feedback(self, score: Score) -> dict[str, Any]:
        return {
            "id": score.id,
            "run_id": run_id(score.span_id),
            "key": score.name,
            **_told(score),
            "feedback_source": {"type": "api", "metadata": {}},
            "session_id": self._session_id(),
            "start_time": score.started,
            "created_at": score.made,
            "modified_at": score.made,
            "extend_trace_retention": True,
        }

    def _session_id(self) -> str:
        """The id of the project, without which LangSmith may not find a run."""
        if self._session is None:
            params = {"limit": "1", "name": self.project, "include_stats": "false"}
            answer = self.server.ask("GET", "/sessions", params=params, early=self._not_there)
            self._session = _session(self.server.json(answer))
            if self._session is None:
                raise PushError(
                    f"langsmith has no project {self.project!r} yet, where spans are taken in the background. Push "
                    "again in a minute, with --no-spans if they were pushed: nothing is doubled"
                )
        return self._session

    def _not_there(self, answer: httpx.Response) -> bool:
        return answer.is_success and _session(self.server.json(answer)) is None


def run_id(span_id: str) -> str:
    """The id of the run that LangSmith makes of a span: the span's own after eight zero bytes.

    That rule is fixed by their ingestion, and published as `langsmith_run_id_from_otel_span_id` of their SDK.
    """
    return str(uuid.UUID(bytes=bytes.fromhex(span_id).rjust(16, b"\0")))


def _told(score: Score) -> dict[str, Any]:
    told = {
        "score": None if score.value is None else round(score.value, DECIMALS),
        "value": score.label or None,
        "comment": score.explanation or None,
    }
    return {name: value for name, value in told.items() if value is not None}


def _session(found: Any) -> str | None:
    """The id of the first project that was found, None if there is none."""
    told = within(found[0], "id") if isinstance(found, list) and found else None
    return None if told is None else str(told)
