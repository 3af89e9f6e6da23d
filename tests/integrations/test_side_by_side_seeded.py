"""Best of several draws of a local model: a run is the same twice under one seed, however its draws are made."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from guard.agents import How
from langchain_core.messages import BaseMessage
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from pa_demos.taxi.agent import first_messages, shown
from pa_demos.taxi.environment import Taxi
from pa_demos.taxi.episode import shipped_pair
from pa_transformers import LocalChatModel

from pa_middleware import Guard, Rules

STEPS = 6
NEW = ("id", "anchor", "span", "digest")
BEST = Rules(draws=4, select="best")


@dataclass(frozen=True)
class Drive:
    """A few steps of a taxi."""

    said: list[Any]
    records: list[Any]
    """But for generated ids, spans and numbers."""
    numbers: list[float] = field(compare=False)
    """Scores and log-probs, in order; a prompt that the scorer still knows is rounded otherwise than a new one."""

    def __post_init__(self) -> None:
        assert len(self.records) == STEPS

    def is_again(self, other: Drive) -> bool:
        return self == other and self.numbers == pytest.approx(other.numbers, abs=1e-4)


def drive(seed: int, how: How, rules: Rules, **settings: Any) -> Drive:
    pair, taxi = shipped_pair(), Taxi(5)
    model: Any = LocalChatModel(model=pair.reference.model, tokenizer=pair.tokenizer, max_new_tokens=24, seed=seed)
    bound = model.bind_tools(taxi.tools())

    def agent(state: MessagesState) -> dict[str, Any]:
        return {"messages": [bound.invoke(shown(state))]}

    async def aagent(state: MessagesState) -> dict[str, Any]:
        return {"messages": [await bound.ainvoke(shown(state))]}

    def goes_on(state: MessagesState) -> str:
        return END if taxi.done or len(state["messages"]) > 2 * STEPS + 2 else "agent"

    builder: Any = StateGraph(MessagesState)
    builder.add_node("agent", agent if how == "sync" else aagent)
    builder.add_node("tools", ToolNode(taxi.tools()))
    builder.add_edge(START, "agent")
    builder.add_conditional_edges("agent", lambda state: "tools" if state["messages"][-1].tool_calls else END)
    builder.add_conditional_edges("tools", goes_on)
    guard = Guard(pair, rules, tools=taxi.tools(), history=shown, **settings)
    graph = guard.install(builder).compile()
    given = {"messages": first_messages(taxi)}
    final = graph.invoke(given) if how == "sync" else asyncio.run(graph.ainvoke(given))
    numbers: list[float] = []
    records = [_told(record, numbers) for record in final["pa"]]
    return Drive([_said(message) for message in final["messages"]], records, numbers)


def _said(message: BaseMessage) -> Any:
    calls: Sequence[Mapping[str, Any]] = getattr(message, "tool_calls", ())
    return message.type, message.text, [(call["name"], call["args"]) for call in calls]


def _told(value: Any, numbers: list[float]) -> Any:
    """A record without what is new in every run, and without its numbers, which are put aside."""
    if isinstance(value, float):
        numbers.append(value)
        return None
    if isinstance(value, list):
        return [_told(each, numbers) for each in value]
    if isinstance(value, dict):
        return {key: _told(each, numbers) for key, each in value.items() if key not in NEW}
    return value


@pytest.mark.parametrize(
    ("how", "settings"), [("sync", {}), ("sync", {"draws_at_once": 3}), ("async", {}), ("async", {"draws_at_once": 1})]
)
def test_two_runs_with_one_seed_are_equal_and_another_seed_drives_another_way(
    how: How, settings: dict[str, Any]
) -> None:
    first = drive(1, how, BEST, **settings)
    assert drive(1, how, BEST, **settings).is_again(first)
    assert drive(2, how, BEST, **settings) != first
    candidates = [record["candidates"] for record in first.records]
    assert [len(each) for each in candidates] == [4] * STEPS
    assert any(each["same_as"] is not None for step in candidates for each in step)


def test_it_makes_no_difference_to_the_draws_how_many_are_allowed_at_once() -> None:
    one = drive(3, "sync", BEST)
    assert drive(3, "sync", BEST, draws_at_once=2).is_again(one)
    assert drive(3, "async", BEST).is_again(one)


@pytest.mark.parametrize("how", ["sync", "async"])
def test_two_runs_that_stop_early_are_equal_under_one_seed(how: How) -> None:
    rules = Rules(draws=8, select="best", stop_at=0.2, drawn_by="reference")
    first = drive(4, how, rules)
    assert drive(4, how, rules).is_again(first)
    assert min(len(record["candidates"]) for record in first.records) < 8
