"""MLflow: spans into an experiment, scores as feedback assessments of spans."""

from __future__ import annotations

import base64
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import httpx
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from pa_middleware.debugging.push.backend import REFUSALS, Backend, Taken, Target
from pa_middleware.debugging.push.errors import PushError
from pa_middleware.debugging.push.scores import Score
from pa_middleware.debugging.push.server import Server, within
from pa_middleware.tracing import conventions as names

DEFAULT = "http://127.0.0.1:5000"
ENDPOINT = "MLFLOW_TRACKING_URI"
EXPERIMENT_ID = "MLFLOW_EXPERIMENT_ID"
EXPERIMENT_NAME = "MLFLOW_EXPERIMENT_NAME"
TOKEN = "MLFLOW_TRACKING_TOKEN"  # noqa: S105 - the name of a variable
USER = "MLFLOW_TRACKING_USERNAME"
PASSWORD = "MLFLOW_TRACKING_PASSWORD"  # noqa: S105 - the name of a variable
TRACES = "/api/3.0/mlflow/traces"
EXPERIMENTS = "/api/2.0/mlflow/experiments"
LABEL = "label"
"""Key of the metadata that holds a score's label."""


class MLflow(Backend):
    """A tracking server, and an experiment by name, each by its variable if not given.

    The experiment is made if it is not there.
    """

    def __init__(self, target: Target) -> None:
        named = target.project or os.environ.get(EXPERIMENT_NAME, "").strip()
        self._experiment = "" if named else os.environ.get(EXPERIMENT_ID, "").strip()
        self.project = named or (f"id {self._experiment}" if self._experiment else names.SCOPE)
        self.server = Server(
            "mlflow",
            target.endpoint or os.environ.get(ENDPOINT, "").strip() or DEFAULT,
            {**_authorization(), **target.headers},
            keys=f"{TOKEN}, or {USER} and {PASSWORD}",
            allow_http=target.allow_http,
        )

    def send(self, request: ExportTraceServiceRequest, spans: int) -> Taken:
        """Send so many spans."""
        return self._send("/v1/traces", request, spans, x_mlflow_experiment_id=self._experiment_id())

    def post(self, scores: Sequence[Score]) -> Taken:
        """Post scores as feedback. MLflow gives ids of its own, so what a trace has is looked up first."""
        taken = Taken()
        of_trace: dict[str, list[Score]] = defaultdict(list)
        for score in scores:
            of_trace[score.trace_id].append(score)
        for trace_id, found in of_trace.items():
            path = f"{TRACES}/tr-{trace_id}"
            answer = self.server.ask("GET", path, refusals=REFUSALS)
            if not answer.is_success:
                taken.refuse(len(found), f"scores of trace {trace_id}: {self.server.told(answer)}")
                continue
            there = _assessments(self.server.json(answer))
            for score in found:
                self._put(f"{path}/assessments", score, there.get((score.span_id, score.name)), taken)
        return taken

    def _put(self, path: str, score: Score, there: Mapping[str, Any] | None, taken: Taken) -> None:
        """Make an assessment, or change the one that is there if it says something else."""
        told = _told(score)
        if there is not None and all(there.get(name) == value for name, value in told.items()):
            taken.count += 1
            return
        place = {"assessment_name": score.name, "trace_id": f"tr-{score.trace_id}"}
        if there is None:
            made = {"create_time": score.made, "last_update_time": score.made, "valid": True}
            source = {"source_type": "CODE", "source_id": names.SCOPE}
            body: dict[str, Any] = {"assessment": {**place, "span_id": score.span_id, "source": source, **made, **told}}
            answer = self.server.ask("POST", path, json=body, refusals=REFUSALS)
        else:
            place["assessment_id"] = there["assessment_id"]
            body = {"assessment": {**place, **told}, "update_mask": ",".join(("assessmentName", *told))}
            answer = self.server.ask("PATCH", f"{path}/{there['assessment_id']}", json=body, refusals=REFUSALS)
        if answer.is_success:
            taken.count += 1
        else:
            taken.refuse(1, f"score of span {score.span_id}: {self.server.told(answer)}")

    def _experiment_id(self) -> str:
        if not self._experiment:
            params = {"experiment_name": self.project}
            answer = self.server.ask(
                "GET", f"{EXPERIMENTS}/get-by-name", params=params, refusals=frozenset({httpx.codes.NOT_FOUND})
            )
            if answer.status_code == httpx.codes.NOT_FOUND:
                answer = self.server.ask("POST", f"{EXPERIMENTS}/create", json={"name": self.project})
            told = self.server.json(answer)
            found = within(told, "experiment_id") or within(told, "experiment", "experiment_id")
            if not found:
                raise PushError(f"mlflow names no id for experiment {self.project!r}; set {EXPERIMENT_ID}")
            self._experiment = str(found)
        return self._experiment


def _authorization() -> dict[str, str]:
    token, user, password = (os.environ.get(name, "").strip() for name in (TOKEN, USER, PASSWORD))
    if token:
        return {"authorization": f"Bearer {token}"}
    if user and password:
        return {"authorization": f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"}
    return {}


def _told(score: Score) -> dict[str, Any]:
    told: dict[str, Any] = {"feedback": {"value": score.label if score.value is None else score.value}}
    if score.explanation:
        told["rationale"] = score.explanation
    if score.value is not None and score.label:
        told["metadata"] = {LABEL: score.label}
    return told


def _assessments(told: Any) -> dict[tuple[str, str], dict[str, Any]]:
    """Those of a trace that came from here, by span and name."""
    found = {}
    for each in within(told, "trace", "trace_info", "assessments") or ():
        if within(each, "source", "source_id") == names.SCOPE and each.get("valid", True) and "assessment_id" in each:
            found[each.get("span_id", ""), each.get("assessment_name", "")] = each
    return found
