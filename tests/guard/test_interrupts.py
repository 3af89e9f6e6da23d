"""Interrupts of the graph pass through a guard, and resume."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from guard.agents import ByArgument, Failing, How, Place, Scripted, World, act, agent_node, build, enforced, run, say
from langchain_core.messages import HumanMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.errors import GraphInterrupt
from langgraph.prebuilt import ToolNode
from langgraph.types import Command, Interrupt, interrupt

from pa_middleware import Guard, GuardState, Step, StepScore

CONFIG: Any = {"configurable": {"thread_id": "t"}}


def resume(graph: Any, answer: Any, how: How) -> Any:
    command: Command[Any] = Command(resume=answer)
    return graph.invoke(command, CONFIG) if how == "sync" else asyncio.run(graph.ainvoke(command, CONFIG))


@pytest.mark.parametrize("place", ["hand", "install"])
@pytest.mark.parametrize(("how", "kind"), [("sync", "function"), ("async", "function"), ("async", "coroutine")])
def test_an_interrupt_inside_the_guarded_node_surfaces_and_resumes(kind: str, how: How, place: Place) -> None:
    def agent(state: GuardState) -> Any:
        return {"messages": [say(1, interrupt("what next?"))]}

    async def aagent(state: GuardState) -> Any:
        return agent(state)

    guard = Guard(ByArgument(), enforced(threshold=0.0, draws=3))
    builder = build(guard, agent if kind == "function" else aagent, World(), place=place)
    graph = builder.compile(checkpointer=InMemorySaver())
    paused = run(graph, config=CONFIG, how=how)
    assert [i.value for i in paused["__interrupt__"]] == ["what next?"]
    assert paused.get("pa", []) == []
    final = resume(graph, "go on", how)
    assert final["messages"][-1].text == "go on #1"
    assert len(final["pa"]) == 1


@pytest.mark.parametrize("place", ["hand", "install"])
@pytest.mark.parametrize("how", ["sync", "async"])
def test_an_interrupt_inside_a_gated_tool_surfaces_and_resumes_beside_a_refusal(how: How, place: Place) -> None:
    @tool
    def act_(x: float) -> str:
        """Ask first."""
        return f"human says {interrupt(x)}"

    reply = act(1, -1)
    reply.tool_calls = [{**call, "name": "act_"} for call in reply.tool_calls]
    guard = Guard(ByArgument(), enforced(threshold=0.0, on_low="block"))
    node = agent_node(Scripted(replies=[reply, say(1)]))
    graph = build(guard, node, World(), place=place, tools=ToolNode([act_])).compile(checkpointer=InMemorySaver())
    paused = run(graph, config=CONFIG, how=how)
    assert [i.value for i in paused["__interrupt__"]] == [1.0]
    final = resume(graph, "yes", how)
    answers = [(m.text[:14], m.status) for m in final["messages"] if m.type == "tool"]
    assert answers == [("human says yes", "success"), ("Not executed: ", "error")]
    assert len(final["pa"]) == 2, "the step is not scored again"


@pytest.mark.parametrize("how", ["sync", "async"])
@pytest.mark.parametrize("select", ["first_pass", "best"])
def test_an_interrupt_from_a_history_or_a_scorer_is_no_failure(select: Any, how: How) -> None:
    rules = enforced(threshold=0.0, draws=2, select=select, on_scorer_error="flag")

    def asks(state: Any) -> Any:
        return [HumanMessage(interrupt("which history?"))]

    class Asking(ByArgument):
        def score(self, steps: Sequence[Step]) -> list[StepScore]:
            interrupt("which score?")
            return super().score(steps)

    for guard, question in ((Guard(ByArgument(), rules, history=asks), "history"), (Guard(Asking(), rules), "score")):
        node = agent_node(Scripted(replies=[say(1), say(2)] * 2))
        graph = build(guard, node, World()).compile(checkpointer=InMemorySaver())
        paused = run(graph, config=CONFIG, how=how)
        assert [i.value for i in paused["__interrupt__"]] == [f"which {question}?"]
        assert resume(graph, "this", how)["pa"][-1]["decision"] == "pass"


def test_whatever_bubbles_up_through_the_graph_is_not_taken_for_a_scorers_error() -> None:
    scorer = Failing(GraphInterrupt([Interrupt("deep")]))
    graph = build(Guard(scorer, enforced(on_scorer_error="flag")), agent_node(Scripted(replies=[say(1)])), World())
    result = run(graph.compile(checkpointer=InMemorySaver()), config=CONFIG)
    assert "__interrupt__" in result
    assert result["pa"] == []
