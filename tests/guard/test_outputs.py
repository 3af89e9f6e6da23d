"""Whatever a node returns is scored, or refused; it never slips past."""

from __future__ import annotations

import operator
from typing import Annotated, Any, Literal

import pytest
from guard.agents import ByArgument, How, World, act, build, enforced, one_node, run, say
from langchain_core.messages import AIMessage, AIMessageChunk, AnyMessage, HumanMessage, RemoveMessage
from langgraph.graph import START, StateGraph
from langgraph.graph.message import REMOVE_ALL_MESSAGES, add_messages
from langgraph.prebuilt import ToolNode
from langgraph.types import Command, Overwrite, Send
from pydantic import BaseModel

from pa_middleware import Guard, GuardError, GuardState, Rules


class Extended(GuardState):
    extra: Annotated[list[str], operator.add]


CALL: Any = {"name": "act", "args": {"x": 1}, "id": "c1"}
OPENAI = {"id": "c1", "type": "function", "function": {"name": "act", "arguments": '{"x": 1}'}}

RIGHT: dict[str, Any] = {
    "message": {"messages": act(1)},
    "list": {"messages": [act(1)]},
    "tuple": {"messages": (act(1),)},
    "role dict": {"messages": [{"role": "assistant", "content": "", "tool_calls": [OPENAI]}]},
    "chunk": {"messages": [AIMessageChunk(content="", tool_calls=[CALL])]},
    "beside a human message": {"messages": [HumanMessage("x"), act(1)], "extra": ["x"]},
    "beside a removal": {"messages": [RemoveMessage(id=REMOVE_ALL_MESSAGES), HumanMessage("again"), act(1)]},
    "Command": Command(update={"messages": [act(1)], "extra": ["x"]}),
    "Command that goes": Command(update={"messages": [act(1)]}, goto="tools"),
    "list of dict and Command": [{"extra": ["x"]}, Command(update={"messages": [act(1)]})],
    "list of Commands": [Command(update={"extra": ["x"]}), Command(update={"messages": act(1)})],
}


@pytest.mark.parametrize("how", ["sync", "async"])
@pytest.mark.parametrize("low", [False, True])
@pytest.mark.parametrize("name", RIGHT)
def test_outputs_that_langgraph_takes_are_scored_and_kept(name: str, low: bool, how: How) -> None:
    world, scorer = World(), ByArgument()
    outputs = iter([RIGHT[name], {"messages": [say(9)]}])
    guard = Guard(scorer, enforced(threshold=5.0 if low else 0.0))
    builder = build(guard, lambda state: next(outputs), world, state=Extended)
    final = run(builder.compile(), {"messages": [HumanMessage("go")], "extra": []}, how=how)
    assert scorer.steps[0].candidates[0].tool_calls[0]["args"] == {"x": 1}
    if low:
        assert world.ran == []
        assert final["extra"] == [], "nothing else of a rejected draw is kept"
        assert [record["decision"] for record in final["pa"]] == ["abstain"]
        return
    expected = 2 if name == "Command that goes" else 1  # the command and the route both lead to the tools
    assert len(world.ran) in (1, expected)
    assert final["extra"] == (["x"] if "extra" in repr(RIGHT[name]) else [])
    assert [record["decision"] for record in final["pa"]] == ["pass", "pass"]
    assert type(final["messages"][-1]) is AIMessage


class State(BaseModel):
    messages: Annotated[list[AnyMessage], add_messages] = []
    pa: Annotated[list[dict[str, Any]], operator.add] = []


WRONG: dict[str, Any] = {
    "nothing": None,
    "no message": {},
    "no action": {"messages": [HumanMessage("x")]},
    "two actions": {"messages": [act(1), act(1)]},
    "two actions in two parts": [{"messages": [act(1)]}, Command(update={"messages": [act(1)]})],
    "a bare action": act(1),
    "pydantic state": State(messages=[act(1)]),
    "text": "act",
    "bare Send": Send("tools", {"messages": [act(1)]}),
    "list with a Send": [{"messages": [say(1)]}, Send("tools", {"messages": [act(1)]})],
    "Command of pairs": Command(update=[("messages", [act(1)])]),
    "Overwrite": {"messages": Overwrite([act(1)])},
    "no messages": {"messages": [1, 2]},
    "None for messages": {"messages": None},
    "a coroutine's like": object(),
    "a generator": (message for message in [act(1)]),
}


@pytest.mark.parametrize("rules", [enforced(threshold=0.0), enforced(threshold=0.0, on_low="flag")])
@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_hold_one_new_action_is_an_error_and_nothing_runs(name: str, rules: Rules) -> None:
    world, scorer = World(), ByArgument()
    graph = build(Guard(scorer, rules), lambda state: WRONG[name], world).compile()
    with pytest.raises(GuardError, match="the guarded node returned"):
        run(graph)
    assert (world.ran, scorer.steps) == ([], [])


def test_the_tuple_form_of_a_message_is_scored() -> None:
    graph = build(Guard(ByArgument(), enforced(threshold=0.0)), lambda state: {"messages": ("ai", "x #-1")}, World())
    assert run(graph.compile())["pa"][0]["decision"] == "abstain"


def test_messages_already_in_state_are_no_proposals() -> None:
    def agent(state: GuardState) -> Any:
        return {"messages": [*state["messages"], act(1) if len(state["messages"]) < 4 else say(1)]}

    world = World()
    given = {"messages": [HumanMessage("a", id="a"), AIMessage("b", id="b"), HumanMessage("c", id="c")]}
    final = run(build(Guard(ByArgument(), enforced(threshold=0.0)), agent, world).compile(), given)
    assert world.ran == [1.0]
    assert len(final["pa"]) == 2


def test_a_message_in_state_cannot_be_rewritten_into_an_action() -> None:
    def agent(state: GuardState) -> Any:
        return {"messages": [AIMessage("", id="b", tool_calls=[CALL])]}

    world = World()
    graph = build(Guard(ByArgument(), enforced(threshold=0.0)), agent, world).compile()
    with pytest.raises(GuardError, match="0 new AIMessages"):
        run(graph, {"messages": [AIMessage("b", id="b")]})
    assert world.ran == []


@pytest.mark.parametrize("low", [False, True])
def test_a_command_to_the_parent_carries_its_record_there(low: bool) -> None:
    guard, world = Guard(ByArgument(), enforced(threshold=0.0)), World()
    reply = act(-1 if low else 1)

    def agent(state: GuardState) -> Any:
        return Command(graph=Command.PARENT, update={"messages": [reply]}, goto="tools")

    child = one_node(guard.node(agent))
    parent: Any = StateGraph(GuardState)
    parent.add_node("child", child)
    parent.add_node("tools", guard.gate(ToolNode(world.tools)))
    parent.add_edge(START, "child")
    final = run(parent.compile())
    assert world.ran == ([] if low else [1.0])
    assert [record["decision"] for record in final["pa"]] == ["abstain" if low else "pass"]


@pytest.mark.parametrize("how", ["sync", "async"])
@pytest.mark.parametrize("low", [False, True])
def test_a_node_that_commands_where_to_go_ends_the_run_if_it_abstains(low: bool, how: How) -> None:
    world = World()
    guard = Guard(ByArgument(), enforced(threshold=0.0))

    def agent(state: GuardState) -> Command[Literal["tools"]]:
        return Command(update={"messages": [act(-1 if low else 1)]}, goto="tools")

    final = run(one_node(guard.node(agent), then=guard.gate(ToolNode(world.tools))), how=how)
    assert world.ran == ([] if low else [1.0])
    assert final["messages"][-1].type == ("ai" if low else "tool")
