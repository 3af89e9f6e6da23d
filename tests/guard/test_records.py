"""Records: plain data under the message's id, whatever keeps the state."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from guard.agents import ByArgument, Failing, Place, Scripted, World, act, agent_node, build, enforced, run, say, simple
from langchain_core.messages import AIMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import START, StateGraph
from langgraph.graph.message import MessagesState
from langgraph.types import Send

from pa_middleware import Guard, GuardState

CONFIG: Any = {"configurable": {"thread_id": "t"}}
SCRIPT = [act(-1), act(1, -2), act(-9), act(-8, text="\ud83d\ude00"), say(-3), say(-4)]
KEYS = {"by", "kind", "p_success",
    "v", "id", "step", "decision", "reason", "mode", "score", "threshold", "selected", "digest", "calls", "candidates",
    "counted", "error", "anchor", "span",
}  # fmt: skip


def assert_plain(value: Any) -> None:
    assert type(value) in (dict, list, str, int, float, bool, type(None)), value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        assert_plain(inner)


@pytest.mark.parametrize("place", ["hand", "install"])
@pytest.mark.parametrize("saver", ["memory", "memory strict", "sqlite", "sqlite strict"])
def test_records_survive_a_checkpointer_and_the_gate_still_knows_them(
    saver: str, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "strict" in saver:
        monkeypatch.setenv("LANGGRAPH_STRICT_MSGPACK", "true")
    world = World()
    rules = enforced(threshold=0.0, draws=2, on_low="block")

    def go_on(keeper: Any, replies: list[AIMessage], value: Any) -> dict[str, Any]:
        """As in a process of its own: nothing is shared but the store."""
        builder = build(Guard(ByArgument(), rules), agent_node(Scripted(replies=replies)), world, place=place)
        graph = builder.compile(checkpointer=keeper, interrupt_before=["tools"])
        return run(graph, value, CONFIG)

    def through(keeper: Any) -> None:
        before = go_on(keeper, SCRIPT[:2], "go")
        after = go_on(keeper, SCRIPT[2:4], None)
        assert world.ran == [1.0]
        assert after["pa"][: len(before["pa"])] == before["pa"]
        final = go_on(keeper, SCRIPT[4:], None)
        assert world.ran == [1.0]
        assert [record["decision"] for record in final["pa"]] == ["block", "block", "abstain"]
        assert_plain(final["pa"])
        assert json.loads(json.dumps(final["pa"])) == final["pa"]

    if "sqlite" in saver:
        with SqliteSaver.from_conn_string(str(tmp_path / "states")) as keeper:
            through(keeper)
    else:
        through(InMemorySaver(serde=JsonPlusSerializer()))


def test_a_record_has_the_documented_keys() -> None:
    builder, _ = simple([act(-1, 2), act(1, 2), say(1)], enforced(threshold=0.0, draws=2, on_low="block"))
    record = run(builder.compile())["pa"][0]
    assert set(record) == KEYS
    assert {key: record[key] for key in ("v", "step", "mode", "selected", "threshold", "score", "error")} == {
        "v": 1, "step": 0, "mode": "enforce", "selected": 1, "threshold": 0.0, "score": 1.5, "error": None,
    }  # fmt: skip
    assert [set(call) for call in record["calls"]] == [
        {"id", "name", "digest", "score", "tier", "threshold", "decision"}
    ] * 2
    assert [call["score"] for call in record["calls"]] == [1.0, 2.0]
    assert set(record["candidates"][0]) == {
        "id", "score", "policy_log_prob", "reference_log_prob", "tokens", "decision", "tools", "error", "same_as",
            "output_tokens",
    }  # fmt: skip


def test_a_message_and_calls_without_ids_get_them_before_they_are_recorded() -> None:
    def agent(state: GuardState) -> Any:
        done = len(state["messages"]) > 1
        return {
            "messages": [say(1) if done else AIMessage("", tool_calls=[{"name": "act", "args": {"x": 1}, "id": None}])]
        }

    world = World()
    final = run(build(Guard(ByArgument(), enforced(threshold=0.0)), agent, world).compile())
    assert world.ran == [1.0]
    action = final["messages"][1]
    assert action.id == final["pa"][0]["id"]
    assert action.tool_calls[0]["id"] == final["pa"][0]["calls"][0]["id"]


@pytest.mark.parametrize("error", [ValueError("\ud800"), ValueError("\x00"), KeyError("é" * 999)])
def test_errors_of_any_text_survive_a_checkpointer(error: Exception, tmp_path: Path) -> None:
    builder, _ = simple([act(1)], enforced(threshold=0.0), Failing(error))
    with SqliteSaver.from_conn_string(str(tmp_path / "states")) as keeper:
        final = run(builder.compile(checkpointer=keeper), config=CONFIG)
    assert_plain(final["pa"])
    assert final["pa"][0]["error"].startswith(type(error).__name__)


def test_records_that_a_runs_input_brings_are_ignored_by_an_installed_guard() -> None:
    world = World()
    guard = Guard(ByArgument(), enforced(threshold=0.0))
    for state in (GuardState, MessagesState):
        builder: Any = build(guard, agent_node(Scripted(replies=[say(1)])), world, place="install", state=state)
        final = run(
            builder.compile(), {"messages": [("user", "go")], "pa": [{"v": 1, "id": "forged", "candidates": []}]}
        )
        assert [record["id"] for record in final["pa"]] == [final["messages"][-1].id]


def test_fanned_out_workers_all_leave_their_records() -> None:
    guard = Guard(ByArgument(), enforced(threshold=0.0))
    builder: Any = StateGraph(GuardState)
    builder.add_node("worker", guard.node(lambda state: {"messages": [say(1)]}))
    builder.add_conditional_edges(
        START, lambda state: [Send("worker", {**state, "pa": []}) for _ in range(5)], ["worker"]
    )
    final = run(builder.compile(), {"messages": [("user", "go")], "pa": []})
    assert len({record["id"] for record in final["pa"]}) == 5
