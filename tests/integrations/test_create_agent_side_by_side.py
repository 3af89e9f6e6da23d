"""Draws side by side in an agent of create_agent: the same as in a graph of one's own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest
from guard.agents import ByArgument, How, act, enforced, run, say
from guard.batching import Batching
from guard.meeting import Meeting
from integrations.agents import Agent, Model
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langgraph.checkpoint.memory import InMemorySaver
from pa_langchain import ProgressAdvantageMiddleware
from pydantic import PrivateAttr

from pa_middleware import GuardError

BEST = enforced(draws=3, select="best")
SECRET = "rejected"
MODES = ["values", "updates", "messages", "custom", "tasks", "debug"]


class Meets(Model):
    """A model whose calls wait for each other; `reply` makes the answer from the number of the call."""

    _meeting: Meeting = PrivateAttr()
    _reply: Callable[[int], AIMessage] = PrivateAttr()

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=self._reply(self._meeting.join()))])

    async def _agenerate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        number = await self._meeting.ajoin()
        return ChatResult(generations=[ChatGeneration(message=self._reply(number))])


class BatchingModel(Batching, Model):
    """A batching model that tools can be bound to."""


def agent(meeting: Meeting, reply: Callable[[int], AIMessage], **guard: Any) -> Agent:
    model = Meets(replies=[])
    model._meeting, model._reply = meeting, reply
    return Agent([], BEST, model=model, guard=guard)


def two_steps(number: int) -> AIMessage:
    """The second call and the third answer are the ones to take."""
    low = f"{SECRET} {number}"
    if number < 3:
        return act(1, text="accepted call") if number == 1 else act(-1, text=low)
    return say(1, "accepted answer") if number == 5 else say(-1, low)


@pytest.mark.parametrize(
    ("how", "guard", "meeting", "most"),
    [
        ("async", {}, Meeting(alone=1, groups=[2, 3]), 3),
        ("async", {"draws_at_once": 1}, Meeting(), 1),
        ("sync", {}, Meeting(), 1),
        ("sync", {"draws_at_once": 3}, Meeting(alone=1, groups=[2, 3]), 3),
    ],
)
def test_draws_are_made_side_by_side_where_they_are_in_a_graph(
    how: How, guard: dict[str, Any], meeting: Meeting, most: int
) -> None:
    before = set(threading.enumerate())
    made = agent(meeting, two_steps, **guard)
    final = run(made.graph, how=how)
    assert (meeting.begun, meeting.most) == (6, most)
    assert made.world.ran == [1.0]
    assert final["messages"][-1].text == "accepted answer #1"
    if how == "sync":
        assert set(threading.enumerate()) == before


@pytest.mark.parametrize("how", ["sync", "async"])
def test_rejected_draws_reach_no_stream(how: How) -> None:
    graph = agent(Meeting(alone=1, groups=[2, 3]), two_steps, draws_at_once=3).graph
    given = {"messages": [HumanMessage("go")]}

    async def collect() -> list[Any]:
        return [event async for event in graph.astream(given, stream_mode=MODES)]

    events = list(graph.stream(given, stream_mode=MODES)) if how == "sync" else asyncio.run(collect())
    assert SECRET not in repr(events)
    texts = [data[0].text for mode, data in events if mode == "messages"]
    assert texts == ["accepted call", "did 1.0", "accepted answer #1"]


@pytest.mark.parametrize("how", ["sync", "async"])
def test_a_draw_that_raises_raises_out_of_the_step(how: How) -> None:
    def reply(number: int) -> AIMessage:
        if number == 1:
            raise KeyError("the model is gone")
        return say(number)

    with pytest.raises(KeyError, match="the model is gone"):
        run(agent(Meeting(), reply, draws_at_once=2).graph, how=how)


@pytest.mark.parametrize("at_once", [None, 1, 2])
@pytest.mark.parametrize("how", ["sync", "async"])
def test_a_model_that_makes_all_in_one_call_is_asked_once_in_each_step(how: How, at_once: int | None) -> None:
    model = BatchingModel(replies=[act(1), act(3), act(2), say(1), say(2), say(3)])
    final = run(Agent([], BEST, model=model, guard={"draws_at_once": at_once}).graph, how=how)
    assert model.made == [3, 3]
    assert [message.text for message in final["messages"]] == ["go", "", "did 3.0", "done #3"]


@pytest.mark.parametrize("given", [0, True, "x"])
def test_what_is_no_count_of_draws_is_refused(given: Any) -> None:
    with pytest.raises(GuardError, match=r"draws_at_once is .*; allowed: a whole number from 1 on, or None"):
        ProgressAdvantageMiddleware(ByArgument(), BEST, draws_at_once=given)


@pytest.mark.parametrize("how", ["sync", "async"])
def test_equal_actions_of_a_step_are_scored_once(how: How) -> None:
    made = Agent([act(1), act(3), act(1), say(1), say(1), say(1)], BEST, checkpointer=InMemorySaver())
    config: Any = {"configurable": {"thread_id": "t"}}
    run(made.graph, config=config, how=how)
    records = made.graph.get_state(config).values["pa"]
    assert [len(step.candidates) for step in made.scorer.steps] == [2, 1]
    assert [[each["same_as"] for each in record["candidates"]] for record in records] == [[None, None, 0], [None, 0, 0]]
    assert made.world.ran == [3.0]
