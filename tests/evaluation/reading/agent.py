"""One small agent that looks something up and answers, and what every reader has to make of its run."""

from __future__ import annotations

from typing import Any

from guard.agents import Scripted
from langchain_core.messages import AIMessage, SystemMessage
from langchain_core.runnables import Runnable
from langchain_core.tools import tool
from langgraph.graph import START, StateGraph
from langgraph.graph.message import MessagesState
from langgraph.prebuilt import ToolNode, tools_condition

REPLIES = (
    AIMessage("I look.", tool_calls=[{"name": "find", "args": {"query": "hotel"}, "id": "c1"}]),
    AIMessage("There are three."),
)
MESSAGES: tuple[dict[str, Any], ...] = (
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "Find hotels"},
    {
        "role": "assistant",
        "content": "I look.",
        "tool_calls": [{"name": "find", "arguments": {"query": "hotel"}, "id": "c1"}],
    },
    {"role": "tool", "content": "three", "tool_call_id": "c1", "name": "find"},
    {"role": "assistant", "content": "There are three."},
)
ACTIONS = (2, 4)


@tool
def find(query: str) -> str:
    """Look it up."""
    return "three"


def graph(state: Any = MessagesState, **compiled: Any) -> Runnable[Any, Any]:
    """The agent, compiled."""
    model = Scripted(replies=list(REPLIES))

    def agent(state: Any) -> dict[str, Any]:
        return {"messages": [model.invoke([SystemMessage("Be kind."), *state["messages"]])]}

    builder: Any = StateGraph(state)
    builder.add_node("agent", agent)
    builder.add_node("tools", ToolNode([find]))
    builder.add_edge(START, "agent")
    builder.add_conditional_edges("agent", tools_condition)
    builder.add_edge("tools", "agent")
    built: Runnable[Any, Any] = builder.compile(**compiled)
    return built


def go(built: Runnable[Any, Any], thread: str = "t", **config: Any) -> None:
    """One run of it."""
    given: Any = {"configurable": {"thread_id": thread}, **config}
    built.invoke({"messages": [("user", "Find hotels")]}, given)
