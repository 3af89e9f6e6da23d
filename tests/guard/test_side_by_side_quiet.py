"""Draws side by side are each in a context of their own, and the rejected ones reach no stream."""

from __future__ import annotations

import asyncio
import itertools
import threading
from contextvars import ContextVar
from typing import Any
from uuid import UUID

import pytest
from guard.agents import ByArgument, How, Scripted, World, act, build, enforced, say
from guard.conftest import Backend
from guard.test_streams import node, stream
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langgraph.config import get_config, get_stream_writer
from langgraph.constants import TAG_NOSTREAM
from langgraph.graph import START, StateGraph
from langgraph.graph.message import MessagesState
from opentelemetry import trace
from pydantic import PrivateAttr

from pa_middleware import Guard, GuardState

MODES = ["values", "updates", "messages", "custom", "tasks", "debug"]
SECRET = "rejected"
BEST = enforced(draws=3, select="best")
WAYS: list[tuple[How, str, int]] = [
    ("sync", "invoke", 3),
    ("sync", "stream", 3),
    ("sync", "config", 2),
    ("sync", "chain", 3),
    ("async", "coroutine", 3),
    ("async", "astream", 2),
    ("async", "chain", 3),
    ("async", "named like the node", 3),
]


class Locked(Scripted):
    """Hands its answers to one thread at a time."""

    _lock: Any = PrivateAttr(default_factory=threading.Lock)

    def _next(self, messages: list[BaseMessage]) -> AIMessage:
        with self._lock:
            return super()._next(messages)


def script() -> list[AIMessage]:
    """Three draws of a call, three of an answer, one of each to be taken."""
    calls = [act(-1, text=f"{SECRET} one"), act(1, text="accepted call"), act(-2, text=f"{SECRET} two")]
    return [*calls, say(-3, SECRET), say(-4, SECRET), say(1, "accepted answer")]


@pytest.mark.parametrize("place", ["hand", "install"])
@pytest.mark.parametrize(("how", "kind", "at_once"), WAYS)
def test_only_accepted_messages_are_streamed_and_each_once(how: How, kind: str, at_once: int, place: Any) -> None:
    guard = Guard(ByArgument(), BEST, draws_at_once=at_once)
    graph = build(guard, node(Locked(replies=script()), kind), World(), place=place).compile()
    events = stream(graph, how, stream_mode=MODES)
    assert SECRET not in repr(events)
    assert {mode for mode, _ in events} == {*MODES} - {"custom"}
    seen: list[BaseMessage] = [data[0] for mode, data in events if mode == "messages"]
    assert [message.text for message in seen] == ["accepted call", "did 1.0", "accepted answer #1"]


@pytest.mark.parametrize("how", ["sync", "async"])
def test_what_the_accepted_draw_wrote_arrives_and_what_others_wrote_does_not(how: How) -> None:
    model = Locked(replies=script())

    def agent(state: GuardState) -> dict[str, Any]:
        reply = model.invoke(state["messages"])
        get_stream_writer()(reply.text)
        return {"messages": [reply]}

    async def aagent(state: GuardState) -> dict[str, Any]:
        reply = await model.ainvoke(state["messages"])
        get_stream_writer()(reply.text)
        return {"messages": [reply]}

    guard = Guard(ByArgument(), BEST, draws_at_once=3)
    graph = build(guard, agent if how == "sync" else aagent, World()).compile()
    assert stream(graph, how, stream_mode="custom") == ["accepted call", "accepted answer #1"]


@pytest.mark.parametrize("how", ["sync", "async"])
def test_a_graph_as_the_node_streams_its_accepted_run_only(how: How) -> None:
    model = Locked(replies=script())

    def think(state: MessagesState) -> dict[str, Any]:
        reply = model.invoke(state["messages"])
        get_stream_writer()(reply.text)
        return {"messages": [reply]}

    inner: Any = StateGraph(MessagesState)
    inner.add_node("think", think)
    inner.add_edge(START, "think")
    guard = Guard(ByArgument(), BEST, draws_at_once=3)
    events = stream(build(guard, inner.compile(), World()).compile(), how, stream_mode=MODES, subgraphs=True)
    assert SECRET not in repr(events)
    inside = [data for namespace, mode, data in events if namespace and mode == "custom"]
    assert inside == ["accepted call", "accepted answer #1"]


