"""The checkpointer of one draw: it shows what the thread holds, keeps what it is told, and passes it on unchanged."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import pytest
from guard.agents import How
from langgraph.checkpoint.base import BaseCheckpointSaver, CheckpointTuple
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Command, interrupt

from pa_middleware.guard.unsettled import Unsettled

CONFIG: Any = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}
HOWS = pytest.mark.parametrize("how", ["sync", "async"])


def graph(saver: BaseCheckpointSaver[Any]) -> Any:
    """Says something, asks, and says what it is told."""
    builder: Any = StateGraph(MessagesState)
    builder.add_node("says", lambda state: {"messages": [("ai", "hello")]})
    builder.add_node("asks", lambda state: {"messages": [("ai", interrupt("what?"))]})
    builder.add_edge(START, "says")
    builder.add_edge("says", "asks")
    return builder.compile(checkpointer=saver)


def run(saver: BaseCheckpointSaver[Any], value: Any, how: How) -> Any:
    value = {"messages": [("user", value)]} if isinstance(value, str) else value
    if how == "sync":
        return graph(saver).invoke(value, CONFIG, durability="sync")
    return asyncio.run(graph(saver).ainvoke(value, CONFIG, durability="sync"))


def settle(unsettled: Unsettled, how: How) -> None:
    if how == "sync":
        unsettled.settle()
    else:
        asyncio.run(unsettled.asettle())


def told(found: CheckpointTuple) -> Any:
    """A checkpoint without what is new in every run."""
    values = {
        name: [message.content for message in value] if name == "messages" else value
        for name, value in found.checkpoint["channel_values"].items()
    }
    writes = [channel for _, channel, _ in found.pending_writes or ()]
    return found.metadata.get("step"), found.metadata.get("source"), values, writes, found.parent_config is not None


def listed(saver: BaseCheckpointSaver[Any], how: How, **settings: Any) -> list[CheckpointTuple]:
    async def collect() -> list[CheckpointTuple]:
        return [each async for each in saver.alist(CONFIG, **settings)]

    return list(saver.list(CONFIG, **settings)) if how == "sync" else asyncio.run(collect())


@HOWS
@pytest.mark.parametrize("settled_while_it_waits", [True, False])
def test_what_is_passed_on_is_what_a_graph_would_have_stored_by_itself(settled_while_it_waits: bool, how: How) -> None:
    plain, thread = InMemorySaver(), InMemorySaver()
    unsettled = Unsettled(thread)
    for saver in (plain, unsettled):
        run(saver, "go", how)
    assert listed(thread, how) == []
    if settled_while_it_waits:
        settle(unsettled, how)
        unsettled = Unsettled(thread)
    for saver in (plain, unsettled):
        final = run(saver, Command(resume="told"), how)
        assert final["messages"][-1].content == "told"
    settle(unsettled, how)
    assert [told(each) for each in listed(thread, how)] == [told(each) for each in listed(plain, how)]


@HOWS
def test_what_the_thread_holds_is_seen_and_left_alone(how: How) -> None:
    thread = InMemorySaver()
    run(thread, "go", how)
    before = repr(listed(thread, how))
    unsettled = Unsettled(thread)
    assert [told(each) for each in listed(unsettled, how)] == [told(each) for each in listed(thread, how)]
    run(unsettled, Command(resume="told"), how)
    assert repr(listed(thread, how)) == before
    (latest, *earlier) = listed(unsettled, how)
    assert [message.content for message in latest.checkpoint["channel_values"]["messages"]] == ["go", "hello", "told"]
    assert [each.checkpoint["id"] for each in earlier] == [each.checkpoint["id"] for each in listed(thread, how)]
    assert listed(unsettled, how, limit=2) == [latest, earlier[0]]
    assert listed(unsettled, how, before=earlier[0].config) == earlier[1:]
    assert [each.metadata.get("source") for each in listed(unsettled, how, filter={"source": "input"})] == ["input"]


def test_writes_that_follow_on_a_checkpoint_of_the_thread_join_its_own() -> None:
    thread = InMemorySaver()
    run(thread, "go", "sync")
    unsettled = Unsettled(thread)
    waiting = unsettled.get_tuple(CONFIG)
    assert waiting is not None
    unsettled.put_writes(waiting.config, [("messages", ["more"])], "another task", "~path")
    after = unsettled.get_tuple(waiting.config)
    assert after is not None
    assert after.pending_writes == [*(waiting.pending_writes or ()), ("another task", "messages", ["more"])]


def test_the_latest_is_the_threads_where_an_earlier_one_was_asked_for_before() -> None:
    thread = InMemorySaver()
    run(thread, "go", "sync")
    latest, *_, oldest = listed(thread, "sync")
    unsettled = Unsettled(thread)
    for asked, expected in ((oldest.config, oldest), (CONFIG, latest)):
        found = unsettled.get_tuple(asked)
        assert found is not None
        assert found.checkpoint == expected.checkpoint
    assert unsettled.get_tuple({"configurable": {"thread_id": "another"}}) is None


@HOWS
def test_the_history_of_a_channel_goes_back_into_the_thread(how: How) -> None:
    thread = InMemorySaver()
    run(thread, "go", how)
    unsettled = Unsettled(thread)
    run(unsettled, Command(resume="told"), how)
    plain = InMemorySaver()
    run(plain, "go", how)
    run(plain, Command(resume="told"), how)

    def history(saver: BaseCheckpointSaver[Any]) -> Any:
        asked: dict[str, Any] = {"config": CONFIG, "channels": ["branch:to:asks", "none"]}
        if how == "sync":
            found = saver.get_delta_channel_history(**asked)
        else:
            found = asyncio.run(saver.aget_delta_channel_history(**asked))
        return {name: [channel for _, channel, _ in entry["writes"]] for name, entry in found.items()}

    assert history(unsettled) == history(plain)


def test_a_checkpointer_that_knows_no_paths_of_tasks_is_given_none() -> None:
    class Old(InMemorySaver):
        def put_writes(self, config: Any, writes: Any, task_id: str) -> None:  # type: ignore[override]
            super().put_writes(config, writes, task_id)

        async def aput_writes(self, config: Any, writes: Any, task_id: str) -> None:  # type: ignore[override]
            self.put_writes(config, writes, task_id)

    for how in ("sync", "async"):
        thread = Old()
        unsettled = Unsettled(thread)
        run(unsettled, "go", how)
        settle(unsettled, how)
        assert listed(thread, "sync")[0].pending_writes


@dataclass
class Own:
    value: int


def test_types_that_a_graph_allows_are_read_here_as_in_the_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LANGGRAPH_STRICT_MSGPACK", "true")
    unsettled = Unsettled(InMemorySaver(serde=JsonPlusSerializer(allowed_msgpack_modules=None)))
    allowing = unsettled.with_allowlist({(__name__, "Own")})
    checkpoint: Any = {
        "v": 1, "id": "1", "ts": "", "channel_values": {"own": Own(1)}, "channel_versions": {"own": 1},
        "versions_seen": {}, "updated_channels": None,
    }  # fmt: skip
    allowing.put(CONFIG, checkpoint, {}, {"own": 1})
    found = allowing.get_tuple(CONFIG)
    assert found is not None
    assert found.checkpoint["channel_values"] == {"own": Own(1)}
    assert unsettled.get_next_version(None, None).startswith("0" * 31 + "1")
