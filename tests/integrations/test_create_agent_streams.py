"""Streams of an agent of LangChain's: rejected draws reach none, the accepted message arrives once; or live, marked."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from guard.agents import How, act, enforced, say
from integrations.agents import Agent, Changed
from langchain.agents.structured_output import ToolStrategy
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langgraph.config import get_stream_writer
from pydantic import BaseModel

MODES = ["messages", "updates", "values", "custom"]
SECRET = "rejected"
RULES = enforced(threshold=0.0, draws=4)
sync_and_async = pytest.mark.parametrize("how", ["sync", "async"])


def script() -> list[AIMessage]:
    """Two rejected draws, a call, two rejected answers, an answer."""
    low = [act(-1, text=f"{SECRET} one"), act(-2, text=f"{SECRET} two")]
    return [*low, act(1, text="accepted call"), say(-3, SECRET), say(-4, SECRET), say(1, "accepted answer")]


def stream(graph: Any, how: How, **settings: Any) -> list[Any]:
    given = {"messages": [HumanMessage("go")]}

    async def collect() -> list[Any]:
        return [event async for event in graph.astream(given, **settings)]

    return list(graph.stream(given, **settings)) if how == "sync" else asyncio.run(collect())


@pytest.mark.parametrize("version", ["v1", "v2"])
@sync_and_async
def test_only_accepted_messages_are_streamed_and_each_once(how: How, version: str) -> None:
    agent = Agent(script(), RULES)
    events = stream(agent.graph, how, stream_mode=MODES, version=version)
    if version == "v2":
        events = [(event["type"], event["data"]) for event in events]
    assert len(agent.model.asked) == 6
    assert SECRET not in repr([data for mode, data in events])
    seen: list[BaseMessage] = [data[0] for mode, data in events if mode == "messages"]
    assert [message.text for message in seen] == ["accepted call", "did 1.0", "accepted answer #1"]
    final = [data for mode, data in events if mode == "values"][-1]
    assert [message.id for message in final["messages"][1:]] == [message.id for message in seen]


@sync_and_async
def test_an_abstention_is_streamed_and_what_it_replaces_is_not(how: How) -> None:
    agent = Agent(script(), enforced(threshold=9.0, draws=4))
    events = stream(agent.graph, how, stream_mode="messages")
    assert [message.text for message, _ in events] == [enforced().abstain_message]


def speaks(request: Any) -> Any:
    request.runtime.stream_writer(f"injected {len(request.messages)}")
    get_stream_writer()(f"ambient {len(request.messages)}")
    return request


@sync_and_async
def test_custom_events_of_middleware_inside_arrive_for_the_accepted_draw_and_no_others(how: How) -> None:
    agent = Agent(script(), RULES, after=[Changed(speaks)])
    assert stream(agent.graph, how, stream_mode="custom") == ["injected 1", "ambient 1", "injected 3", "ambient 3"]


@sync_and_async
def test_a_structured_answer_is_streamed_once(how: How) -> None:
    class Found(BaseModel):
        """What was found."""

        x: float

    def found(x: float) -> AIMessage:
        return AIMessage("", tool_calls=[{"name": "Found", "args": {"x": x}, "id": f"f{x}"}])

    agent = Agent([found(-1.0), found(2.0)], RULES, response_format=ToolStrategy(Found))
    events = stream(agent.graph, how, stream_mode="messages")
    assert [message.type for message, _ in events] == ["ai", "tool"]
    assert [call["args"] for message, _ in events for call in getattr(message, "tool_calls", ())] == [{"x": 2.0}]


@sync_and_async
def test_live_every_draw_is_streamed_under_its_number_and_the_rejected_ones_are_retracted(how: How) -> None:
    agent = Agent(script(), RULES, guard={"stream": "live"})
    events = stream(agent.graph, how, stream_mode=["messages", "custom"])
    said: dict[str, str] = {}
    draws: dict[str, int] = {}
    for mode, data in events:
        if mode == "messages" and data[0].type != "tool":
            message, metadata = data
            said[message.id] = said.get(message.id, "") + message.text
            draws.setdefault(message.id, metadata["pa_draw"])
    assert list(draws.values()) == [0, 1, 2, 0, 1, 2]
    retracted = [data["pa_retracted"] for mode, data in events if mode == "custom"]
    assert retracted == [id_ for id_, text in said.items() if SECRET in text]
    assert len(retracted) == 4
    kept = [text for id_, text in said.items() if id_ not in retracted]
    assert kept == ["accepted call", "accepted answer #1"]


@sync_and_async
def test_live_an_abstention_retracts_all_it_stands_for(how: How) -> None:
    agent = Agent([act(-1), act(-2)], enforced(threshold=0.0, draws=2), guard={"stream": "live"})
    events = stream(agent.graph, how, stream_mode=["messages", "custom"])
    retracted = {data["pa_retracted"] for mode, data in events if mode == "custom"}
    left = [data[0].text for mode, data in events if mode == "messages" and data[0].id not in retracted]
    assert left == [RULES.abstain_message]


@sync_and_async
def test_live_a_draw_under_the_id_of_a_rejected_one_is_not_retracted_with_it(how: How) -> None:
    rules = enforced(threshold=0.0, draws=2)
    agent = Agent([act(-1), act(1), say(1)], rules, guard={"stream": "live"}, after=[Same()])
    events = stream(agent.graph, how, stream_mode=["custom", "updates"])
    [retracted] = [data["pa_retracted"] for mode, data in events if mode == "custom"]
    accepted = next(data["model"]["messages"][0] for mode, data in events if mode == "updates" and "model" in data)
    assert retracted != accepted.id


class Same(Changed):
    """Gives every answer the same id, as a cache of answers may."""

    def __init__(self) -> None:
        super().__init__(lambda request: request)

    def wrap_model_call(self, request: Any, handler: Any) -> Any:
        return _same(handler(request))

    async def awrap_model_call(self, request: Any, handler: Any) -> Any:
        return _same(await handler(request))


def _same(response: Any) -> Any:
    response.result = [message.model_copy(update={"id": "the same"}) for message in response.result]
    return response


def test_shadow_mode_streams_token_by_token_as_the_agent_does_without_a_guard() -> None:
    agent = Agent([act(-1, text="word by word"), say(-1, "two words")], enforced(threshold=0.0, mode="shadow"))
    tokens = [message.text for message, _ in stream(agent.graph, "sync", stream_mode="messages")]
    assert len(tokens) > 5


@sync_and_async
def test_events_of_langgraphs_newer_interface_hold_no_rejected_message(how: How) -> None:
    agent = Agent(script(), RULES)

    async def collect() -> list[Any]:
        return [event async for event in agent.graph.astream_events({"messages": [HumanMessage("go")]}, version="v2")]

    events = asyncio.run(collect())
    tagged = [event for event in events if SECRET in repr(event["data"]) and event["event"].startswith("on_chat_model")]
    assert tagged
    assert all("nostream" in event["tags"] for event in tagged), "it shows all that happens; its tags tell them apart"


@pytest.mark.filterwarnings("ignore:The v3 streaming protocol")
def test_rejected_draws_reach_no_event_of_the_v3_protocol() -> None:
    agent = Agent([say(-1, "rejected"), say(1, "accepted")], enforced(threshold=0.0, draws=2))
    events = repr(list(agent.graph.stream_events({"messages": [HumanMessage("go")]}, version="v3")))
    assert "rejected" not in events
    assert "accepted" in events
