from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from pa_middleware.tracing import conventions as names
from pa_middleware.tracing.parent import traceparent

if TYPE_CHECKING:
    from tracing.conftest import Backend


def _openinference(monkeypatch: pytest.MonkeyPatch, span: trace.Span | None) -> None:
    module = SimpleNamespace(get_current_span=lambda: span)
    monkeypatch.setitem(sys.modules, names.OPENINFERENCE_MODULE, module)


def test_the_anchor_joins_the_steps_of_a_run_to_one_trace_when_nothing_else_is_traced(backend: Backend) -> None:
    telemetry, anchor = backend.telemetry(), None
    for index in range(3):
        given = {names.CONVERSATION_ID: "thread-1", names.AGENT_NAME: "taxi"}
        with telemetry.step(index=index, anchor=anchor, attributes=given) as span:
            backend.decide(span)
        anchor = span.anchor
    run = backend.span(names.RUN_SPAN)
    assert len(backend.traces()) == 1
    assert [guard.parent and guard.parent.span_id for guard in backend.spans("guard")] == [backend.id(run)] * 3
    assert dict(run.attributes or {}) == {names.AGENT_NAME: "taxi", names.CONVERSATION_ID: "thread-1"}


def test_the_run_span_has_ended_before_the_step_begins(backend: Backend) -> None:
    with backend.telemetry().step(index=0):
        assert [span.name for span in backend.spans()] == [names.RUN_SPAN]


def test_a_live_parent_wins_over_the_anchor_and_the_anchor_stays(backend: Backend) -> None:
    with backend.telemetry().step(index=0) as first:
        pass
    with backend.tracer_provider.get_tracer("app").start_as_current_span("app"):
        with backend.telemetry().step(index=1, anchor=first.anchor) as second:
            pass
        with backend.telemetry().step(index=2) as third:
            pass
    app = backend.span("app")
    guards = backend.spans("guard")[1:]
    assert [guard.parent and guard.parent.span_id for guard in guards] == [backend.id(app)] * 2
    assert second.anchor == first.anchor
    assert third.anchor.split("-")[2] == f"{backend.id(app):016x}"
    assert len(backend.spans(names.RUN_SPAN)) == 1


@pytest.mark.parametrize("anchor", ["", "garbage", "00-" + "0" * 32 + "-" + "0" * 16 + "-01"])
def test_an_anchor_that_names_no_span_is_replaced(backend: Backend, anchor: str) -> None:
    with backend.telemetry().step(index=0, anchor=anchor) as span:
        pass
    assert span.anchor.split("-")[2] == f"{backend.id(backend.span(names.RUN_SPAN)):016x}"


def test_openinferences_span_is_the_parent_when_nothing_is_current(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain = backend.tracer_provider.get_tracer("oi").start_span("chain")
    _openinference(monkeypatch, chain)
    with backend.telemetry().step(index=0) as span:
        pass
    assert backend.span("guard").parent == chain.get_span_context()
    assert span.anchor == traceparent(chain)


def test_of_two_live_spans_in_one_trace_the_later_one_is_the_parent(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracer = backend.tracer_provider.get_tracer("app")
    root = tracer.start_span("root", start_time=1)
    below = trace.set_span_in_context(root)
    early, late = tracer.start_span("early", below, start_time=2), tracer.start_span("late", below, start_time=3)
    for current, other in ((early, late), (late, early)):
        _openinference(monkeypatch, other)
        with trace.use_span(current), backend.telemetry().step(index=0):
            pass
    assert [guard.parent for guard in backend.spans("guard")] == [late.get_span_context()] * 2


def test_openinferences_span_of_another_trace_does_not_win_over_the_current_one(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracer = backend.tracer_provider.get_tracer("app")
    current = tracer.start_span("current")
    _openinference(monkeypatch, tracer.start_span("elsewhere"))
    with trace.use_span(current), backend.telemetry().step(index=0):
        pass
    assert backend.span("guard").parent == current.get_span_context()


def test_a_failing_openinference_costs_its_span_only(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise RuntimeError

    monkeypatch.setitem(sys.modules, names.OPENINFERENCE_MODULE, SimpleNamespace(get_current_span=fail))
    with backend.telemetry().step(index=0) as span:
        pass
    assert span.traceparent


def test_a_run_that_is_sampled_out_stays_so_for_all_its_steps(backend: Backend) -> None:
    provider = TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False)
    with backend.telemetry(tracer_provider=provider).step(index=0) as span:
        pass
    assert span.traceparent == ""
    assert span.anchor.endswith("-00") or int(span.anchor[-2:], 16) & 1 == 0
    with backend.telemetry().step(index=1, anchor=span.anchor) as later:
        pass
    assert later.anchor == span.anchor
    assert not backend.spans()
