"""Graphs that Guard.install refuses, and leaves as they were."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, TypedDict

import pytest
from guard.agents import ByArgument, Scripted, World, agent_node, enforced
from guard.test_install import graph
from langchain_core.messages import AnyMessage
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import MessagesState, add_messages
from langgraph.prebuilt import ToolNode
from pydantic import BaseModel

from pa_middleware import Guard, GuardError, GuardState


class Model(BaseModel):
    messages: Annotated[list[AnyMessage], add_messages] = []


@dataclass
class Data:
    messages: Annotated[list[AnyMessage], add_messages]


class Overwriting(TypedDict):
    messages: list[AnyMessage]


class OverwritingRecords(MessagesState):
    pa: list[dict[str, Any]]


class Elsewhere(TypedDict):
    chat: Annotated[list[AnyMessage], add_messages]


@pytest.mark.parametrize(
    ("state", "match"),
    [
        (Model, "Model has no key 'pa'.*add a field"),
        (Data, "Data has no key 'pa'.*add a field"),
        (Overwriting, "'messages' has no reducer"),
        (OverwritingRecords, "'pa' has no reducer"),
        (Elsewhere, "messages_key='messages' is no key of the state"),
    ],
)
def test_a_state_that_cannot_hold_what_the_guard_adds_is_refused_and_left_alone(state: Any, match: str) -> None:
    builder: Any = StateGraph(state)
    builder.add_node("agent", lambda state: {})
    builder.add_node("tools", lambda state: {})
    builder.add_edge(START, "agent")
    builder.add_conditional_edges("agent", lambda state: END)
    before = (dict(builder.nodes), dict(builder.branches["agent"]), builder.output_schema)
    with pytest.raises(GuardError, match=match):
        Guard(ByArgument(), enforced()).install(builder)
    assert (dict(builder.nodes), dict(builder.branches["agent"]), builder.output_schema) == before


def test_a_compiled_graph_is_refused() -> None:
    builder = graph("custom", Scripted(replies=[]), World())
    given: Any
    for given in (builder, builder.compile(), None):
        with pytest.raises(GuardError, match=r"before builder\.compile"):
            Guard(ByArgument(), enforced()).install(given)


@pytest.mark.parametrize("names", [{"agent": "model"}, {"tools": "tool"}, {"agent": "tools"}])
def test_nodes_that_are_missing_or_one_and_the_same_are_refused(names: dict[str, str]) -> None:
    with pytest.raises(GuardError, match=next(iter(names))):
        Guard(ByArgument(), enforced()).install(graph("custom", Scripted(replies=[]), World()), **names)


def test_a_guard_is_not_placed_twice() -> None:
    guard, model = Guard(ByArgument(), enforced()), Scripted(replies=[])
    builder = guard.install(graph("custom", model, World()))
    for again in (guard, Guard(ByArgument(), enforced())):
        with pytest.raises(GuardError, match="guarded already"):
            again.install(builder)
    for place in (guard.node, guard.gate):
        for inner in (agent_node(model), agent_node(model, "runnable"), agent_node(model, how="async")):
            with pytest.raises(GuardError, match="guarded already"):
                place(place(inner))


def test_nodes_guarded_by_hand_are_not_guarded_again_by_install() -> None:
    guard = Guard(ByArgument(), enforced())
    builder: Any = StateGraph(GuardState)
    builder.add_node("agent", guard.node(agent_node(Scripted(replies=[]))))
    builder.add_node("tools", ToolNode(World().tools))
    builder.add_edge(START, "agent")
    with pytest.raises(GuardError, match="guarded already"):
        guard.install(builder)


@dataclass
class Chosen:
    choice: str = ""


def chosen(state: Chosen) -> str:
    return state.choice


def test_a_condition_that_cannot_see_the_conversation_is_refused() -> None:
    builder: Any = StateGraph(MessagesState)
    builder.add_node("agent", lambda state: {})
    builder.add_node("tools", lambda state: {})
    builder.add_edge(START, "agent")
    builder.add_conditional_edges("agent", chosen, ["tools", END])
    with pytest.raises(GuardError, match="the condition 'chosen' reads Chosen"):
        Guard(ByArgument(), enforced()).install(builder)
