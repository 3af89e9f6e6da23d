"""Guarded agents under one LangChain instrumentation; prints the spans of each case as JSON.

    python -m tracing.nesting.worker none|openinference|traceloop|genai

An instrumentation patches LangChain for the whole process, so each has a process of its own.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from guard.agents import ByArgument, World, act, agent_node, build, enforced, say
from guard.cases import APPROVE
from integrations.agents import Agent, Model
from langchain_core.messages import AIMessage, BaseMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from langgraph.graph.message import MessagesState
from langgraph.types import Command
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from pydantic import PrivateAttr
from tracing.nesting.cases import PACKAGES, Case, cases

from pa_middleware import Guard, Rules

EXPORTER = InMemorySpanExporter()
PROVIDER = TracerProvider(shutdown_on_exit=False)
PROVIDER.add_span_processor(SimpleSpanProcessor(EXPORTER))

GO: Any = {"messages": [("user", "go")]}
RETRY = enforced(threshold=0.0, draws=2)
SCRIPT = [act(-1), act(1, 2), act(3, 4), say(-1), say(1)]
"""Three steps: the first and the last are drawn twice, two call two tools at once."""

Go = Callable[[], None]


class Locked(Model):
    """Hands its answers to one thread at a time."""

    _lock: Any = PrivateAttr(default_factory=threading.Lock)

    def _next(self, messages: list[BaseMessage]) -> AIMessage:
        with self._lock:
            return super()._next(messages)


class Meeting(Model):
    """Answers two conversations from the same list, always both at the same time."""

    _both: Any = PrivateAttr(default_factory=lambda: threading.Barrier(2))

    def _next(self, messages: list[BaseMessage]) -> AIMessage:
        self._both.wait(30)
        return self.replies[sum(isinstance(message, AIMessage) for message in messages)].model_copy()


def request(case: Case) -> AbstractContextManager[Any]:
    """The app's own span, if it has one."""
    return PROVIDER.get_tracer("app").start_as_current_span("request") if case.root == "app" else nullcontext()


def agent(case: Case, rules: Rules, model: Model, **settings: Any) -> Any:
    """A guarded agent with a memory."""
    settings["tracer_provider"] = PROVIDER
    if case.built == "create_agent":
        return Agent((), rules, model=model, guard=settings, checkpointer=InMemorySaver(), name="agent").graph
    graph = build(Guard(ByArgument(), rules, **settings), agent_node(model, how=case.how), World(), place="install")
    return graph.compile(checkpointer=InMemorySaver())


def calling(case: Case, graph: Any, *given: Any) -> Go:
    """Calls of a graph in one thread, one after the other, all within one request."""

    def go() -> None:
        with request(case):
            for each in given:
                config: Any = {"configurable": {"thread_id": "1"}}
                asyncio.run(graph.ainvoke(each, config)) if case.how == "async" else graph.invoke(each, config)

    return go


def one_run(case: Case) -> Go:
    return calling(case, agent(case, RETRY, Locked(replies=SCRIPT)), GO)


def interrupt(case: Case) -> Go:
    rules = enforced(threshold=0.0, on_low="escalate")
    answer: Command[Any] = Command(resume={"decisions": [APPROVE, APPROVE]})
    return calling(case, agent(case, rules, Locked(replies=[act(-1, -2), say(1)])), GO, answer)


def second_turn(case: Case) -> Go:
    return calling(case, agent(case, RETRY, Locked(replies=[*SCRIPT, *SCRIPT])), GO, GO)


def two_at_once(case: Case) -> Go:
    graph = agent(case, RETRY, Meeting(replies=[act(1, 2), act(3, 4), say(1)]))

    def run(thread: str) -> None:
        with request(case):
            graph.invoke(GO, {"configurable": {"thread_id": thread}})

    async def arun(thread: str) -> None:
        with request(case):
            await graph.ainvoke(GO, {"configurable": {"thread_id": thread}})

    def go() -> None:
        threads = [threading.Thread(target=run, args=(name,)) for name in "12"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    async def ago() -> None:
        await asyncio.gather(*map(arun, "12"))

    return go if case.how == "sync" else lambda: asyncio.run(ago())


def side_by_side(case: Case) -> Go:
    replies = [act(-1), act(1, 2), act(-2), say(-1), say(1), say(-2)]
    best = enforced(draws=3, select="best")
    return calling(case, agent(case, best, Locked(replies=replies), draws_at_once=3), GO)


def subgraph(case: Case) -> Go:
    outer: Any = StateGraph(MessagesState)
    outer.add_node("team", agent(case, RETRY, Locked(replies=SCRIPT)))
    outer.add_edge(START, "team")
    return calling(case, outer.compile(checkpointer=InMemorySaver()), GO)


SCENARIOS: dict[str, Callable[[Case], Go]] = {
    "one run": one_run,
    "interrupt": interrupt,
    "second turn": second_turn,
    "two at once": two_at_once,
    "side by side": side_by_side,
    "subgraph": subgraph,
}


def spans_of(case: Case) -> list[dict[str, Any]]:
    """Run a case and give its spans; what an instrumentation tells of the building of an agent is not among them."""
    go = SCENARIOS[case.scenario](case)
    EXPORTER.clear()
    go()
    return [plain(span) for span in EXPORTER.get_finished_spans()]


def plain(span: ReadableSpan) -> dict[str, Any]:
    """What the nesting depends on."""
    assert span.context is not None
    return {
        "name": span.name,
        "trace": span.context.trace_id,
        "id": span.context.span_id,
        "parent": span.parent.span_id if span.parent is not None else None,
        "start": span.start_time,
        "end": span.end_time,
    }


def main() -> None:
    """Instrument, run all cases, print."""
    package = next((package for name, package in PACKAGES.items() if name == sys.argv[1]), None)
    if package is not None:
        module = importlib.import_module(package.replace("-", "."))
        made = getattr(module, "LangChainInstrumentor", None) or module.LangchainInstrumentor
        made().instrument(tracer_provider=PROVIDER)
    print(json.dumps({str(case): spans_of(case) for case in cases()}))


if __name__ == "__main__":
    main()
