"""Spans and feedback to LangSmith, held against what its own SDK sends."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from debugging.push.loopback import Answer, Asked, loopback
from debugging.push.recorded import FIRST, GUARD, SCORES, SPANS
from debugging.push.sdk import assert_same_place, recorded
from langsmith.integrations.otel import langsmith_run_id_from_otel_span_id

from pa_middleware.debugging.push import PushError, push
from pa_middleware.debugging.push.langsmith import run_id
from pa_middleware.debugging.push.server import TRIES

PROJECT = "22222222-2222-4222-8222-222222222222"
OURS = {"id", "run_id", "created_at", "modified_at", "start_time"}


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LANGSMITH_API_KEY", "lsv2-secret")


def answering(feedback: Callable[[Asked], Answer] = lambda _: Answer()) -> Callable[[Asked], Answer]:
    def answer(asked: Asked) -> Answer:
        return Answer(200, [{"id": PROJECT}]) if asked.path == "/sessions" else feedback(asked)

    return answer


def test_requests_are_those_of_the_sdk(trace: Path) -> None:
    project, number, decision, _, spans = recorded("langsmith")
    with loopback(answering()) as server:
        pushed = push(trace, "langsmith", endpoint=server.url, project="taxi")
    sent_spans, sent_project, *sent = server.asked
    assert_same_place(sent_spans, spans)
    assert_same_place(sent_project, project)
    assert sent_project.query == {"limit": "1", "name": "taxi", "include_stats": "false"}
    for ours, theirs in ((sent[0], number), (sent[3], decision)):
        assert_same_place(ours, theirs)
        assert ours.json.keys() == theirs["body"].keys()
    told = {key: value for key, value in sent[0].json.items() if key not in OURS}
    assert told == {key: value for key, value in number["body"].items() if key not in OURS}
    assert sent[0].json["run_id"] == number["body"]["run_id"]
    assert (sent[3].json["key"], sent[3].json["value"]) == ("progress_advantage_decision", "resample")
    assert (pushed.spans, pushed.scores) == (SPANS, SCORES)


@pytest.mark.parametrize("span_id", [FIRST, GUARD, "00000000000000aa"])
def test_run_ids_are_those_that_langsmith_makes_of_spans(span_id: str) -> None:
    assert run_id(span_id) == str(langsmith_run_id_from_otel_span_id(bytes.fromhex(span_id)))


def test_pushing_again_sends_the_same_feedback(trace: Path) -> None:
    with loopback(answering()) as server:
        push(trace, "langsmith", endpoint=server.url)
        push(trace, "langsmith", endpoint=server.url)
    sent = [asked.json for asked in server.to("/feedback")]
    assert sent[:SCORES] == sent[SCORES:]


def test_feedback_that_is_there_is_updated_as_the_sdk_does(trace: Path) -> None:
    *_, update, _ = recorded("langsmith")
    with loopback(answering(lambda asked: Answer(409 if asked.path == "/feedback" else 200))) as server:
        pushed = push(trace, "langsmith", endpoint=server.url)
    patches = [asked for asked in server.asked if asked.method == "PATCH"]
    posted = server.to("/feedback")[0].json
    assert_same_place(patches[0], update | {"path": f"/feedback/{posted['id']}"})
    assert patches[0].json == update["body"]
    assert (len(patches), pushed.scores, pushed.failed) == (SCORES, SCORES, 0)


def test_it_waits_until_project_and_runs_are_there(trace: Path, pauses: list[float]) -> None:
    left = [Answer(), Answer(200, []), Answer(200, [{"id": PROJECT}]), Answer(404), *[Answer()] * SCORES]
    with loopback(lambda _: left.pop(0)) as server:
        pushed = push(trace, "langsmith", endpoint=server.url)
    assert (pushed.scores, pushed.failed, len(pauses)) == (SCORES, 0, 2)


def test_a_project_that_does_not_come_is_an_error_that_says_what_to_do(trace: Path) -> None:
    none = Answer(200, [])
    with loopback(lambda _: none) as server, pytest.raises(PushError, match=r"no project 'taxi' yet.*--no-spans"):
        push(trace, "langsmith", endpoint=server.url, project="taxi")


def test_runs_that_do_not_come_are_waited_for_once(trace: Path, pauses: list[float]) -> None:
    with loopback(answering(lambda _: Answer(404))) as server:
        pushed = push(trace, "langsmith", endpoint=server.url, spans=False)
    assert (pushed.scores, pushed.failed) == (0, SCORES)
    assert len(pauses) == TRIES - 1


def test_a_missing_key_is_named(trace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LANGSMITH_API_KEY")
    with pytest.raises(PushError, match="set LANGSMITH_API_KEY"):
        push(trace, "langsmith")


def test_endpoint_and_project_come_from_its_variables(trace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with loopback(answering()) as server:
        monkeypatch.setenv("LANGSMITH_ENDPOINT", server.url)
        monkeypatch.setenv("LANGSMITH_PROJECT", "named")
        push(trace, "langsmith", scores=False)
    assert server.asked[0].headers["langsmith-project"] == "named"
