"""Langfuse: spans into the project that the keys belong to, scores as scores of observations."""

from __future__ import annotations

import base64
import os
from collections.abc import Sequence
from typing import Any

import httpx
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from pa_middleware.debugging.push.backend import REFUSALS, Backend, Taken, Target, setting
from pa_middleware.debugging.push.errors import PushError
from pa_middleware.debugging.push.scores import Score
from pa_middleware.debugging.push.server import Server, within

DEFAULT = "https://cloud.langfuse.com"
ENDPOINTS = ("LANGFUSE_HOST", "LANGFUSE_BASE_URL")
PUBLIC_KEY = "LANGFUSE_PUBLIC_KEY"
SECRET_KEY = "LANGFUSE_SECRET_KEY"  # noqa: S105 - the name of a variable
MOST = 100
"""Scores in a request, which may have 1 MiB."""


class Langfuse(Backend):
    """Langfuse under an endpoint or what LANGFUSE_HOST names, with the pair of keys in the environment."""

    def __init__(self, target: Target) -> None:
        if target.project is not None:
            raise PushError(f"--project {target.project!r} has no effect with langfuse: its keys belong to a project")
        of, what = "langfuse", "the keys of a project, from its settings"
        pair = f"{setting(PUBLIC_KEY, of=of, what=what)}:{setting(SECRET_KEY, of=of, what=what)}"
        named = next((each for name in ENDPOINTS if (each := os.environ.get(name, "").strip())), DEFAULT)
        self._lists = True
        self.project = ""
        self.server = Server(
            "langfuse",
            target.endpoint or named,
            {"authorization": f"Basic {base64.b64encode(pair.encode()).decode()}", **target.headers},
            keys=f"{PUBLIC_KEY} and {SECRET_KEY}, and that they belong to this host",
            allow_http=target.allow_http,
        )

    def send(self, request: ExportTraceServiceRequest, spans: int) -> Taken:
        """Send so many spans. With this version of ingestion they are shown at once, not after minutes."""
        return self._send("/api/public/otel/v1/traces", request, spans, x_langfuse_ingestion_version="4")

    def post(self, scores: Sequence[Score]) -> Taken:
        """Post scores; one with the same id and time is replaced."""
        taken = Taken()
        for begin in range(0, len(scores), MOST):
            part = scores[begin : begin + MOST]
            if self._lists and self._post_list(part, taken):
                continue
            for score in part:
                answer = self._ask(_score(score))
                if answer.is_success:
                    taken.count += 1
                else:
                    taken.refuse(1, f"score of span {score.span_id}: {self.server.told(answer)}")
        return taken

    def _post_list(self, part: Sequence[Score], taken: Taken) -> bool:
        """False if the server takes no lists, which those before SDK 5 do not, or refuses this one."""
        answer = self._ask([_score(score) for score in part])
        if not answer.is_success:
            self._lists = False
            return False
        told = self.server.json(answer)
        number, errors = within(told, "rejected"), within(told, "errors")
        rejected = min(max(number, 0), len(part)) if isinstance(number, int) else 0
        taken.count += len(part) - rejected
        if rejected:
            reasons = dict.fromkeys(
                str(within(each, "message")) for each in (errors if isinstance(errors, list) else ())
            )
            taken.refuse(rejected, f"scores: {self.server.clean('; '.join(reasons))}")
        return True

    def _ask(self, told: Any) -> httpx.Response:
        return self.server.ask("POST", "/api/public/scores", json=told, refusals=REFUSALS)


def _score(score: Score) -> dict[str, Any]:
    told = {
        "id": score.id,
        "traceId": score.trace_id,
        "observationId": score.span_id,
        "name": score.name,
        "value": score.label if score.value is None else score.value,
        "dataType": "CATEGORICAL" if score.value is None else "NUMERIC",
        "comment": score.explanation,
        "timestamp": score.made,
    }
    return {name: value for name, value in told.items() if value != ""}
