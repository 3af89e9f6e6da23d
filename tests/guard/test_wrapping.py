"""A guarded node is to LangGraph what the node was: its name, its edges, its time limit; and it remembers no draw."""

from __future__ import annotations

import asyncio
import functools
from typing import Any, Literal

import pytest
from guard.agents import ByArgument, Kind, Scripted, World, act, agent_node, build, enforced, one_node, run, say
from guard.cases import CONFIG
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatResult
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.errors import NodeError, NodeTimeoutError
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import MessagesState
from langgraph.types import Command

from pa_middleware import Guard, GuardError, GuardState


def guard(**settings: Any) -> Guard:
    return Guard(ByArgument(), enforced(**{"threshold": 0.0, **settings}))


def test_the_edges_that_a_node_commands_are_drawn() -> None:
    def agent(state: GuardState) -> Command[Literal["tools", "__end__"]]:
        return Command(update={"messages": [act(1)]}, goto="tools")

    graph = one_node(guard().node(agent), then=lambda state: None)
    assert {(edge.source, edge.target) for edge in graph.get_graph().edges if edge.conditional} == {
        ("agent", "tools"),
        ("agent", END),
    }


def test_a_node_keeps_its_name_and_one_without_gets_the_name_given() -> None:
    def agent(state: Any, score: float = 1) -> Any:
        return {"messages": [say(score)]}

    builder: Any = StateGraph(GuardState)
    builder.add_node(guard().node(agent))
    builder.add_node(guard().node(functools.partial(agent, score=2), name="second"))
    assert list(builder.nodes) == ["agent", "second"]


class Stuck(Scripted):
    """A model that never answers."""

    async def _agenerate(self, *args: Any, **kwargs: Any) -> ChatResult:
        await asyncio.Event().wait()
        raise AssertionError("unreachable")


@pytest.mark.parametrize("kind", ["function", "runnable"])
def test_the_time_limit_of_a_node_holds_for_the_guarded_one(kind: Kind) -> None:
    builder: Any = StateGraph(GuardState)
    builder.add_node("agent", guard().node(agent_node(Stuck(replies=[]), kind, "async")), timeout=0.01)
    builder.add_edge(START, "agent")
    with pytest.raises(NodeTimeoutError):
        run(builder.compile(), how="async")


def thinking(model: Scripted, **settings: Any) -> Any:
    inner: Any = StateGraph(MessagesState)
    inner.add_node("think", lambda state: {"messages": [model.invoke(state["messages"])]})
    inner.add_edge(START, "think")
    return inner.compile(**settings)


def test_each_draw_of_a_graph_as_the_node_starts_afresh() -> None:
    world, model = World(), Scripted(replies=[act(-1), act(1), say(1)])
    graph = build(guard(draws=2), thinking(model), world).compile(checkpointer=InMemorySaver())
    run(graph, config=CONFIG)
    assert [len(asked) for asked in model.asked] == [1, 1, 3]
    assert world.ran == [1.0]


def test_a_graph_that_would_remember_rejected_draws_is_refused_as_a_node() -> None:
    model = Scripted(replies=[act(1)])
    with pytest.raises(GuardError, match="checkpointer=True: it would remember rejected draws"):
        build(guard(draws=2), thinking(model, checkpointer=True), World())


def test_a_graph_as_the_node_is_found_among_the_subgraphs() -> None:
    graph = build(guard(), thinking(Scripted(replies=[act(1)])), World()).compile()
    assert [name for name, _ in graph.get_subgraphs()] == ["agent"]


def test_an_error_of_the_node_goes_to_the_nodes_error_handler_and_no_tool_runs() -> None:
    class Failing(Scripted):
        def _next(self, messages: Any) -> AIMessage:
            raise KeyError("bug")

    def handler(state: GuardState, error: NodeError) -> Any:
        return Command(update={"messages": [say(0, "sorry")]}, goto=END)

    builder: Any = StateGraph(GuardState)
    builder.add_node("agent", guard().node(agent_node(Failing(replies=[]))), error_handler=handler)
    builder.add_edge(START, "agent")
    assert run(builder.compile())["messages"][-1].text == "sorry #0"
