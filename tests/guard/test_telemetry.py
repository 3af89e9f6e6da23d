"""What a guarded run tells OpenTelemetry, and that telemetry never reaches the agent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pytest
from guard.agents import ByArgument, Failing, How, Place, Scripted, World, act, agent_node, build, enforced, run, say
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command, interrupt
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import StatusCode

from pa_middleware import Guard, GuardState, Rules
from pa_middleware.tracing import conventions as names

if TYPE_CHECKING:
    from tracing.conftest import Backend

SCRIPT = [act(-1), act(1), say(-1), say(-2)]
RULES = enforced(threshold=0.0, draws=2)


def guard(backend: Backend, rules: Rules = RULES, scorer: Any = None) -> Guard:
    return Guard(
        scorer or ByArgument(),
        rules,
        tracer_provider=backend.tracer_provider,
        meter_provider=backend.meter_provider,
        logger_provider=backend.logger_provider,
    )


@pytest.mark.parametrize("place", ["hand", "install"])
@pytest.mark.parametrize("how", ["sync", "async"])
def test_each_step_is_a_guard_span_with_its_candidates_below_and_a_run_is_one_trace(
    backend: Backend, how: How, place: Place
) -> None:
    graph = build(guard(backend), agent_node(Scripted(replies=SCRIPT)), World(), place=place).compile()
    records = run(graph, config={"configurable": {"thread_id": "t"}}, how=how)["pa"]
    steps = backend.spans(names.GUARD_SPAN)
    assert [step.attributes[names.DECISION] for step in steps if step.attributes] == ["pass", "abstain"]
    for step in steps:
        assert step.attributes is not None
        below = [s for s in backend.spans(names.SCORE_SPAN) if s.parent and s.parent.span_id == backend.id(step)]
        assert len(below) == step.attributes[names.CANDIDATE_COUNT] == 2
        assert step.attributes[names.CONVERSATION_ID] == "t"
        assert step.attributes[names.LANGGRAPH_NODE] == "agent"
    assert [record["span"].split("-")[2] for record in records] == [f"{backend.id(step):016x}" for step in steps]
    assert len(backend.traces()) == 1
    assert len(backend.events()) == 4


@pytest.mark.parametrize("how", ["sync", "async"])
def test_a_run_that_is_interrupted_and_resumed_is_one_trace_and_no_error(backend: Backend, how: How) -> None:
    def agent(state: GuardState) -> Any:
        return {"messages": [say(1) if len(state["messages"]) > 2 else act(1, text=interrupt("?"))]}

    graph = build(guard(backend), agent, World()).compile(checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "t"}}
    assert "__interrupt__" in run(graph, config=config, how=how)
    run(graph, Command(resume="go"), config, how=how)
    spans = backend.spans()
    assert all(span.status.status_code is not StatusCode.ERROR and not span.events for span in spans)


def test_a_failing_scorer_is_an_error_on_the_span_and_a_low_score_is_none(backend: Backend) -> None:
    rules = enforced(threshold=0.0, on_scorer_error="flag")
    scorer = Failing(KeyError("x"), None)
    run(build(guard(backend, rules, scorer), agent_node(Scripted(replies=[act(1), say(-1)])), World()).compile())
    failed, low = backend.spans(names.GUARD_SPAN)
    assert failed.attributes is not None
    assert failed.attributes[names.ERROR_TYPE] == "KeyError"
    assert (failed.attributes[names.DECISION], failed.status.status_code) == ("flag", StatusCode.ERROR)
    assert low.status.status_code is not StatusCode.ERROR


class Broken:
    """Raises at whatever is asked of it."""

    def __getattr__(self, name: str) -> Any:
        raise OSError(f"no {name}")


class BrokenExporter(SpanExporter):
    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        raise OSError("no export")


def _exporter() -> Any:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(BrokenExporter()))
    return provider


@pytest.mark.parametrize("how", ["sync", "async"])
@pytest.mark.parametrize("broken", [Broken, _exporter])
def test_telemetry_that_fails_never_reaches_the_agent(broken: Any, how: How) -> None:
    world = World()
    told = Guard(ByArgument(), RULES, tracer_provider=broken(), meter_provider=Broken(), logger_provider=Broken())  # type: ignore[arg-type]
    final = run(build(told, agent_node(Scripted(replies=SCRIPT)), world).compile(), how=how)
    assert world.ran == [1.0]
    assert [record["decision"] for record in final["pa"]] == ["pass", "abstain"]


def test_action_text_stays_out_of_telemetry_unless_asked_for(backend: Backend) -> None:
    script = [act(1, text=backend.canary), say(1)]
    run(build(guard(backend), agent_node(Scripted(replies=script)), World()).compile())
    assert backend.canary not in backend.everything()
    shown = Guard(ByArgument(), RULES, tracer_provider=backend.tracer_provider, trace_content=True)
    run(build(shown, agent_node(Scripted(replies=script)), World()).compile())
    assert backend.canary in backend.everything()
