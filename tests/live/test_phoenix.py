"""A push to a real Phoenix: runs where PA_PHOENIX names its executable (`make test-push`)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from debugging.push.recorded import FIRST, GUARD, RUN, SCORES, SECOND, SPANS, TOOL, TRACE, VALUE, write
from live.backend import free_port, serving

from pa_middleware.debugging.push import Pushed, push

PHOENIX = os.environ.get("PA_PHOENIX", "")
pytestmark = pytest.mark.skipif(not PHOENIX, reason="PA_PHOENIX names no Phoenix executable; see make test-push")
PROJECT = "taxi"


@pytest.fixture(scope="module")
def phoenix(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    folder = tmp_path_factory.mktemp("phoenix")
    port = free_port()
    variables = {
        "PHOENIX_HOST": "127.0.0.1",
        "PHOENIX_PORT": str(port),
        "PHOENIX_GRPC_PORT": str(free_port()),
        "PHOENIX_WORKING_DIR": str(folder),
        "PHOENIX_TELEMETRY_ENABLED": "false",
    }
    command = [str(Path(PHOENIX).absolute()), "serve"]
    with serving(command, variables, f"http://127.0.0.1:{port}", folder) as client:
        yield client


def pushed(phoenix: httpx.Client, trace: Path, **more: Any) -> Pushed:
    return push(trace, "phoenix", endpoint=str(phoenix.base_url), project=PROJECT, **more)


def spans(phoenix: httpx.Client) -> dict[str, dict[str, Any]]:
    answer = phoenix.get(f"/v1/projects/{PROJECT}/spans", params={"limit": 1000}).raise_for_status()
    found = answer.json()["data"]
    told = {each["context"]["span_id"]: each for each in found}
    assert len(told) == len(found)
    return told


def results(phoenix: httpx.Client) -> dict[tuple[str, str], dict[str, Any]]:
    """What the annotations say, by span and name."""
    params: dict[str, list[str] | int] = {"span_ids": list(spans(phoenix)), "limit": 1000}
    answer = phoenix.get(f"/v1/projects/{PROJECT}/span_annotations", params=params).raise_for_status()
    found = answer.json()["data"]
    assert {each["annotator_kind"] for each in found} == {"CODE"}
    told = {(each["span_id"], each["name"]): each["result"] for each in found}
    assert len(told) == len(found)
    return told


def test_spans_and_scores_are_there_once_however_often_they_are_pushed(phoenix: httpx.Client, tmp_path: Path) -> None:
    trace = write(tmp_path / "trace.jsonl")
    for _ in range(2):
        sent = pushed(phoenix, trace)
        assert (sent.spans, sent.scores, sent.failed) == (SPANS, SCORES, 0)
        found = spans(phoenix)
        parents = {span_id: each["parent_id"] or "" for span_id, each in found.items()}
        assert parents == {RUN: "", GUARD: RUN, FIRST: GUARD, SECOND: GUARD, TOOL: RUN}
        assert {each["context"]["trace_id"] for each in found.values()} == {TRACE}
        assert found[TOOL]["status_code"] == "ERROR"
        assert len(results(phoenix)) == SCORES


def test_a_score_stands_beside_its_span_and_gives_way_to_a_new_one(phoenix: httpx.Client, tmp_path: Path) -> None:
    trace = write(tmp_path / "trace.jsonl")
    pushed(phoenix, trace)
    found = results(phoenix)
    assert found[FIRST, "progress_advantage"] == {"score": VALUE, "label": "fail", "explanation": "why"}
    decision = found[GUARD, "progress_advantage_decision"]
    assert (decision["label"], decision["explanation"]) == ("resample", "below threshold")
    trace.write_text(trace.read_text(encoding="utf-8").replace(str(VALUE), "2.25"), encoding="utf-8")
    pushed(phoenix, trace, spans=False)
    assert len(results(phoenix)) == SCORES
    assert results(phoenix)[FIRST, "progress_advantage"]["score"] == 2.25
