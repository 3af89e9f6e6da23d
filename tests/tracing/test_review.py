"""A human's answer to an escalated step is told as a span of its own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pa_middleware.tracing import Telemetry, read, record
from pa_middleware.tracing import conventions as names
from pa_middleware.tracing.step import StepSpan

if TYPE_CHECKING:
    from tracing.conftest import Backend


def _escalated(backend: Backend, telemetry: Telemetry, **given: Any) -> StepSpan:
    with telemetry.step(index=2, **given) as span:
        backend.decide(span, decision="escalate")
    return span


def _review(telemetry: Telemetry, step: StepSpan | None, **changes: Any) -> None:
    telemetry.review(
        **{
            "index": 2,
            "of": step.traceparent if step is not None else "",
            "anchor": step.anchor if step is not None else None,
            "decisions": ["approve", "edit"],
            "tool_names": ["search", "buy"],
            "tool_call_ids": ["call-1", None],
            "response_id": "response-9",
            "attributes": {names.CONVERSATION_ID: "thread-1", names.LANGGRAPH_NODE: "tools"},
            **changes,
        }
    )


def test_a_review_is_a_finished_span_beside_the_step_it_answers_and_links_to_it(backend: Backend) -> None:
    telemetry = backend.telemetry()
    step = _escalated(backend, telemetry)
    _review(telemetry, step)
    guard, review, run = (backend.span(name) for name in (names.GUARD_SPAN, names.REVIEW_SPAN, names.RUN_SPAN))
    assert review.parent is not None
    assert review.parent.span_id == backend.id(run)
    assert len(backend.traces()) == 1
    (link,) = review.links
    assert link.context.span_id == backend.id(guard)
    assert dict(link.attributes or {}) == {names.LINK_KIND: "reviews"}
    assert dict(review.attributes or {}) == {
        names.SPAN_KIND: "GUARDRAIL",
        names.STEP_INDEX: 2,
        names.REVIEW_DECISIONS: ("approve", "edit"),
        names.REVIEW_OF: f"{backend.id(guard):016x}",
        names.ACTION_TOOL_NAMES: ("search", "buy"),
        names.ACTION_TOOL_CALL_IDS: ("call-1", ""),
        names.RESPONSE_ID: "response-9",
        names.CONVERSATION_ID: "thread-1",
        names.LANGGRAPH_NODE: "tools",
    }


def test_a_live_parent_wins_over_the_anchor(backend: Backend) -> None:
    telemetry = backend.telemetry()
    step = _escalated(backend, telemetry)
    with backend.tracer_provider.get_tracer("app").start_as_current_span("resumed"):
        _review(telemetry, step)
    review, resumed = backend.span(names.REVIEW_SPAN), backend.span("resumed")
    assert review.parent is not None
    assert review.parent.span_id == backend.id(resumed)
    assert review.links[0].context.span_id == backend.id(backend.span(names.GUARD_SPAN))


@pytest.mark.parametrize("of", ["", "garbage"])
def test_without_a_step_to_point_at_a_review_is_told_without_a_link(backend: Backend, of: str) -> None:
    _review(backend.telemetry(), None, of=of, response_id=None, attributes=None)
    review = backend.span(names.REVIEW_SPAN)
    assert (review.parent, review.links) == (None, ())
    assert not {names.REVIEW_OF, names.RESPONSE_ID} & set(review.attributes or {})


def test_each_answer_is_counted_and_no_id_is_in_the_metric(backend: Backend) -> None:
    telemetry = backend.telemetry()
    _review(telemetry, None, decisions=["approve", "reject", "approve"])
    _review(telemetry, None, decisions=["respond"])
    counts = [(dict(point.attributes), point.value) for point in backend.points(names.REVIEWS_METRIC)]
    assert sorted(counts, key=str) == [
        ({names.REVIEW_DECISION: "approve"}, 2),
        ({names.REVIEW_DECISION: "reject"}, 1),
        ({names.REVIEW_DECISION: "respond"}, 1),
    ]


def test_what_a_human_said_is_read_with_the_step(backend: Backend, tmp_path: Path) -> None:
    telemetry = Telemetry()
    with record(tmp_path / "run.jsonl"):
        step = _escalated(backend, telemetry, attributes={names.CONVERSATION_ID: "thread-1"})
        (before,) = read(tmp_path / "run.jsonl")
        _review(telemetry, step)
    (after,) = read(tmp_path / "run.jsonl")
    assert [step.review for step in before.steps] == [()]
    assert [step.review for step in after.steps] == [("approve", "edit")]


def test_without_any_provider_a_review_is_a_no_op() -> None:
    _review(Telemetry(), None)


@pytest.mark.parametrize("broken", [{"decisions": None}, {"tool_names": 3}, {"attributes": 5}, {"of": object()}])
def test_a_review_never_raises(backend: Backend, caplog: pytest.LogCaptureFixture, broken: dict[str, Any]) -> None:
    _review(backend.telemetry(), None, **broken)
    assert sum("Telemetry failed" in line.message for line in caplog.records) == 1
