"""A guarded LangChain agent is traced like a guarded graph: a run is one trace, a step one guard span."""

from __future__ import annotations

from typing import Any

import pytest
from guard.agents import How, act, enforced, run, say
from guard.cases import APPROVE, CONFIG
from integrations.agents import Agent
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command
from tracing.conftest import Backend

from pa_middleware.tracing import conventions as names


def providers(backend: Backend) -> dict[str, Any]:
    return {
        "tracer_provider": backend.tracer_provider,
        "meter_provider": backend.meter_provider,
        "logger_provider": backend.logger_provider,
    }


@pytest.mark.parametrize("how", ["sync", "async"])
def test_each_step_is_a_guard_span_with_its_candidates_below_and_a_run_is_one_trace(backend: Backend, how: How) -> None:
    agent = Agent([act(-1), act(1), say(1)], enforced(threshold=0.0, draws=2), guard=providers(backend),
                  checkpointer=InMemorySaver())  # fmt: skip
    run(agent.graph, config=CONFIG, how=how)
    steps = backend.spans(names.GUARD_SPAN)
    assert [len([span for span in backend.spans(names.SCORE_SPAN) if span.parent == step.context]) for step in steps]
    assert [step.attributes[names.LANGGRAPH_NODE] for step in steps if step.attributes] == ["model", "model"]
    assert [step.attributes[names.CONVERSATION_ID] for step in steps if step.attributes] == ["t", "t"]
    assert len(backend.traces()) == 1
    assert len(backend.events()) == 3


@pytest.mark.parametrize("how", ["sync", "async"])
def test_a_run_that_waits_for_a_human_is_one_trace_and_no_error(backend: Backend, how: How) -> None:
    rules = enforced(threshold=0.0, on_low="escalate")
    agent = Agent([act(-1), say(1)], rules, guard=providers(backend), checkpointer=InMemorySaver())
    run(agent.graph, config=CONFIG, how=how)
    agent.graph.invoke(Command(resume={"decisions": [APPROVE]}), CONFIG)
    assert len(backend.traces()) == 1
    assert all(span.status.is_unset for span in backend.spans())
    assert len(backend.spans(names.REVIEW_SPAN)) == 1


def test_action_text_stays_out_of_telemetry_unless_asked_for(backend: Backend) -> None:
    for content in (False, True):
        guard = {**providers(backend), "trace_content": content, "trace_tokens": True}
        run(Agent([say(1, "secret")], enforced(threshold=0.0), guard=guard).graph)
        assert ("secret" in backend.everything()) is content
