"""Steps told from inside a LangGraph graph."""

from __future__ import annotations

import asyncio
import operator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypedDict

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, interrupt

from pa_middleware.tracing import Telemetry, read, record

if TYPE_CHECKING:
    from tracing.conftest import Backend


class State(TypedDict):
    told: Annotated[list[str], operator.add]
    anchor: str


def _graph(backend: Backend, *, ask: bool) -> Any:
    telemetry = Telemetry()

    def step(index: int) -> Any:
        def node(state: State) -> dict[str, Any]:
            with telemetry.step(index=index, anchor=state.get("anchor")) as span:
                backend.decide(span, tool_call_ids=[f"call-{index}"])
                if ask and index == 1:
                    interrupt("go on?")
            return {"told": [str(index)], "anchor": span.anchor}

        return node

    builder = StateGraph(State)
    builder.add_node("first", step(0))
    builder.add_node("second", step(1))
    builder.add_edge(START, "first")
    builder.add_edge("first", "second")
    builder.add_edge("second", END)
    return builder.compile(checkpointer=InMemorySaver())


@pytest.mark.parametrize("asynchronous", [False, True])
def test_the_steps_of_a_run_are_one_trace_across_interrupt_and_resume(
    backend: Backend, tmp_path: Path, asynchronous: bool
) -> None:
    graph = _graph(backend, ask=True)
    thread = {"configurable": {"thread_id": "1"}}
    for turn, given in enumerate(({"told": []}, Command(resume="yes"))):
        with record(tmp_path / f"{turn}.jsonl"):
            if asynchronous:
                asyncio.run(graph.ainvoke(given, thread))
            else:
                graph.invoke(given, thread)
    (run,) = read(tmp_path)
    assert [(step.index, step.error) for step in run.steps] == [(0, None), (1, None)]
    assert graph.get_state(thread).values["told"] == ["0", "1"]