@pytest.mark.parametrize(
    ("how", "kind"), [("sync", "stream"), ("sync", "config"), ("async", "astream"), ("async", "chain")]
)
def test_live_every_draw_streams_under_its_own_number_and_the_rejected_are_retracted(how: How, kind: str) -> None:
    model = Locked(replies=[act(-1, text=f"{SECRET} one"), say(-3, SECRET), say(1, "accepted")])
    guard = Guard(ByArgument(), BEST, draws_at_once=3, stream="live")
    graph = build(guard, node(model, kind), World()).compile()
    said: dict[str, str] = {}
    draws: dict[str, set[int]] = {}
    retracted: list[str] = []
    for mode, event in stream(graph, how, stream_mode=["messages", "custom"]):
        if mode == "custom":
            retracted.append(event["pa_retracted"])
        else:
            message, metadata = event
            said[message.id] = said.get(message.id, "") + message.text
            draws.setdefault(message.id, set()).add(metadata.get("pa_draw", -1))
    assert sorted(map(tuple, draws.values())) == [(0,), (1,), (2,)]
    assert sorted(said[identifier] for identifier in retracted) == ["rejected #-3", "rejected one"]


HERE: ContextVar[int] = ContextVar("here", default=-1)


@pytest.mark.parametrize("how", ["sync", "async"])
def test_each_draw_has_a_context_of_its_own_beneath_the_step(how: How, backend: Backend) -> None:
    """All draws meet, so that each would see what another left in a context they shared."""
    numbers, lock = itertools.count(), threading.Lock()
    meet = threading.Barrier(3)
    found: list[tuple[Any, ...]] = []

    def look(number: int, before: int) -> None:
        config = get_config()
        span = trace.get_current_span().get_span_context().span_id
        found.append((before, HERE.get() == number, TAG_NOSTREAM in config["tags"], span))

    def enter() -> tuple[int, int]:
        with lock:
            number, before = next(numbers), HERE.get()
        HERE.set(number)
        return number, before

    def agent(state: GuardState) -> dict[str, Any]:
        number, before = enter()
        if number:
            meet.wait(30)
        look(number, before)
        HERE.set(-1)
        return {"messages": [say(number)]}

    async def main() -> None:
        ameet = asyncio.Barrier(3)

        async def aagent(state: GuardState) -> dict[str, Any]:
            number, before = enter()
            if number:
                async with asyncio.timeout(30):
                    await ameet.wait()
            look(number, before)
            HERE.set(-1)
            return {"messages": [say(number)]}

        await build(guard, aagent, World()).compile().ainvoke({"messages": [HumanMessage("go")]})

    guard = Guard(
        ByArgument(),
        enforced(draws=4, select="best"),
        draws_at_once=3,
        tracer_provider=backend.tracer_provider,
        meter_provider=backend.meter_provider,
        logger_provider=backend.logger_provider,
    )
    if how == "sync":
        build(guard, agent, World()).compile().invoke({"messages": [HumanMessage("go")]})
    else:
        asyncio.run(main())
    (span,) = {each[3] for each in found}
    assert span in {backend.id(each) for each in backend.spans()}
    assert [each[:3] for each in found] == [(-1, True, True)] * 4
    assert HERE.get() == -1


class Watching(BaseCallbackHandler):
    """Which run each model call was part of."""

    def __init__(self) -> None:
        self.nodes: list[UUID] = []
        self.calls: list[UUID | None] = []

    def on_chain_start(self, serialized: Any, inputs: Any, *, run_id: UUID, **kwargs: Any) -> None:
        if kwargs.get("name") == "agent":
            self.nodes.append(run_id)

    def on_chat_model_start(self, *args: Any, parent_run_id: UUID | None = None, **kwargs: Any) -> None:
        self.calls.append(parent_run_id)


@pytest.mark.parametrize("how", ["sync", "async"])
def test_the_model_calls_of_all_draws_are_told_to_callbacks_as_parts_of_the_node(how: How) -> None:
    watching = Watching()
    guard = Guard(ByArgument(), BEST, draws_at_once=3)
    model = Locked(replies=script())
    graph = build(guard, node(model, "invoke" if how == "sync" else "coroutine"), World()).compile()
    stream(graph, how, config={"callbacks": [watching]})
    first, second = watching.nodes
    assert watching.calls == [first] * 3 + [second] * 3
