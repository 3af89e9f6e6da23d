from __future__ import annotations

import asyncio
import json
import math
import re
from typing import TYPE_CHECKING

import pytest
from langchain_core.messages import AIMessage
from langgraph.errors import GraphBubbleUp
from opentelemetry import trace
from opentelemetry._logs import SeverityNumber
from opentelemetry.trace import StatusCode

from pa_middleware.scoring.scorer import CallScore
from pa_middleware.tracing import Telemetry
from pa_middleware.tracing import conventions as names

if TYPE_CHECKING:
    from tracing.conftest import Backend


def test_a_step_is_one_guard_span_with_one_score_span_for_each_candidate(backend: Backend) -> None:
    with backend.telemetry(policy_model="rl", reference_model="base").step(index=3, attempt=2) as span:
        span.candidate(0, backend.score(-2.0), label="fail", threshold=-0.5)
        span.candidate(1, backend.score(1.0), label="pass", threshold=-0.5)
        backend.decide(span, 1.0, decision="pass", reason="above_threshold", candidate_count=2, selected_index=1)
    guard = backend.span(names.GUARD_SPAN)
    scores = backend.spans(names.SCORE_SPAN)
    assert [score.parent and score.parent.span_id for score in scores] == [backend.id(guard)] * 2
    told = dict(guard.attributes or {})
    assert told[names.STEP_INDEX] == 3
    assert told[names.STEP_ATTEMPT] == 2
    assert told[names.SPAN_KIND] == "GUARDRAIL"
    assert told[names.DECISION] == "pass"
    assert told[names.SCORE] == told[names.EVALUATION_SCORE] == 1.0
    assert told[names.EVALUATION_LABEL] == "pass"
    assert told[names.POLICY_MODEL] == "rl"
    assert told[names.ACTION_TOOL_NAMES] == ("search",)
    assert guard.status.status_code is StatusCode.UNSET


def test_a_candidate_links_to_the_one_before_it_and_repeats_the_link_as_an_attribute(backend: Backend) -> None:
    with backend.telemetry().step(index=0) as span:
        for index in range(3):
            span.candidate(index, backend.score(), label="fail")
    first, second, third = backend.spans(names.SCORE_SPAN)
    assert not first.links
    for earlier, later in ((first, second), (second, third)):
        (link,) = later.links
        assert link.context.span_id == backend.id(earlier)
        assert dict(link.attributes or {}) == {names.LINK_KIND: "resampled_from"}
        assert (later.attributes or {})[names.CANDIDATE_RESAMPLED_FROM] == f"{backend.id(earlier):016x}"


def test_the_event_of_a_candidate_carries_its_score_spans_ids(backend: Backend) -> None:
    with backend.telemetry().step(index=4) as span:
        span.candidate(0, backend.score(-1.5), label="fail", threshold=-0.5, response_id="response-9")
    score, (event,) = backend.span(names.SCORE_SPAN), backend.events()
    record = event.log_record
    assert record.event_name == "gen_ai.evaluation.result"
    assert (record.trace_id, record.span_id) == (score.context.trace_id, score.context.span_id)
    assert record.severity_number is SeverityNumber.INFO
    told = dict(record.attributes or {})
    assert told[names.EVALUATION_SCORE] == -1.5
    assert told[names.EVALUATION_LABEL] == "fail"
    assert told[names.RESPONSE_ID] == "response-9"
    assert (told[names.STEP_INDEX], told[names.CANDIDATE_INDEX]) == (4, 0)


def test_the_guard_span_is_current_inside_the_step_and_only_there(backend: Backend) -> None:
    before = trace.get_current_span()
    with backend.telemetry().step(index=0) as span:
        context = trace.get_current_span().get_span_context()
        assert span.traceparent == f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
    assert trace.get_current_span() is before


def test_a_score_span_starts_when_scoring_started(backend: Backend) -> None:
    with backend.telemetry().step(index=0) as span:
        span.candidate(0, backend.score(), label="pass", started_ns=1_000)
    assert backend.span(names.SCORE_SPAN).start_time == 1_000


