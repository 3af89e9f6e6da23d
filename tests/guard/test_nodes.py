"""What can be a node: functions and objects of any kind, over states of any kind; and what cannot."""

from __future__ import annotations

import functools
import operator
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any

import pytest
from guard.agents import ByArgument, World, act, build, enforced, run, say
from guard.test_outputs import State
from langchain_core.messages import AnyMessage, HumanMessage
from langgraph.graph.message import add_messages
from pydantic import BaseModel, ConfigDict, Field

from pa_middleware import Guard, GuardError, GuardState


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
    guard = Guard(ByArgument(), enforced(threshold=0.0))
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
    run(build(Guard(ByArgument(), enforced(threshold=0.0)), node, world).compile(), how="async")
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

    guard = Guard(ByArgument(), enforced(threshold=-4.0, draws=2, on_low="block"))
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
        run(build(Guard(ByArgument(), enforced(threshold=0.0)), agent, World()).compile())


@pytest.mark.parametrize(("score", "text"), [(1, "done #1"), (-1, enforced().abstain_message)])
def test_a_guarded_node_can_be_called_outside_a_graph(score: float, text: str) -> None:
    node = Guard(ByArgument(), enforced(threshold=0.0)).node(lambda state: {"messages": [say(score)]})
    output = node({"messages": [HumanMessage("go")], "pa": []})
    assert output["messages"][0].text == text
    assert output["pa"][0]["id"] == output["messages"][0].id
