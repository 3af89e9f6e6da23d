"""What was scored is what runs: every way to put something else in front of the tools."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

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
    one_node,
    run,
    say,
    texts,
)
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph.message import MessagesState
from langgraph.prebuilt import ToolNode
from langgraph.types import Command, Send

from pa_middleware import Guard, GuardError, GuardState, Rules

CONFIG: Any = {"configurable": {"thread_id": "t"}}


def stopped(replies: list[AIMessage], rules: Rules, world: World) -> Any:
    """A run that waits before its tools."""
    guard = Guard(ByArgument(), rules)
    builder = build(guard, agent_node(Scripted(replies=replies)), world)
    graph = builder.compile(checkpointer=InMemorySaver(), interrupt_before=["tools"])
    run(graph, config=CONFIG)
    return graph


def edited(action: AIMessage, *calls: Any, **changes: Any) -> AIMessage:
    return action.model_copy(update={"tool_calls": [{**call, "type": "tool_call"} for call in calls], **changes})


def call(like: Any, **changes: Any) -> dict[str, Any]:
    return {**like, **changes}


EDITS: dict[str, Callable[[AIMessage], tuple[AIMessage, list[float]]]] = {
    "nothing": lambda a: (a, [1.0, 2.0]),
    "arguments": lambda a: (edited(a, call(a.tool_calls[0], args={"x": 9}), a.tool_calls[1]), [2.0]),
    "an extra argument": lambda a: (edited(a, call(a.tool_calls[0], args={"x": 1, "y": 0})), []),
    "the name": lambda a: (edited(a, call(a.tool_calls[0], name="other"), a.tool_calls[1]), [2.0]),
    "the call's id": lambda a: (edited(a, call(a.tool_calls[0], id="new"), a.tool_calls[1]), [2.0]),
    "the ids swapped": lambda a: (
        edited(a, call(a.tool_calls[0], id=a.tool_calls[1]["id"]), call(a.tool_calls[1], id=a.tool_calls[0]["id"])),
        [],
    ),
    "the order": lambda a: (edited(a, *reversed(a.tool_calls)), [1.0, 2.0]),
    "one call less": lambda a: (edited(a, a.tool_calls[1]), [2.0]),
    "one call more": lambda a: (edited(a, *a.tool_calls, {"name": "act", "args": {"x": 9}, "id": "n"}), [1.0, 2.0]),
    "a call twice": lambda a: (edited(a, *a.tool_calls, a.tool_calls[0]), [1.0, 2.0]),
    "another before, under the same id": lambda a: (
        edited(a, call(a.tool_calls[0], args={"x": 9}), *a.tool_calls),
        [1.0, 2.0],
    ),
    "another behind, under the same id": lambda a: (
        edited(a, *a.tool_calls, call(a.tool_calls[0], args={"x": 9})),
        [1.0, 2.0],
    ),
    "a call without an id": lambda a: (edited(a, call(a.tool_calls[0], id=None)), []),
}


@pytest.mark.parametrize("how", ["sync", "async"])
@pytest.mark.parametrize("name", EDITS)
def test_a_call_edited_after_it_was_scored_does_not_run(name: str, how: How) -> None:
    world = World()
    graph = stopped([act(1, 2), say(1)], enforced(threshold=0.0), world)
    action = graph.get_state(CONFIG).values["messages"][-1]
    message, expected = EDITS[name](action)
    graph.update_state(CONFIG, {"messages": [message]}, as_node="agent")
    final = run(graph, None, CONFIG, how=how)
    assert sorted(world.ran) == expected
    answers = [m for m in final["messages"] if isinstance(m, ToolMessage)]
    assert len(answers) == len(message.tool_calls)
    assert sum(answer.status == "error" for answer in answers) == len(message.tool_calls) - len(expected)


@pytest.mark.parametrize(
    "message",
    [act(9), AIMessage("", id="forged", tool_calls=[{"name": "act", "args": {"x": 9}, "id": "f"}])],
    ids=["without an id", "with an id"],
)
def test_an_action_nobody_scored_does_not_run(message: AIMessage) -> None:
    world = World()
    graph = stopped([act(1), say(1)], enforced(threshold=0.0), world)
    graph.update_state(CONFIG, {"messages": [message]}, as_node="agent")
    final = graph.invoke(None, CONFIG)
    assert world.ran == []
    assert any("not the one that was approved" in message.text for message in final["messages"])


def test_a_message_replaced_under_its_id_does_not_run() -> None:
    world = World()
    graph = stopped([act(1), say(1)], enforced(threshold=0.0), world)
    action = graph.get_state(CONFIG).values["messages"][-1]
    forged = AIMessage("", id=action.id, tool_calls=[{"name": "act", "args": {"x": 9}, "id": "new"}])
    graph.update_state(CONFIG, {"messages": [forged]}, as_node="agent")
    graph.invoke(None, CONFIG)
    assert world.ran == []


@pytest.mark.parametrize(
    "change", [{"v": 2}, {"v": None}, {"decision": "abstain"}, {"decision": "resample"}, {"calls": []}]
)
def test_records_of_another_version_or_decision_admit_nothing(change: dict[str, Any]) -> None:
    world = World()
    guard = Guard(ByArgument(), enforced(threshold=0.0))
    seen = run(one_node(guard.node(lambda state: {"messages": [act(1)]})))
    gate = one_node(guard.gate(ToolNode(world.tools)))
    run(gate, {**seen, "pa": [{**seen["pa"][0], **change}]})
    assert world.ran == []
    run(gate, seen)
    assert world.ran == [1.0]


def test_answered_calls_do_not_run_again_and_the_open_ones_do() -> None:
    world = World()
    graph = stopped([act(1, 2), say(1)], enforced(threshold=0.0), world)
    first = graph.get_state(CONFIG).values["messages"][-1].tool_calls[0]
    answer = ToolMessage("by hand", tool_call_id=first["id"], status="error")
    graph.update_state(CONFIG, {"messages": [answer]}, as_node="agent")
    final = graph.invoke(None, CONFIG)
    assert world.ran == [2.0]
    assert texts(final["messages"])[2:4] == ["tool:by hand", "tool:did 2.0"]


def test_nothing_runs_when_all_is_answered() -> None:
    world = World()
    guard = Guard(ByArgument(), enforced(threshold=0.0))
    graph = build(guard, agent_node(Scripted(replies=[act(1), say(1)])), world).compile()
    done = run(graph)
    run(one_node(guard.gate(ToolNode(world.tools))), {**done, "messages": done["messages"][:-1]})
    assert world.ran == [1.0]


def test_single_calls_sent_without_their_scores_are_refused() -> None:
    world = World()
    guard = Guard(ByArgument(), enforced(threshold=0.0))

    def agent(state: GuardState) -> Any:
        action = act(1)
        return Command(update={"messages": [action]}, goto=[Send("tools", [action.tool_calls[0]])])

    with pytest.raises(GuardError, match="single tool calls"):
        run(one_node(guard.node(agent), then=guard.gate(ToolNode(world.tools))))
    assert world.ran == []


def test_a_state_sent_to_the_tools_with_another_action_is_refused() -> None:
    world = World()
    guard = Guard(ByArgument(), enforced(threshold=0.0))

    def agent(state: GuardState) -> Any:
        return Command(update={"messages": [say(1)]}, goto=[Send("tools", {**state, "messages": [act(9)]})])

    run(one_node(guard.node(agent), then=guard.gate(ToolNode(world.tools))))
    assert world.ran == []


def test_text_reaches_a_node_that_parses_it_only_as_it_was_scored() -> None:
    seen: list[str] = []

    def tools(state: GuardState) -> Any:
        seen.append(state["messages"][-1].text)

    guard = Guard(ByArgument(), enforced(threshold=0.0))
    scored = run(one_node(guard.node(lambda state: {"messages": [say(1)]})))
    gate = one_node(guard.gate(tools))
    run(gate, scored)
    assert seen == ["done #1"]
    action = scored["messages"][-1]
    for messages in ([action.model_copy(update={"content": "other"})], [AIMessage("new")], [HumanMessage("none")]):
        with pytest.raises(GuardError):
            run(gate, {**scored, "messages": messages})
    abstained = run(one_node(guard.node(lambda state: {"messages": [say(-1)]})))
    with pytest.raises(GuardError, match="reached after the guard abstained"):
        run(gate, abstained)
    assert seen == ["done #1"]


def test_calls_that_share_an_id_get_ids_of_their_own() -> None:
    world = World()
    twice = [{"name": "act", "args": {"x": x}, "id": "same"} for x in (1, 2)]
    node = agent_node(Scripted(replies=[AIMessage("", tool_calls=twice), say(1)]))
    final = run(
        build(Guard(ByArgument(), enforced(threshold=0.0)), node, World(), tools=ToolNode(world.tools)).compile()
    )
    assert sorted(world.ran) == [1.0, 2.0]
    assert len({m.tool_call_id for m in final["messages"] if isinstance(m, ToolMessage)}) == 2


@pytest.mark.parametrize("place", ["node", "gate"])
def test_a_state_without_a_key_for_records_or_messages_is_refused(place: str) -> None:
    guard = Guard(ByArgument(), enforced(threshold=0.0))
    inner: Any = {"node": guard.node, "gate": guard.gate}[place](lambda state: {"messages": [act(1)]})
    with pytest.raises(GuardError, match="'pa'"):
        run(one_node(inner, state=MessagesState), {"messages": [act(1)]})
    other = Guard(ByArgument(), enforced(threshold=0.0), messages_key="chat")
    inner = {"node": other.node, "gate": other.gate}[place](lambda state: {"messages": [act(1)]})
    with pytest.raises(GuardError, match="'chat'"):
        run(one_node(inner), {"messages": [act(1)]})
