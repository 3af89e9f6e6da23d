"""Spans and annotations to Phoenix."""

from __future__ import annotations

from pathlib import Path

import pytest
from debugging.push.loopback import Answer, Asked, loopback
from debugging.push.recorded import FIRST, GUARD, SCORES, SECOND, SPANS, VALUE, line, span, write

from pa_middleware.debugging.push import push

ANNOTATIONS = "/v1/span_annotations"


def test_spans_go_into_the_project(trace: Path) -> None:
    with loopback() as server:
        push(trace, "phoenix", endpoint=server.url, project="taxi")
    for resource in server.to("/v1/traces")[0].spans.resource_spans:
        told = {each.key: each.value.string_value for each in resource.resource.attributes}
        assert told["openinference.project.name"] == "taxi"


def test_a_project_that_was_recorded_gives_way(tmp_path: Path) -> None:
    told = line(span(FIRST, "s")).replace("service.name", "openinference.project.name")
    with loopback() as server:
        push(write(tmp_path / "t.jsonl", told), "phoenix", endpoint=server.url, project="taxi")
    (resource,) = server.to("/v1/traces")[0].spans.resource_spans
    assert [each.value.string_value for each in resource.resource.attributes] == ["taxi"]


def test_scores_are_annotations_by_code_that_a_repeat_replaces(trace: Path) -> None:
    with loopback() as server:
        pushed = push(trace, "phoenix", endpoint=server.url)
    assert server.paths() == ["/v1/traces", ANNOTATIONS]
    asked = server.asked[1]
    assert (asked.method, asked.query) == ("POST", {"sync": "true"})
    told = asked.json["data"]
    assert [(each["span_id"], each["name"]) for each in told] == [
        (FIRST, "progress_advantage"),
        (SECOND, "progress_advantage"),
        (GUARD, "progress_advantage"),
        (GUARD, "progress_advantage_decision"),
    ]
    assert {(each["annotator_kind"], each["identifier"]) for each in told} == {("CODE", "pa_middleware")}
    assert told[0]["result"] == {"score": VALUE, "label": "fail", "explanation": "why"}
    assert told[3]["result"] == {"label": "resample", "explanation": "below threshold"}
    assert (pushed.spans, pushed.scores) == (SPANS, SCORES)


def test_annotations_wait_until_their_spans_are_there(trace: Path, pauses: list[float]) -> None:
    left = [Answer(), Answer(404), Answer(404), Answer()]
    with loopback(lambda _: left.pop(0)) as server:
        pushed = push(trace, "phoenix", endpoint=server.url)
    assert (pushed.scores, pushed.failed, len(pauses)) == (SCORES, 0, 2)


def test_a_span_that_phoenix_does_not_have_costs_its_own_scores_only(trace: Path) -> None:
    def answer(asked: Asked) -> Answer:
        missing = asked.path == ANNOTATIONS and FIRST.encode() in asked.body
        return Answer(404, f"no span {FIRST}".encode(), {"content-type": "text/plain"}) if missing else Answer()

    with loopback(answer) as server:
        pushed = push(trace, "phoenix", endpoint=server.url, spans=False)
    assert "/v1/traces" not in server.paths()
    assert (pushed.scores, pushed.failed) == (SCORES - 1, 1)
    assert "404" in pushed.reasons[0]


def test_endpoint_project_and_key_come_from_its_variables(trace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with loopback() as server:
        monkeypatch.setenv("PHOENIX_COLLECTOR_ENDPOINT", server.url)
        monkeypatch.setenv("PHOENIX_PROJECT_NAME", "named")
        monkeypatch.setenv("PHOENIX_API_KEY", "key")
        pushed = push(trace, "phoenix")
    assert pushed.project == "named"
    assert {asked.headers["authorization"] for asked in server.asked} == {"Bearer key"}
