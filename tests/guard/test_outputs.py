"""Whatever a node returns is scored, or refused; it never slips past."""

from __future__ import annotations

import functools
import operator
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import pytest
from langchain_core.messages import AIMessage, AIMessageChunk, AnyMessage, HumanMessage, RemoveMessage
from langgraph.graph import START, StateGraph
from langgraph.graph.message import REMOVE_ALL_MESSAGES, add_messages
from langgraph.prebuilt import ToolNode
from langgraph.types import Command, Overwrite, Send
from pydantic import BaseModel, ConfigDict, Field

from pa_middleware import Guard, GuardError, GuardState, Rules
from tests.guard.agents import ByArgument, How, World, act, build, one_node, run, say


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
    guard = Guard(scorer, Rules(threshold=5.0 if low else 0.0))
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


@pytest.mark.parametrize("rules", [Rules(threshold=0.0), Rules(mode="shadow"), Rules(threshold=0.0, on_low="flag")])
@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_hold_one_new_action_is_an_error_and_nothing_runs(name: str, rules: Rules) -> None:
    world, scorer = World(), ByArgument()
    graph = build(Guard(scorer, rules), lambda state: WRONG[name], world).compile()
    with pytest.raises(GuardError, match="the guarded node returned"):
        run(graph)
    assert (world.ran, scorer.steps) == ([], [])


def test_the_tuple_form_of_a_message_is_scored() -> None:
    graph = build(Guard(ByArgument(), Rules(threshold=0.0)), lambda state: {"messages": ("ai", "x #-1")}, World())
    assert run(graph.compile())["pa"][0]["decision"] == "abstain"


def test_messages_already_in_state_are_no_proposals() -> None:
    def agent(state: GuardState) -> Any:
        return {"messages": [*state["messages"], act(1) if len(state["messages"]) < 4 else say(1)]}

    world = World()
    given = {"messages": [HumanMessage("a", id="a"), AIMessage("b", id="b"), HumanMessage("c", id="c")]}
    final = run(build(Guard(ByArgument(), Rules(threshold=0.0)), agent, world).compile(), given)
    assert world.ran == [1.0]
    assert len(final["pa"]) == 2


def test_a_message_in_state_cannot_be_rewritten_into_an_action() -> None:
    def agent(state: GuardState) -> Any:
        return {"messages": [AIMessage("", id="b", tool_calls=[CALL])]}

    world = World()
    graph = build(Guard(ByArgument(), Rules(threshold=0.0)), agent, world).compile()
    with pytest.raises(GuardError, match="0 new AIMessages"):
        run(graph, {"messages": [AIMessage("b", id="b")]})
    assert world.ran == []


def generator(state: Any) -> Iterator[Any]:
    yield {"messages": [act(1)]}


async def async_generator(state: Any) -> AsyncIterator[Any]:
    yield {"messages": [act(1)]}


class CallableGenerator:
    def __call__(self, state: Any) -> Iterator[Any]:
        yield {"messages": [act(1)]}


@pytest.mark.parametrize(
    "node", [generator, async_generator, CallableGenerator(), functools.partial(generator), 1, "agent", None]
)
def test_generators_and_what_cannot_be_called_are_refused(node: Any) -> None:
    guard = Guard(ByArgument(), Rules(threshold=0.0))
    for place in (guard.node, guard.gate):
        with pytest.raises(GuardError):
            place(node)


class Caller:
    def __call__(self, state: GuardState) -> dict[str, Any]:
        return {"messages": [act(1) if len(state["messages"]) == 1 else say(1)]}

    def method(self, state: GuardState) -> dict[str, Any]:
        return self(state)


class AsyncCaller(Caller):
    async def __call__(self, state: GuardState) -> dict[str, Any]:  # type: ignore[override]
        return super().__call__(state)


@pytest.mark.parametrize("node", [Caller(), Caller().method, functools.partial(Caller().method), AsyncCaller()])
def test_callables_of_any_kind_are_nodes(node: Any) -> None:
    world = World()
    run(build(Guard(ByArgument(), Rules(threshold=0.0)), node, world).compile(), how="async")
    assert world.ran == [1.0]


@dataclass
class Plain:
    messages: Annotated[list[AnyMessage], add_messages] = field(default_factory=list)
    pa: Annotated[list[dict[str, Any]], operator.add] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Frozen:
    messages: Annotated[list[AnyMessage], add_messages] = field(default_factory=list)
    pa: Annotated[list[dict[str, Any]], operator.add] = field(default_factory=list)


class FrozenModel(BaseModel):
    model_config = ConfigDict(frozen=True)
    messages: Annotated[list[AnyMessage], add_messages] = Field(default_factory=list)
    pa: Annotated[list[dict[str, Any]], operator.add] = Field(default_factory=list)


@pytest.mark.parametrize("state", [Plain, Frozen, State, FrozenModel])
def test_states_that_are_objects_are_guarded_too(state: Any) -> None:
    world = World()
    replies = iter([act(-1), act(1, -9), say(1)])

    def agent(state: Any) -> Any:
        state.messages.append(HumanMessage("junk"))
        return {"messages": [next(replies)]}

    guard = Guard(ByArgument(), Rules(threshold=-4.0, draws=2, on_low="block"))
    final = run(build(guard, agent, world, state=state).compile())
    assert world.ran == [-1.0]
    assert len(final["messages"]) == 4
    world.ran.clear()
    replies = iter([act(-9), act(1, -9), say(1)])
    final = run(build(guard, agent, world, state=state).compile())
    assert world.ran == [1.0]
    assert [message.status for message in final["messages"] if message.type == "tool"] == ["success", "error"]


@dataclass
class Narrow:
    messages: Annotated[list[AnyMessage], add_messages]


def test_a_node_that_insists_on_a_narrower_object_is_told_so() -> None:
    def agent(state: Narrow) -> Any:
        raise NotImplementedError

    with pytest.raises(GuardError, match="has no key 'pa'"):
        run(build(Guard(ByArgument(), Rules(threshold=0.0)), agent, World()).compile())


@pytest.mark.parametrize("low", [False, True])
def test_a_command_to_the_parent_carries_its_record_there(low: bool) -> None:
    guard, world = Guard(ByArgument(), Rules(threshold=0.0)), World()
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
    guard = Guard(ByArgument(), Rules(threshold=0.0))

    def agent(state: GuardState) -> Command[Literal["tools"]]:
        return Command(update={"messages": [act(-1 if low else 1)]}, goto="tools")

    final = run(one_node(guard.node(agent), then=guard.gate(ToolNode(world.tools))), how=how)
    assert world.ran == ([] if low else [1.0])
    assert final["messages"][-1].type == ("ai" if low else "tool")
