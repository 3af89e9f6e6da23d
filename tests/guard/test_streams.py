"""Rejected draws reach no stream; the accepted one arrives, once."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from guard.agents import ByArgument, How, Place, Scripted, World, act, agent_node, build, enforced, say
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.runnables import RunnableConfig, RunnableLambda
from langgraph.config import get_stream_writer
from langgraph.constants import TAG_NOSTREAM
from langgraph.graph import START, StateGraph
from langgraph.graph.message import MessagesState
from langgraph.prebuilt import ToolNode, tools_condition
from langgraph.runtime import Runtime
from langgraph.types import StreamWriter

from pa_middleware import Guard, GuardState

MODES = ["messages", "updates", "values", "custom"]
RULES = enforced(threshold=0.0, draws=4)
SECRET = "rejected"


def script() -> list[AIMessage]:
    """Two rejected draws, a call, two rejected answers, an answer."""
    low = [act(-1, text=f"{SECRET} one"), act(-2, text=f"{SECRET} two")]
    return [*low, act(1, text="accepted call"), say(-3, SECRET), say(-4, SECRET), say(1, "accepted answer")]


def stream(graph: Any, how: How, **settings: Any) -> list[Any]:
    given = {"messages": [HumanMessage("go")]}

    async def collect() -> list[Any]:
        return [event async for event in graph.astream(given, **settings)]

    return list(graph.stream(given, **settings)) if how == "sync" else asyncio.run(collect())


def node(model: Scripted, kind: str) -> Any:
    def streams(state: GuardState) -> dict[str, Any]:
        whole: Any = None
        for chunk in model.stream(state["messages"]):
            whole = chunk if whole is None else whole + chunk
        return {"messages": [whole]}

    async def astreams(state: GuardState) -> dict[str, Any]:
        whole: Any = None
        async for chunk in model.astream(state["messages"]):
            whole = chunk if whole is None else whole + chunk
        return {"messages": [whole]}

    def agent(state: GuardState) -> dict[str, Any]:
        return {"messages": [model.invoke(state["messages"])]}

    def passes_config(state: GuardState, config: RunnableConfig) -> dict[str, Any]:
        return {"messages": [model.invoke(state["messages"], config)]}

    def mutates(state: GuardState) -> dict[str, Any]:
        reply = model.invoke(state["messages"])
        state["messages"].append(reply)
        return {"messages": reply}

    def builds_its_own(state: GuardState) -> dict[str, Any]:
        reply = model.invoke(state["messages"])
        return {"messages": [AIMessage(reply.content, tool_calls=reply.tool_calls)]}

    chain = agent_node(model, "runnable")
    return {
        "invoke": agent,
        "coroutine": agent_node(model, "function", "async"),
        "stream": streams,
        "astream": astreams,
        "config": passes_config,
        "mutates": mutates,
        "own message": builds_its_own,
        "chain": chain,
        "named like the node": RunnableLambda(agent),
        "steps named like the node": chain | RunnableLambda(lambda update: update, name="agent"),
    }[kind]


SYNC = [
    "invoke",
    "stream",
    "config",
    "mutates",
    "own message",
    "chain",
    "named like the node",
    "steps named like the node",
]
NODES = [("sync", kind) for kind in SYNC] + [("async", kind) for kind in (*SYNC, "coroutine", "astream")]


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("place", ["hand", "install"])
@pytest.mark.parametrize(("how", "kind"), NODES)
def test_only_accepted_messages_are_streamed_and_each_once(how: How, kind: str, place: Place, version: str) -> None:
    model = Scripted(replies=script())
    graph = build(Guard(ByArgument(), RULES), node(model, kind), World(), place=place).compile()
    events = stream(graph, how, stream_mode=MODES, version=version)
    if version == "v2":
        events = [(event["type"], event["data"]) for event in events]
    assert len(model.asked) == 6
    assert all(
        SECRET not in repr(data["agent"]["messages"]) for mode, data in events if mode == "updates" and "agent" in data
    )
    assert all(SECRET not in repr(data["messages"]) for mode, data in events if mode == "values")
    seen: list[BaseMessage] = [data[0] for mode, data in events if mode == "messages"]
    assert [message.text for message in seen] == ["accepted call", "did 1.0", "accepted answer #1"]
    final = [data for mode, data in events if mode == "values"][-1]
    assert [message.id for message in final["messages"][1:]] == [message.id for message in seen]
    assert [len(asked) for asked in model.asked] == [1, 1, 1, 3, 3, 3], "each draw sees the state as it was"


@pytest.mark.parametrize("how", ["sync", "async"])
def test_an_abstention_is_streamed_and_what_it_replaces_is_not(how: How) -> None:
    model = Scripted(replies=script())
    graph = build(Guard(ByArgument(), enforced(threshold=9.0, draws=4)), node(model, "invoke"), World()).compile()
    events = stream(graph, how, stream_mode=["messages"])
    assert [data[0].text for _, data in events] == [enforced().abstain_message]


def writers(model: Scripted, kind: str) -> Any:
    def ambient(state: GuardState) -> dict[str, Any]:
        reply = model.invoke(state["messages"])
        get_stream_writer()(reply.text)
        return {"messages": [reply]}

    def injected(state: GuardState, writer: StreamWriter) -> dict[str, Any]:
        reply = model.invoke(state["messages"])
        writer(reply.text)
        return {"messages": [reply]}

    def runtime_(state: GuardState, runtime: Runtime[Any]) -> dict[str, Any]:
        reply = model.invoke(state["messages"])
        runtime.stream_writer(reply.text)
        return {"messages": [reply]}

    async def coroutine(state: GuardState, writer: StreamWriter) -> dict[str, Any]:
        reply = await model.ainvoke(state["messages"])
        writer(reply.text)
        return {"messages": [reply]}

    nodes: dict[str, Any] = {"ambient": ambient, "writer": injected, "runtime": runtime_, "coroutine": coroutine}
    return RunnableLambda(ambient) if kind == "runnable" else nodes[kind]


@pytest.mark.parametrize("place", ["hand", "install"])
@pytest.mark.parametrize(
    ("how", "kind"),
    [(how, kind) for how in ("sync", "async") for kind in ("ambient", "writer", "runtime", "runnable")]
    + [("async", "coroutine")],
)
def test_custom_events_of_the_accepted_draw_arrive_and_no_others(how: How, kind: str, place: Place) -> None:
    model = Scripted(replies=script())
    graph = build(Guard(ByArgument(), RULES), writers(model, kind), World(), place=place).compile()
    events = stream(graph, how, stream_mode="custom")
    assert events == ["accepted call", "accepted answer #1"]


@pytest.mark.parametrize("how", ["sync", "async"])
def test_a_graph_as_the_node_streams_its_accepted_run_only(how: How) -> None:
    model = Scripted(replies=script())
    inner: Any = StateGraph(MessagesState)
    inner.add_node("think", writers(model, "ambient"))
    inner.add_edge(START, "think")
    graph = build(Guard(ByArgument(), RULES), inner.compile(), World()).compile()
    events = stream(graph, how, stream_mode=MODES, subgraphs=True)
    for namespace, mode, data in events:
        said = data.get("agent", {}).get("messages", ()) if mode == "updates" and not namespace else data
        if not (mode == "values" and not namespace):
            assert SECRET not in repr(said)
    inside = [(mode, data) for namespace, mode, data in events if namespace and mode in ("updates", "custom")]
    assert [mode for mode, _ in inside] == ["custom", "updates"] * 2
    assert inside[0][1] == "accepted call"


def test_shadow_mode_streams_token_by_token_as_the_agent_does_without_a_guard() -> None:
    def tokens(guarded: bool) -> list[str]:
        model = Scripted(replies=[act(-1, text="word by word"), say(-1, "two words")])
        guard = Guard(ByArgument(), enforced(threshold=0.0, mode="shadow"))
        builder: Any = build(guard, node(model, "invoke"), World()) if guarded else plain(model)
        return [message.text for message, _ in stream(builder.compile(), "sync", stream_mode="messages")]

    assert tokens(guarded=True) == tokens(guarded=False)
    assert len(tokens(guarded=True)) > 5


def plain(model: Scripted) -> Any:
    builder: Any = StateGraph(MessagesState)
    builder.add_node("agent", node(model, "invoke"))
    builder.add_node("tools", ToolNode(World().tools))
    builder.add_edge(START, "agent")
    builder.add_conditional_edges("agent", tools_condition)
    builder.add_edge("tools", "agent")
    return builder


@pytest.mark.filterwarnings("ignore:The v3 streaming protocol")
@pytest.mark.parametrize("kind", ["invoke", "stream"])
@pytest.mark.parametrize("how", ["sync", "async"])
def test_rejected_draws_reach_no_event_of_the_v3_protocol(how: How, kind: str) -> None:
    graph: Any = build(Guard(ByArgument(), RULES), node(Scripted(replies=script()), kind), World()).compile()
    given = {"messages": [HumanMessage("go")]}

    async def collect() -> list[Any]:
        return [event async for event in await graph.astream_events(given, version="v3")]

    events = repr(list(graph.stream_events(given, version="v3")) if how == "sync" else asyncio.run(collect()))
    assert SECRET not in events
    assert "accepted answer" in events


@pytest.mark.parametrize("kind", ["invoke", "stream"])
def test_among_callback_events_which_show_every_model_call_rejected_draws_are_tagged(kind: str) -> None:
    graph: Any = build(Guard(ByArgument(), RULES), node(Scripted(replies=script()), kind), World()).compile()

    async def collect() -> list[Any]:
        return [event async for event in graph.astream_events({"messages": [HumanMessage("go")]}, version="v2")]

    told = [event for event in asyncio.run(collect()) if SECRET in repr(event["data"].get("output", ""))]
    rejected = [event for event in told if event["event"] == "on_chat_model_end"]
    assert len(rejected) == 4
    assert all(TAG_NOSTREAM in event["tags"] for event in rejected)
