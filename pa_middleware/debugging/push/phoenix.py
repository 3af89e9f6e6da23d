"""Arize Phoenix: spans into a project, scores as annotations of spans."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import httpx
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from pa_middleware.debugging.push.backend import REFUSALS, Backend, Taken, Target
from pa_middleware.debugging.push.scores import Score
from pa_middleware.debugging.push.server import Server
from pa_middleware.tracing import conventions as names

DEFAULT = "http://127.0.0.1:6006"
ENDPOINT = "PHOENIX_COLLECTOR_ENDPOINT"
PROJECT = "PHOENIX_PROJECT_NAME"
KEY = "PHOENIX_API_KEY"
PROJECT_ATTRIBUTE = "openinference.project.name"
MOST = 100
"""Annotations in a request."""


class Phoenix(Backend):
    """Phoenix under an endpoint, a project of it, and a key if it wants one, each by its variable if not given.

    A trace that Phoenix has stays in the project where it is.
    """

    def __init__(self, target: Target) -> None:
        self.project = target.project or os.environ.get(PROJECT, "").strip() or names.SCOPE
        key = os.environ.get(KEY, "").strip()
        self.server = Server(
            "phoenix",
            target.endpoint or os.environ.get(ENDPOINT, "").strip() or DEFAULT,
            {**({"authorization": f"Bearer {key}"} if key else {}), **target.headers},
            keys=KEY,
            allow_http=target.allow_http,
        )

    def send(self, request: ExportTraceServiceRequest, spans: int) -> Taken:
        """Send so many spans. The project is an attribute of their resource, in place of one that is there."""
        for each in request.resource_spans:
            kept = [pair for pair in each.resource.attributes if pair.key != PROJECT_ATTRIBUTE]
            del each.resource.attributes[:]
            each.resource.attributes.extend(kept)
            each.resource.attributes.add(key=PROJECT_ATTRIBUTE).value.string_value = self.project
        return self._send("/v1/traces", request, spans)

    def post(self, scores: Sequence[Score]) -> Taken:
        """Post scores as annotations; one with the same identifier is replaced."""
        taken = Taken()
        for begin in range(0, len(scores), MOST):
            part = scores[begin : begin + MOST]
            answer = self._annotate(part, self._early)
            if answer.is_success:
                taken.count += len(part)
                continue
            self._patient &= answer.status_code != httpx.codes.NOT_FOUND
            for score in part:  # one that is refused refuses all, so they go one by one
                answer = self._annotate([score], lambda _: False)
                if answer.is_success:
                    taken.count += 1
                else:
                    taken.refuse(1, f"score of span {score.span_id}: {self.server.told(answer)}")
        return taken

    def _annotate(self, scores: Sequence[Score], early: Callable[[httpx.Response], bool]) -> httpx.Response:
        told = {"data": [_annotation(score) for score in scores]}
        return self.server.ask(
            "POST", "/v1/span_annotations", params={"sync": "true"}, json=told, refusals=REFUSALS, early=early
        )


def _annotation(score: Score) -> dict[str, Any]:
    result = {"score": score.value, "label": score.label or None, "explanation": score.explanation or None}
    return {
        "span_id": score.span_id,
        "name": score.name,
        "annotator_kind": "CODE",
        "identifier": names.SCOPE,
        "result": {name: told for name, told in result.items() if told is not None},
    }
