"""Guard.install: the graphs it takes, what it leaves as it was, and the graphs it refuses."""

from __future__ import annotations

import operator
from typing import Annotated, Any, Literal, TypedDict

import pytest
from guard.agents import ByArgument, How, Place, Scripted, World, act, agent_node, build, enforced, run, say
from langchain_core.messages import AnyMessage
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import MessagesState, add_messages
from langgraph.prebuilt import ToolNode, tools_condition
from langgraph.types import Command, RetryPolicy, Send
from pydantic import BaseModel

from pa_middleware import Guard, GuardError, GuardState

STOP = enforced().abstain_message


def to_tools(state: MessagesState) -> Literal["tools", "__end__"]:
    return "tools" if getattr(state["messages"][-1], "tool_calls", None) else "__end__"


def unannotated(state: Any) -> Any:
    return to_tools(state)


async def coroutine(state: MessagesState) -> Literal["tools", "__end__"]:
    return to_tools(state)


class Count(TypedDict):
    count: Annotated[int, operator.add]


class Counting(MessagesState):
    count: Annotated[int, operator.add]


def narrow(state: Count) -> Literal["tools", "__end__"]:
    return "tools" if state.get("count", 0) % 2 else "__end__"


def sends(state: MessagesState) -> Any:
    return [Send("tools", state)] if to_tools(state) == "tools" else END


def commanding(model: Scripted) -> Any:
    def agent(state: MessagesState) -> Command[Literal["tools", "__end__"]]:
        reply: Any = model.invoke(state["messages"])
        return Command(update={"messages": [reply]}, goto="tools" if reply.tool_calls else "__end__")

    return agent


def counting(model: Scripted) -> Any:
    def agent(state: Counting) -> dict[str, Any]:
        return {"messages": [model.invoke(state["messages"])], "count": 1}

    return agent


def graph(shape: str, model: Scripted, world: World, state: Any = None) -> Any:
    builder: Any = StateGraph(state or Counting)
    builder.add_node("agent", {"command": commanding, "narrow": counting}.get(shape, agent_node)(model))
    builder.add_node("tools", ToolNode(world.tools))
    builder.add_edge(START, "agent")
    if shape != "static":
        builder.add_edge("tools", "agent")
    match shape:
        case "static":
            builder.add_edge("agent", "tools")
        case "command":
            pass
        case "path map":
            builder.add_conditional_edges("agent", lambda s: to_tools(s) == "tools", {True: "tools", False: END})
        case _:
            conditions: Any = {"tools_condition": tools_condition, "custom": to_tools, "unannotated": unannotated}
            conditions |= {"narrow": narrow, "coroutine": coroutine}
            builder.add_conditional_edges("agent", conditions[shape])
    return builder


SHAPES = ["tools_condition", "custom", "unannotated", "path map", "static", "command", "narrow"]
RUNS = [("sync", shape) for shape in SHAPES] + [("async", shape) for shape in (*SHAPES, "coroutine")]


@pytest.mark.parametrize("state", [Counting, "with records"])
@pytest.mark.parametrize(("how", "shape"), RUNS)
def test_a_graph_goes_on_as_before_and_stops_when_the_guard_abstains(how: How, shape: str, state: Any) -> None:
    schema = Counting if state is Counting else GuardedCounting
    world = World()
    replies = [act(1), say(1)] if shape == "static" else [act(1), say(-1)]
    builder = graph(shape, Scripted(replies=replies), world, schema)
    final = run(Guard(ByArgument(), enforced(threshold=0.0)).install(builder).compile(), how=how)
    assert world.ran == [1.0]
    assert len(final["pa"]) == (1 if shape == "static" else 2), "records are in the output"
    if shape != "static":
        assert final["messages"][-1].text == STOP
    world.ran.clear()
    builder = graph(shape, Scripted(replies=[act(-1)]), world, schema)
    final = run(Guard(ByArgument(), enforced(threshold=0.0)).install(builder).compile(), how=how)
    assert (world.ran, [message.text for message in final["messages"]]) == ([], ["go", STOP])


class GuardedCounting(Counting):
    pa: Annotated[list[dict[str, Any]], operator.add]


def test_a_condition_that_sends_the_state_is_kept() -> None:
    world = World()
    builder: Any = StateGraph(GuardState)
    builder.add_node("agent", agent_node(Scripted(replies=[act(1), say(-1)])))
    builder.add_node("tools", ToolNode(world.tools))
    builder.add_edge(START, "agent")
    builder.add_edge("tools", "agent")
    builder.add_conditional_edges("agent", sends, ["tools", END])
    final = run(Guard(ByArgument(), enforced(threshold=0.0)).install(builder).compile())
    assert world.ran == [1.0]
    assert final["messages"][-1].text == STOP


