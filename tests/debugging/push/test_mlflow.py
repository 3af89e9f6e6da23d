"""Spans and assessments to MLflow, held against what its own SDK sends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from debugging.push.loopback import Answer, Asked, Loopback, loopback
from debugging.push.recorded import SCORES, SPANS, TRACE
from debugging.push.sdk import assert_same_place, recorded

from pa_middleware.debugging.push import PushError, push

TIMES = {"create_time", "last_update_time"}
ASSESSMENTS = f"/api/3.0/mlflow/traces/tr-{TRACE}/assessments"


class Store:
    """As much of a tracking server as keeps the assessments of one trace."""

    def __init__(self) -> None:
        self.kept: list[dict[str, Any]] = []
        self.there = True

    def __call__(self, asked: Asked) -> Answer:
        if asked.path.endswith("get-by-name"):
            return Answer(404, {"error_code": "RESOURCE_DOES_NOT_EXIST"})
        if asked.path.endswith("create"):
            return Answer(200, {"experiment_id": "7"})
        if asked.method == "GET":
            told = {"trace": {"trace_info": {"assessments": self.kept}}}
            return Answer(200, told) if self.there else Answer(404, {"message": "no such trace"})
        if asked.method == "POST" and asked.path == ASSESSMENTS:
            self.kept.append({**asked.json["assessment"], "assessment_id": f"a-{len(self.kept)}"})
        return Answer()


@pytest.fixture(autouse=True)
def _token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "ml-secret")


def writes(server: Loopback) -> list[Asked]:
    return [asked for asked in server.asked if asked.path.startswith(ASSESSMENTS)]


def test_requests_are_those_of_the_sdk(trace: Path) -> None:
    number, decision, _, info, by_name, create = recorded("mlflow")
    with loopback(Store()) as server:
        pushed = push(trace, "mlflow", endpoint=server.url, project="taxi")
    sent_by_name, sent_create, sent_spans, sent_info, *sent = server.asked
    assert_same_place(sent_by_name, by_name)
    assert sent_by_name.query == {"experiment_name": "taxi"}
    assert_same_place(sent_create, create)
    assert sent_create.json == create["body"]
    assert (sent_spans.path, sent_spans.headers["x-mlflow-experiment-id"]) == ("/v1/traces", "7")
    assert_same_place(sent_info, info)
    assert_same_place(sent[0], number)
    ours, theirs = sent[0].json["assessment"], number["body"]["assessment"]
    assert {**ours, **{key: theirs[key] for key in TIMES}} == theirs
    assert sent[3].json["assessment"].keys() == decision["body"]["assessment"].keys()
    assert sent[3].json["assessment"]["feedback"] == {"value": "resample"}
    assert (pushed.spans, pushed.scores) == (SPANS, SCORES)


def test_pushing_again_finds_its_assessments_and_writes_nothing(trace: Path) -> None:
    store = Store()
    with loopback(store) as server:
        push(trace, "mlflow", endpoint=server.url)
        pushed = push(trace, "mlflow", endpoint=server.url)
    assert (len(store.kept), len(writes(server)), pushed.scores) == (SCORES, SCORES, SCORES)


def test_an_assessment_that_says_something_else_is_changed_as_the_sdk_does(trace: Path) -> None:
    update = recorded("mlflow")[2]
    store = Store()
    with loopback(store) as server:
        push(trace, "mlflow", endpoint=server.url)
        store.kept[0]["feedback"] = {"value": 3.0}
        push(trace, "mlflow", endpoint=server.url)
    patch = writes(server)[SCORES]
    assert_same_place(patch, update | {"path": f"{ASSESSMENTS}/a-0"})
    assert patch.json.keys() == update["body"].keys()
    assert patch.json["update_mask"] == update["body"]["update_mask"]
    assert patch.json["assessment"].keys() == update["body"]["assessment"].keys()


def test_assessments_of_others_are_left_alone(trace: Path) -> None:
    store = Store()
    store.kept.append({"assessment_id": "a", "assessment_name": "progress_advantage", "source": {"source_id": "me"}})
    with loopback(store) as server:
        push(trace, "mlflow", endpoint=server.url)
    assert {asked.method for asked in writes(server)} == {"POST"}
    assert len(store.kept) == SCORES + 1


def test_scores_of_a_trace_that_is_not_there_are_counted_as_refused(trace: Path) -> None:
    store = Store()
    store.there = False
    with loopback(store) as server:
        pushed = push(trace, "mlflow", endpoint=server.url, spans=False)
    assert (pushed.scores, pushed.failed) == (0, SCORES)
    assert "no such trace" in pushed.reasons[0]


def test_the_variables_name_server_and_experiment(trace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with loopback(Store()) as server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
        monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "12")
        monkeypatch.delenv("MLFLOW_TRACKING_TOKEN")
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "user")
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "word")
        pushed = push(trace, "mlflow", scores=False)
    (asked,) = server.asked
    assert asked.headers["x-mlflow-experiment-id"] == "12"
    assert asked.headers["authorization"] == "Basic dXNlcjp3b3Jk"
    assert pushed.project == "id 12"


def test_a_tracking_uri_that_is_no_server_is_an_error(trace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    with pytest.raises(PushError, match="no http or https URL"):
        push(trace, "mlflow")


def test_an_answer_that_is_no_json_is_an_error(trace: Path) -> None:
    with loopback(lambda _: Answer(200, b"hello")) as server, pytest.raises(PushError, match="check --endpoint"):
        push(trace, "mlflow", endpoint=server.url)
