"""What the scorer is given, how often the node is asked, and what shadow mode leaves alone."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from guard.agents import (
    ByArgument,
    How,
    Place,
    Scripted,
    World,
    act,
    agent_node,
    build,
    enforced,
    run,
    say,
    simple,
    texts,
)
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.prebuilt import ToolNode

from pa_middleware import Guard, GuardError, GuardState


class Chat(GuardState):
    chat: Annotated[list[Any], add_messages]


SHOWN = [SystemMessage("rules"), HumanMessage("only this")]


def test_the_scorer_is_given_the_whole_conversation_by_default() -> None:
    scorer = ByArgument()
    builder, _ = simple([act(1), say(1)], enforced(threshold=0.0), scorer)
    final = run(builder.compile())
    assert list(scorer.steps[0].history) == final["messages"][:1]
    assert list(scorer.steps[1].history) == final["messages"][:3]
    assert [step.candidates[0].id for step in scorer.steps] == [final["messages"][1].id, final["messages"][3].id]


@pytest.mark.parametrize("how", ["sync", "async"])
def test_the_scorer_is_given_exactly_the_history_that_is_named(how: How) -> None:
    scorer = ByArgument()
    builder, _ = simple([act(1), say(1)], enforced(threshold=0.0), scorer, history=lambda state: SHOWN)
    run(builder.compile(), how=how)
    assert [list(step.history) for step in scorer.steps] == [SHOWN, SHOWN]


def test_a_node_that_changes_its_state_does_not_change_what_is_scored() -> None:
    def agent(state: GuardState) -> Any:
        state["messages"].insert(0, SystemMessage("junk"))
        state["pa"].append({"junk": True})
        return {"messages": [say(-1 - len(scorer.steps))]}

    scorer = ByArgument()
    final = run(build(Guard(scorer, enforced(threshold=0.0, draws=3)), agent, World()).compile())
    assert [[message.text for message in step.history] for step in scorer.steps] == [["go"]] * 3
    assert texts(final["messages"])[:1] == ["human:go"]
    assert len(final["pa"]) == 1


def other() -> Any:
    @tool
    def look(x: float) -> str:
        """Look."""
        return "seen"

    return look


@pytest.mark.parametrize("place", ["hand", "install"])
def test_the_tools_are_those_of_the_tool_node_unless_given(place: Place) -> None:
    for given in (None, [], [other()]):
        world, scorer = World(), ByArgument()
        guard = Guard(scorer, enforced(threshold=0.0), tools=given)
        run(build(guard, agent_node(Scripted(replies=[say(1)])), world, place=place).compile())
        assert list(scorer.steps[0].tools) == (world.tools if given is None else given)


def test_a_guard_is_not_placed_before_two_sets_of_tools() -> None:
    guard, world = Guard(ByArgument(), enforced(threshold=0.0)), World()
    guard.gate(ToolNode(world.tools))
    guard.gate(ToolNode(world.tools))
    with pytest.raises(GuardError, match="other tools"):
        guard.gate(ToolNode([other()]))
    given = Guard(ByArgument(), enforced(threshold=0.0), tools=world.tools)
    given.gate(ToolNode(world.tools))
    given.gate(ToolNode([other()]))


def test_the_conversation_is_told_by_its_thread() -> None:
    scorer = ByArgument()
    graph = build(Guard(scorer, enforced()), agent_node(Scripted(replies=[say(1)] * 4)), World()).compile(
        checkpointer=InMemorySaver()
    )
    for thread in ("a", "a", "b"):
        run(graph, config={"configurable": {"thread_id": thread}})
    run(build(Guard(scorer, enforced()), agent_node(Scripted(replies=[say(1)])), World()).compile())
    first, again, another, none = (step.conversation for step in scorer.steps)
    assert first == again != another
    assert first is not None
    assert first.startswith("a|")
    assert none is None


def test_two_agents_in_subgraphs_of_one_thread_are_two_conversations() -> None:
    scorer = ByArgument()
    parent: Any = StateGraph(GuardState)
    for name in ("one", "two"):
        guard = Guard(scorer, enforced())
        parent.add_node(name, build(guard, agent_node(Scripted(replies=[say(1)])), World()).compile())
    parent.add_edge(START, "one")
    parent.add_edge("one", "two")
    run(parent.compile(), config={"configurable": {"thread_id": "a"}})
    assert len({step.conversation for step in scorer.steps}) == 2


@pytest.mark.parametrize("select", ["first_pass", "best"])
def test_the_budget_of_a_run_ends_drawing_again_but_not_the_run(select: Any) -> None:
    rules = enforced(threshold=0.0, draws=3, draws_per_run=4, on_low="flag", select=select)
    builder, world = simple([act(-1)] * 3 + [act(-2), act(-3), say(1)], rules)
    records = run(builder.compile())["pa"]
    assert [len(record["candidates"]) for record in records] == [3, 1, 1, 1]
    assert [record["reason"] for record in records[:3]] == ["below_threshold", "budget_exhausted", "budget_exhausted"]
    assert world.ran == [-1.0, -2.0, -3.0]


@pytest.mark.parametrize("place", ["hand", "install"])
@pytest.mark.parametrize("how", ["sync", "async"])
def test_shadow_mode_records_what_it_would_have_decided_and_changes_nothing(how: How, place: Place) -> None:
    replies = [act(-1, 2, text="x"), act(1), AIMessage("")]
    world, model = World(), Scripted(replies=replies)
    rules = enforced(threshold=0.0, draws=3, on_low="block", mode="shadow")
    final = run(build(Guard(ByArgument(), rules), agent_node(model), world, place=place).compile(), how=how)
    assert sorted(world.ran) == [-1.0, 1.0, 2.0]
    said = [message for message in final["messages"] if isinstance(message, AIMessage)]
    assert [(m.content, m.tool_calls, m.response_metadata) for m in said] == [
        (m.content, m.tool_calls, {}) for m in replies
    ]
    assert [(record["decision"], record["mode"]) for record in final["pa"]] == [
        ("block", "shadow"), ("pass", "shadow"), ("abstain", "shadow"),
    ]  # fmt: skip
    assert [record["id"] for record in final["pa"]] == [message.id for message in said]


def test_without_a_threshold_everything_runs_and_is_scored() -> None:
    builder, world = simple([act(-99), say(-99)], enforced())
    records = run(builder.compile())["pa"]
    assert world.ran == [-99.0]
    assert [(r["decision"], r["reason"], r["score"], r["threshold"]) for r in records] == [
        ("pass", "no_threshold", -99.0, None)
    ] * 2


def test_another_key_for_the_conversation_is_used_throughout() -> None:
    world = World()
    replies = iter([act(1, -1), say(-1)])
    guard = Guard(ByArgument(), enforced(threshold=0.0, on_low="block"), messages_key="chat")
    tools = ToolNode(world.tools, messages_key="chat")
    builder = build(guard, lambda state: {"chat": [next(replies)]}, world, state=Chat, tools=tools)
    final = run(builder.compile(), {"chat": [("user", "go")], "messages": []})
    assert world.ran == [1.0]
    assert texts(final["chat"])[-1] == f"ai:{enforced().abstain_message}"
    assert final["messages"] == []