@pytest.mark.parametrize(
    "error", [GraphBubbleUp(), ValueError("broken"), KeyboardInterrupt(), asyncio.CancelledError()]
)
def test_an_exception_through_the_step_propagates_and_is_no_error_of_the_span(
    backend: Backend, error: BaseException
) -> None:
    with pytest.raises(type(error)) as caught, backend.telemetry().step(index=0):
        raise error
    guard = backend.span(names.GUARD_SPAN)
    assert caught.value is error
    assert guard.status.status_code is StatusCode.UNSET
    assert not guard.events
    assert names.ERROR_TYPE not in (guard.attributes or {})


def test_only_a_given_error_makes_a_span_an_error(backend: Backend) -> None:
    error = TimeoutError("slow " + backend.canary)
    with backend.telemetry().step(index=0) as span:
        span.candidate(0, None, label="", error=error)
        backend.decide(span, None, decision="abstain", reason="scorer_error", error=error)
    for name in (names.GUARD_SPAN, names.SCORE_SPAN):
        assert backend.span(name).status.status_code is StatusCode.ERROR
        assert backend.attributes(name)[names.ERROR_TYPE] == "TimeoutError"
        assert names.EVALUATION_SCORE not in backend.attributes(name)
    (event,) = backend.events()
    assert event.log_record.severity_number is SeverityNumber.WARN
    assert (event.log_record.attributes or {})[names.ERROR_TYPE] == "TimeoutError"
    assert backend.canary not in backend.everything()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_finite_is_never_exported(backend: Backend, bad: float) -> None:
    score = backend.score(bad, (bad, 1.0), CallScore("a", "search", bad, 2))
    with backend.telemetry(token_log_ratios=True).step(index=0) as span:
        span.candidate(0, score, label="fail", threshold=bad)
        backend.decide(span, bad, threshold=bad)
    for name in (names.GUARD_SPAN, names.SCORE_SPAN):
        told = backend.attributes(name)
        assert told[names.ERROR_TYPE] == names.ERROR_NON_FINITE
        assert names.EVALUATION_SCORE not in told
        assert names.THRESHOLD not in told
    assert not re.search(r"\bnan\b|\binf(inity)?\b", backend.everything(), re.IGNORECASE)
    assert not backend.points(names.MAGNITUDE_METRIC)


def test_negative_scores_survive_in_the_metrics(backend: Backend) -> None:
    telemetry = backend.telemetry()
    for score in (-3.0, -1.0, 2.0):
        with telemetry.step(index=0) as span:
            backend.decide(span, score)
    sums = {
        point.attributes[names.SCORE_SIGN]: (point.count, point.sum) for point in backend.points(names.MAGNITUDE_METRIC)
    }
    assert sums == {"negative": (2, 4.0), "nonnegative": (1, 2.0)}


def test_metrics_count_decisions_candidates_and_time_with_few_attributes(backend: Backend) -> None:
    with backend.telemetry().step(index=0, attributes={names.CONVERSATION_ID: "thread-1"}) as span:
        backend.decide(span, candidate_count=3)
    (count,) = backend.points(names.DECISIONS_METRIC)
    assert count.value == 1
    assert dict(count.attributes) == {
        names.DECISION: "flag",
        names.ACTION_KIND: "tool_call",
        names.SCORER_NAME: "scripted",
    }
    assert backend.points(names.CANDIDATES_METRIC)[0].sum == 3
    assert 0 < backend.points(names.DURATION_METRIC)[0].sum < 60


def test_content_is_exported_nowhere_unless_it_is_switched_on(backend: Backend) -> None:
    with backend.telemetry(token_log_ratios=True).step(index=0) as span:
        span.candidate(0, backend.score(), label="fail", message=backend.message())
        backend.decide(span)
    assert backend.canary not in backend.everything()


@pytest.mark.parametrize(
    ("value", "on"),
    [("SPAN_ONLY", True), ("span_and_event", True), ("EVENT_ONLY", False), ("NO_CONTENT", False), ("true", False)],
)
def test_the_environment_switches_content_on_by_the_conventions_values(
    backend: Backend, monkeypatch: pytest.MonkeyPatch, value: str, on: bool
) -> None:
    monkeypatch.setenv("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", value)
    assert Telemetry().content is on
    assert Telemetry(content=not on).content is not on


