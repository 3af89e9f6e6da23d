"""Spans and scores to Langfuse, held against what its own SDKs send."""

from __future__ import annotations

from pathlib import Path

import pytest
from debugging.push.loopback import Answer, Asked, loopback
from debugging.push.recorded import SCORES, SPANS
from debugging.push.sdk import assert_same_place, recorded

from pa_middleware.debugging.push import PushError, push

OURS = {"id", "observationId", "comment", "timestamp"}


@pytest.fixture(autouse=True)
def _keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LANGFUSE_PUBLIC_KEY", "pk-lf-public")
    monkeypatch.setenv("LANGFUSE_SECRET_KEY", "sk-lf-secret")


def test_requests_are_those_of_the_sdk(trace: Path) -> None:
    scores, spans = recorded("langfuse")
    with loopback() as server:
        pushed = push(trace, "langfuse", endpoint=server.url)
    sent_spans, sent_scores = server.asked
    assert_same_place(sent_spans, spans)
    assert_same_place(sent_scores, scores)
    number, decision = scores["body"]
    assert sent_scores.json[0] == {**number, "id": sent_scores.json[0]["id"]}
    ours = sent_scores.json[3]
    assert {**decision, **{key: ours[key] for key in OURS}} == ours
    assert ours.keys() == decision.keys()
    assert (pushed.spans, pushed.scores) == (SPANS, SCORES)


def test_scores_go_one_by_one_to_a_server_of_before_as_its_sdk_sends_them(trace: Path) -> None:
    def answer(asked: Asked) -> Answer:
        lists = asked.path == "/api/public/scores" and isinstance(asked.json, list)
        return Answer(400, {"message": "Invalid request data"}) if lists else Answer()

    with loopback(answer) as server:
        pushed = push(trace, "langfuse", endpoint=server.url)
    number, decision, _ = recorded("langfuse_single")
    refused, *single = server.to("/api/public/scores")
    assert isinstance(refused.json, list)
    assert_same_place(single[0], number)
    # The id and the time together are what a repeat replaces; that SDK knows no time.
    own = {"id": single[0].json["id"], "timestamp": single[0].json["timestamp"]}
    assert single[0].json == {**number["body"], **own}
    assert single[3].json.keys() == {*decision["body"], "timestamp"}
    assert (len(single), pushed.scores, pushed.failed) == (SCORES, SCORES, 0)


def test_pushing_again_sends_the_same_ids_and_times(trace: Path) -> None:
    with loopback() as server:
        push(trace, "langfuse", endpoint=server.url)
        push(trace, "langfuse", endpoint=server.url)
    first, second = server.to("/api/public/scores")
    assert first.json == second.json


def test_scores_that_are_rejected_are_counted_with_the_reason(trace: Path) -> None:
    told = {"accepted": 3, "rejected": 1, "errors": [{"message": "name is too odd"}]}
    with loopback(lambda asked: Answer(207, told)) as server:
        pushed = push(trace, "langfuse", endpoint=server.url)
    assert (pushed.scores, pushed.failed) == (SCORES - 1, 1)
    assert "name is too odd" in pushed.reasons[0]


@pytest.mark.parametrize(("rejected", "failed"), [(-5, 0), (10**6, SCORES), ("many", 0)])
def test_no_more_is_counted_as_rejected_than_was_sent(trace: Path, rejected: object, failed: int) -> None:
    with loopback(lambda _: Answer(207, {"rejected": rejected, "errors": 5})) as server:
        pushed = push(trace, "langfuse", endpoint=server.url)
    assert (pushed.scores, pushed.failed) == (SCORES - failed, failed)


@pytest.mark.parametrize("missing", ["LANGFUSE_PUBLIC_KEY", "LANGFUSE_SECRET_KEY"])
def test_a_missing_key_is_named(trace: Path, monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    monkeypatch.delenv(missing)
    with pytest.raises(PushError, match=f"set {missing}"):
        push(trace, "langfuse")


def test_the_host_comes_from_its_variable(trace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with loopback() as server:
        monkeypatch.setenv("LANGFUSE_HOST", server.url)
        assert push(trace, "langfuse").endpoint == server.url


def test_a_project_is_refused_as_the_keys_name_it(trace: Path) -> None:
    with pytest.raises(PushError, match="keys belong to a project"):
        push(trace, "langfuse", project="taxi")
