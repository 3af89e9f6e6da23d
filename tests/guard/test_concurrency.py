"""Many conversations at once through one guard."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from guard.agents import ByArgument, World, act, build, enforced, say
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.config import get_stream_writer

from pa_middleware import Guard, GuardState

COUNT = 16
SCORES = [-1.0, -2.0, 1.0]


def node(asynchronous: bool) -> Any:
    drawn: dict[tuple[str, int], int] = {}

    def agent(state: GuardState) -> Any:
        who = state["messages"][0].text
        place = (who, len(state["messages"]))
        drawn[place] = drawn.get(place, -1) + 1
        score = SCORES[drawn[place]]
        get_stream_writer()(f"{who} {score}")
        reply = act(score, text=who) if len(state["messages"]) == 1 else say(score, who)
        return {"messages": [reply]}

    async def aagent(state: GuardState) -> Any:
        await asyncio.sleep(0)
        reply = agent(state)
        await asyncio.sleep(0)
        return reply

    return aagent if asynchronous else agent


@pytest.mark.parametrize("kind", ["coroutine", "sync node under async", "threads"])
def test_conversations_side_by_side_do_not_mix(kind: str) -> None:
    scorer, world = ByArgument(), World()
    guard = Guard(scorer, enforced(threshold=0.0, draws=3))
    graph = build(guard, node(kind == "coroutine"), world).compile(checkpointer=InMemorySaver())

    def asked(index: int) -> tuple[Any, Any, Any]:
        given: Any = {"messages": [("user", f"user{index}")]}
        config: Any = {"configurable": {"thread_id": f"user{index}"}}
        return given, config, ["custom", "values"]

    def sync(index: int) -> list[Any]:
        given, config, modes = asked(index)
        return list(graph.stream(given, config, stream_mode=modes))

    async def one(index: int) -> list[Any]:
        given, config, modes = asked(index)
        return [event async for event in graph.astream(given, config, stream_mode=modes)]

    async def all_of_them() -> list[list[Any]]:
        return await asyncio.gather(*map(one, range(COUNT)))

    if kind == "threads":
        with ThreadPoolExecutor(COUNT) as pool:
            results = list(pool.map(sync, range(COUNT)))
    else:
        results = asyncio.run(all_of_them())
    for index, events in enumerate(results):
        who = f"user{index}"
        final = [data for mode, data in events if mode == "values"][-1]
        assert [data for mode, data in events if mode == "custom"] == [f"{who} 1.0"] * 2
        assert [m.text for m in final["messages"]] == [who, who, "did 1.0", f"{who} #1.0"]
        assert [len(record["candidates"]) for record in final["pa"]] == [3, 3]
    assert world.ran == [1.0] * COUNT
    for step in scorer.steps:
        assert step.conversation is not None
        assert step.conversation.split("|")[0] == step.history[0].text
