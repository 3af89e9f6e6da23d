"""Calls that may not run are answered, and the rest of their step runs as if they were not there."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from guard.agents import (
    ByArgument,
    How,
    Scripted,
    World,
    act,
    agent_node,
    build,
    enforced,
    run,
    say,
    texts,
)
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import InjectedToolCallId, tool
from langgraph.prebuilt import InjectedState, ToolNode
from langgraph.types import Command

from pa_middleware import Guard, GuardState


@pytest.mark.parametrize("how", ["sync", "async"])
def test_the_tools_see_the_step_without_its_blocked_call(how: How) -> None:
    seen: list[Any] = []

    def tools(state: GuardState) -> Any:
        seen.append(state["messages"][-1])
        return {"messages": [ToolMessage("x", tool_call_id=c["id"]) for c in state["messages"][-1].tool_calls]}  # type: ignore[union-attr]

    async def atools(state: GuardState) -> Any:
        return tools(state)

    guard = Guard(ByArgument(), enforced(threshold=0.0, on_low="block"))
    node = agent_node(Scripted(replies=[act(1, -1, 2), say(1)]))
    final = run(build(guard, node, World(), tools=tools if how == "sync" else atools).compile(), how=how)
    assert [c["args"]["x"] for c in seen[0].tool_calls] == [1, 2]
    assert [len(m.tool_calls) for m in final["messages"] if isinstance(m, AIMessage)] == [3, 0], "the history keeps all"
    blocked = [m for m in final["messages"] if isinstance(m, ToolMessage) and m.status == "error"]
    assert [(m.name, "Not executed" in m.text) for m in blocked] == [("act", True)]


def test_injected_state_and_tools_that_return_commands_work_beside_a_refusal() -> None:
    seen: list[int] = []

    @tool
    def act_(x: float, state: Annotated[dict[str, Any], InjectedState]) -> str:
        """Look at the state."""
        seen.append(len(state["pa"]))
        return "looked"

    @tool
    def act_on(x: float, tool_call_id: Annotated[str, InjectedToolCallId]) -> Command[Any]:
        """Change the state."""
        return Command(update={"messages": [ToolMessage("changed", tool_call_id=tool_call_id), HumanMessage("more")]})

    calls = [
        {"name": "act_", "args": {"x": 1}, "id": "a"},
        {"name": "act_on", "args": {"x": 2}, "id": "b"},
        {"name": "act_on", "args": {"x": -3}, "id": "c"},
    ]
    guard = Guard(ByArgument(), enforced(threshold=0.0, on_low="block"))
    node = agent_node(Scripted(replies=[AIMessage("", tool_calls=calls), say(1)]))
    final = run(build(guard, node, World(), tools=ToolNode([act_, act_on])).compile())
    assert seen == [1]
    answers = {m.tool_call_id: (m.text[:12], m.status) for m in final["messages"] if isinstance(m, ToolMessage)}
    assert answers == {"a": ("looked", "success"), "b": ("changed", "success"), "c": ("Not executed", "error")}
    assert "human:more" in texts(final["messages"])


@pytest.mark.parametrize(
    "output", [None, {}, {"messages": []}, {"messages": ToolMessage("x", tool_call_id="c")}, [], Command(update={})]
)
def test_refusals_are_added_to_whatever_the_tools_answer(output: Any) -> None:
    guard = Guard(ByArgument(), enforced(threshold=0.0, on_low="block"))
    node = agent_node(Scripted(replies=[act(1, -1), say(1)]))
    final = run(build(guard, node, World(), tools=lambda state: output).compile())
    refused = [m for m in final["messages"] if isinstance(m, ToolMessage) and m.status == "error"]
    assert len(refused) == 1


def test_a_step_with_a_refusal_is_still_one_update() -> None:
    guard = Guard(ByArgument(), enforced(threshold=0.0, on_low="block"))
    graph = build(guard, agent_node(Scripted(replies=[act(1, -1), say(1)])), World()).compile()
    updates = [
        u["tools"] for u in graph.stream({"messages": [HumanMessage("go")]}, stream_mode="updates") if "tools" in u
    ]
    assert [[m.status for m in update["messages"]] for update in updates] == [["success", "error"]]