@pytest.mark.parametrize("shape", ["tools_condition", "custom", "path map", "command"])
def test_the_drawing_shows_the_loop_and_its_end(shape: str) -> None:
    builder = Guard(ByArgument(), enforced(threshold=0.0)).install(graph(shape, Scripted(replies=[]), World()))
    drawn = builder.compile().get_graph()
    edges = {(edge.source, edge.target) for edge in drawn.edges}
    assert edges == {("__start__", "agent"), ("agent", "tools"), ("tools", "agent"), ("agent", "__end__")}
    assert "agent -." in drawn.draw_mermaid()


@pytest.mark.parametrize("place", ["hand", "install"])
def test_a_graph_by_hand_is_drawn_like_an_installed_one(place: Place) -> None:
    guard = Guard(ByArgument(), enforced(threshold=0.0))
    drawn = build(guard, agent_node(Scripted(replies=[])), World(), place=place).compile().get_graph()
    edges = {(edge.source, edge.target) for edge in drawn.edges}
    assert edges == {("__start__", "agent"), ("agent", "tools"), ("tools", "agent"), ("agent", "__end__")}


def test_retry_policy_and_metadata_of_the_nodes_are_kept() -> None:
    tries: list[int] = []

    def agent(state: MessagesState) -> Any:
        tries.append(1)
        if len(tries) < 3:
            raise ConnectionError
        return {"messages": [say(1)]}

    builder: Any = StateGraph(MessagesState)
    retry = RetryPolicy(initial_interval=0.0, jitter=False, max_attempts=3)
    builder.add_node("agent", agent, retry_policy=retry, metadata={"mine": 1})
    builder.add_node("tools", ToolNode(World().tools), metadata={"mine": 2})
    builder.add_edge(START, "agent")
    Guard(ByArgument(), enforced(threshold=0.0)).install(builder)
    assert (builder.nodes["agent"].metadata, builder.nodes["tools"].metadata) == ({"mine": 1}, {"mine": 2})
    final = run(builder.compile())
    assert len(tries) == 3
    assert len(final["pa"]) == 1


def test_a_wrong_graph_is_not_retried() -> None:
    tries: list[int] = []

    def agent(state: MessagesState) -> Any:
        tries.append(1)
        return {}

    builder: Any = StateGraph(GuardState)
    builder.add_node(
        "agent", Guard(ByArgument(), enforced()).node(agent), retry_policy=RetryPolicy(initial_interval=0.0)
    )
    builder.add_edge(START, "agent")
    with pytest.raises(GuardError):
        run(builder.compile())
    assert len(tries) == 1


def test_other_edges_and_an_output_schema_of_ones_own_are_kept() -> None:
    seen: list[int] = []
    builder: Any = StateGraph(MessagesState, output_schema=OnlyMessages)
    builder.add_node("agent", agent_node(Scripted(replies=[say(1)])))
    builder.add_node("tools", ToolNode(World().tools))
    builder.add_node("log", lambda state: seen.append(len(state["messages"])))
    builder.add_edge(START, "agent")
    builder.add_edge("agent", "log")
    builder.add_conditional_edges("agent", tools_condition)
    final = run(Guard(ByArgument(), enforced(threshold=0.0)).install(builder).compile())
    assert list(final) == ["messages"]
    assert seen == [2]


class OnlyMessages(TypedDict):
    messages: Annotated[list[AnyMessage], add_messages]


class WithRecords(BaseModel):
    messages: Annotated[list[AnyMessage], add_messages] = []
    pa: Annotated[list[dict[str, Any]], operator.add] = []


def test_a_pydantic_state_with_a_field_for_records_is_taken() -> None:
    model, world = Scripted(replies=[act(1), say(-1)]), World()
    builder: Any = StateGraph(WithRecords)
    builder.add_node("agent", lambda state: {"messages": [model.invoke(state.messages)]})
    builder.add_node("tools", ToolNode(world.tools))
    builder.add_edge(START, "agent")
    builder.add_edge("tools", "agent")
    builder.add_conditional_edges("agent", tools_condition)
    final = run(Guard(ByArgument(), enforced(threshold=0.0)).install(builder).compile())
    assert world.ran == [1.0]
    assert [record["decision"] for record in final["pa"]] == ["pass", "abstain"]
