"""The taxi's driver: a plain LangGraph agent that knows nothing of guards.

    agent -> tools -> agent -> ... -> end        (a call that cannot be read goes to `malformed` instead of `tools`)

The graph keeps the whole conversation in its state; the model is shown a window of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AnyMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import BaseTool
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode

from .environment import HORIZON, Taxi, action_of
from .prompt import SYSTEM, window


class World(Protocol):
    """What an agent drives: one `Taxi`, or something that finds the taxi of the run that asks."""

    @property
    def steps(self) -> int:
        """Steps taken so far."""
        ...

    @property
    def done(self) -> bool:
        """True once the passenger is delivered or all steps are used."""
        ...

    def act(self, action: int) -> str:
        """Take one step and answer the new observation."""
        ...

    def malformed(self) -> str:
        """Take a step in which nothing happens."""
        ...

    def tools(self) -> list[BaseTool]:
        """Tools that act here."""
        ...


def first_messages(taxi: Taxi) -> list[AnyMessage]:
    """How a conversation begins: rules, task, first observation."""
    return [SystemMessage(SYSTEM), HumanMessage(taxi.goal), HumanMessage(taxi.observation)]


def shown(state: MessagesState) -> list[BaseMessage]:
    """What the model is shown of a conversation: the task and the latest observation."""
    messages = state["messages"]
    return window(messages[1].text, messages[-1].text)


def build_agent(
    model: BaseChatModel, taxi: World, *, takes_over: tuple[int, BaseChatModel] | None = None
) -> StateGraph[MessagesState, Any, Any, Any]:
    """The agent of one episode, or with `TaxiWorlds` of one episode a thread, not compiled yet.

    `takes_over` is a step of the taxi, from 0, and the model that drives from it on.
    """
    tools = taxi.tools()
    first = model.bind_tools(tools)
    change, then = (HORIZON, first) if takes_over is None else (takes_over[0], takes_over[1].bind_tools(tools))

    def agent(state: MessagesState) -> dict[str, list[BaseMessage]]:
        driver = first if taxi.steps < change else then
        return {"messages": [driver.invoke(shown(state))]}

    def malformed(state: MessagesState) -> dict[str, Sequence[BaseMessage]]:
        action = state["messages"][-1]
        observation = taxi.malformed()
        calls = action.tool_calls if isinstance(action, AIMessage) else []
        answers = [ToolMessage(observation, tool_call_id=call["id"] or "", status="error") for call in calls]
        return {"messages": answers or [HumanMessage(observation)]}

    def readable(state: MessagesState) -> Literal["tools", "malformed"]:
        action = state["messages"][-1]
        calls = action.tool_calls if isinstance(action, AIMessage) else []
        legal = len(calls) == 1 and action_of(calls[0]["name"], calls[0]["args"]) is not None
        return "tools" if legal else "malformed"

    def over(state: MessagesState) -> Literal["agent", "__end__"]:  # noqa: ARG001 - the world knows, not the state
        return "__end__" if taxi.done else "agent"

    builder = StateGraph(MessagesState)
    builder.add_node("agent", agent)
    builder.add_node("tools", ToolNode(tools))
    builder.add_node("malformed", malformed)
    builder.add_edge(START, "agent")
    builder.add_conditional_edges("agent", readable)
    builder.add_conditional_edges("tools", over)
    builder.add_conditional_edges("malformed", over)
    return builder
