"""A push to a real MLflow: runs where PA_MLFLOW names its executable (`make test-push`)."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from debugging.push.recorded import FIRST, GUARD, RUN, SCORES, SECOND, SPANS, TOOL, TRACE, VALUE, write
from live.backend import free_port, serving

from pa_middleware.debugging.push import Pushed, push

MLFLOW = os.environ.get("PA_MLFLOW", "")
pytestmark = pytest.mark.skipif(not MLFLOW, reason="PA_MLFLOW names no MLflow executable; see make test-push")
TRACES = "/api/3.0/mlflow/traces"


@pytest.fixture(scope="module")
def mlflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    folder = tmp_path_factory.mktemp("mlflow")
    port = free_port()
    store = ["--backend-store-uri", f"sqlite:///{folder}/store.db", "--default-artifact-root", str(folder)]
    command = [str(Path(MLFLOW).absolute()), "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    variables = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
    with serving([*command, *store], variables, f"http://127.0.0.1:{port}", folder) as client:
        yield client


def pushed(mlflow: httpx.Client, trace: Path, **more: Any) -> Pushed:
    return push(trace, "mlflow", endpoint=str(mlflow.base_url), project="taxi", **more)


def assessments(mlflow: httpx.Client) -> list[dict[str, Any]]:
    answer = mlflow.get(f"{TRACES}/tr-{TRACE}").raise_for_status()
    return list(answer.json()["trace"]["trace_info"]["assessments"])


def parents(mlflow: httpx.Client) -> dict[str, str]:
    """The spans, and the parent of each."""
    answer = mlflow.get(f"{TRACES}/get", params={"trace_id": f"tr-{TRACE}"}).raise_for_status()
    told = answer.json()["trace"]["spans"]
    found = {_hex(each["span_id"]): _hex(each.get("parent_span_id", "")) for each in told}
    assert len(found) == len(told)
    return found


def _hex(spelled: str) -> str:
    return base64.b64decode(spelled).hex()


def test_spans_and_scores_are_there_once_however_often_they_are_pushed(mlflow: httpx.Client, tmp_path: Path) -> None:
    trace = write(tmp_path / "trace.jsonl")
    for _ in range(2):
        sent = pushed(mlflow, trace)
        assert (sent.spans, sent.scores, sent.failed) == (SPANS, SCORES, 0)
        assert len(assessments(mlflow)) == SCORES
        assert parents(mlflow) == {RUN: "", GUARD: RUN, FIRST: GUARD, SECOND: GUARD, TOOL: RUN}


def test_a_score_that_changed_replaces_the_one_before(mlflow: httpx.Client, tmp_path: Path) -> None:
    trace = write(tmp_path / "trace.jsonl")
    pushed(mlflow, trace)
    trace.write_text(trace.read_text(encoding="utf-8").replace(str(VALUE), "2.25"), encoding="utf-8")
    pushed(mlflow, trace)
    found = {(each["span_id"], each["assessment_name"]): each for each in assessments(mlflow) if each["valid"]}
    assert len(found) == SCORES
    score = found[FIRST, "progress_advantage"]
    assert (score["feedback"], score["rationale"]) == ({"value": 2.25}, "why")
    assert score["metadata"] == {"label": "fail"}