def test_content_that_is_switched_on_is_text_and_arguments_on_the_score_span(backend: Backend) -> None:
    with backend.telemetry(content=True).step(index=0) as span:
        span.candidate(0, backend.score(), label="fail", message=backend.message())
        backend.decide(span)
    told = backend.attributes(names.SCORE_SPAN)
    assert told[names.ACTION_TEXT] == f"text {backend.canary}"
    arguments = told[names.ACTION_TOOL_ARGUMENTS]
    assert isinstance(arguments, tuple)
    assert json.loads(arguments[0]) == {"query": f"arguments {backend.canary}"}
    assert backend.canary not in json.dumps([event.to_json() for event in backend.events()])


def test_text_that_no_exporter_could_encode_is_made_encodable(backend: Backend) -> None:
    with backend.telemetry(content=True).step(index=0) as span:
        span.candidate(0, backend.score(), label="pass", message=AIMessage("half \ud83d"))
        backend.decide(span, tool_names=["na\udc00me"])
    assert backend.attributes(names.SCORE_SPAN)[names.ACTION_TEXT] == "half ?"
    assert backend.attributes(names.GUARD_SPAN)[names.ACTION_TOOL_NAMES] == ("na?me",)


def test_token_log_ratios_are_a_summary_unless_asked_for(backend: Backend) -> None:
    with backend.telemetry().step(index=0) as span:
        span.candidate(0, backend.score(ratios=(0.5, -2.0, 0.25)), label="fail")
    told = backend.attributes(names.SCORE_SPAN)
    assert (told[names.TOKEN_COUNT], told[names.TOKEN_LOG_RATIO_ARGMIN]) == (3, 1)
    assert told[names.TOKEN_LOG_RATIO_MIN] == -2.0
    assert told[names.TOKEN_LOG_RATIO_MEAN] == pytest.approx(-1.25 / 3)
    assert names.TOKEN_LOG_RATIOS not in told


@pytest.mark.parametrize(("count", "truncated"), [(1024, False), (1025, True)])
def test_token_log_ratios_are_rounded_and_capped(backend: Backend, count: int, truncated: bool) -> None:
    with backend.telemetry(token_log_ratios=True).step(index=0) as span:
        span.candidate(0, backend.score(ratios=(1 / 3,) * count), label="pass")
    told = backend.attributes(names.SCORE_SPAN)
    assert told[names.TOKEN_LOG_RATIOS] == (0.3333,) * 1024
    assert told[names.TOKEN_TRUNCATED] is truncated


def test_no_span_comes_near_the_limit_of_128_attributes(backend: Backend) -> None:
    call = CallScore("call-1", "search", -1.0, 2)
    with backend.telemetry(content=True, token_log_ratios=True).step(
        index=0, attributes={f"mine.{place}": place for place in range(500)}
    ) as span:
        span.candidate(0, backend.score(-1.0, (1.0,), call), label="fail", message=backend.message(), response_id="r")
        backend.decide(span, response_id="r", tool_names=["t"] * 500, error=ValueError())
    for each in backend.spans():
        assert len(each.attributes or {}) < 128
        assert each.dropped_attributes == 0
    assert names.SPAN_KIND in backend.attributes(names.GUARD_SPAN)


def test_each_tool_call_keeps_its_own_score(backend: Backend) -> None:
    calls = (CallScore("a", "search", -1.0, 2), CallScore(None, "buy", 0.5, 3))
    with backend.telemetry().step(index=0) as span:
        span.candidate(0, backend.score(-1.0, (1.0,), *calls), label="fail")
    told = backend.attributes(names.SCORE_SPAN)
    assert told[names.CALL_IDS] == ("a", "")
    assert told[names.CALL_NAMES] == ("search", "buy")
    assert told[names.CALL_SCORES] == (-1.0, 0.5)


def test_without_any_provider_a_step_is_a_no_op(backend: Backend) -> None:
    with Telemetry().step(index=0) as span:
        span.candidate(0, backend.score(), label="fail", message=backend.message())
        backend.decide(span)
    assert (span.traceparent, span.anchor) == ("", "")
