"""Escalation in an agent of LangChain's: what a waiting run needs, and what becomes of it when it goes on otherwise."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest
from guard.agents import How, World, act, enforced, run, say, texts
from guard.cases import APPROVE, edit
from integrations.agents import Agent, Changed
from langchain_core.messages import HumanMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.types import Command

from pa_middleware import GuardError

CONFIG: Any = {"configurable": {"thread_id": "t"}}
ASK = enforced(threshold=0.0, on_low="escalate")
sync_and_async = pytest.mark.parametrize("how", ["sync", "async"])


def answer(agent: Agent, how: How, *decisions: Any) -> dict[str, Any]:
    command: Command[Any] = Command(resume={"decisions": list(decisions)})
    graph = agent.graph
    return dict(graph.invoke(command, CONFIG) if how == "sync" else asyncio.run(graph.ainvoke(command, CONFIG)))


@sync_and_async
def test_nothing_is_drawn_or_scored_again_when_a_human_approves(how: How) -> None:
    agent = Agent([act(-1), say(1)], ASK, checkpointer=InMemorySaver())
    run(agent.graph, config=CONFIG, how=how)
    assert (len(agent.model.asked), len(agent.scorer.steps)) == (1, 1)
    final = answer(agent, how, APPROVE)
    assert (len(agent.model.asked), len(agent.scorer.steps)) == (2, 2), "only the next step"
    assert texts(final["messages"]) == ["human:go", "ai[1]:", "tool:did -1.0", "ai:done #1"]


@sync_and_async
def test_an_edited_call_is_scored_under_the_whole_prompt_and_the_history_shows_it_as_it_ran(how: How) -> None:
    agent = Agent([act(-1), say(1)], ASK, checkpointer=InMemorySaver(), system_prompt="be brief")
    run(agent.graph, config=CONFIG, how=how)
    final = answer(agent, how, edit(5))
    first, again = agent.scorer.steps[:2]
    assert texts(again.history) == texts(first.history) == ["system:be brief", "human:go"]
    assert again.tools == first.tools
    assert final["messages"][1].tool_calls[0]["args"] == {"x": 5}
    assert agent.world.ran == [5.0]


@sync_and_async
@pytest.mark.parametrize("settings", [{"on_low": "escalate"}, {"on_scorer_error": "escalate"}])
def test_escalation_without_a_checkpointer_is_an_error_before_anything_is_drawn(
    how: How, settings: dict[str, Any]
) -> None:
    agent = Agent([act(-1)], enforced(threshold=0.0, **settings))
    with pytest.raises(GuardError, match="this graph has no checkpointer to wait with"):
        run(agent.graph, how=how)
    assert (agent.model.asked, agent.world.ran) == ([], [])


@sync_and_async
def test_new_input_while_a_human_is_asked_leaves_no_open_call_behind(how: How) -> None:
    agent = Agent([act(1, -9), say(1, "never mind")], ASK, checkpointer=InMemorySaver())
    assert "__interrupt__" in run(agent.graph, config=CONFIG, how=how)
    final = run(agent.graph, "something else", CONFIG, how=how)
    assert "__interrupt__" not in final
    refused = "tool:No result is known: the conversation went on before this call was answered."
    assert texts(final["messages"]) == [
        "human:go", "ai[2]:", refused, refused, "human:something else", "ai:never mind #1",
    ]  # fmt: skip
    assert texts(agent.model.asked[-1]) == texts(final["messages"])[:-1], "the model was shown the closed conversation"
    assert texts(agent.scorer.steps[-1].history) == texts(final["messages"])[:-1], "and the score was taken under it"
    assert agent.world.ran == []


@sync_and_async
def test_another_process_can_approve_and_edit_where_the_prompt_can_be_made_again(how: How) -> None:
    def made_again(state: Any) -> Any:
        return [HumanMessage("made again"), *state["messages"]]

    world = World()
    for decision, guard, ran in (
        (APPROVE, {}, [-1.0]),
        (edit(5), {}, []),
        (edit(5), {"history": made_again, "tools": world.tools}, [5.0]),
    ):
        saver = InMemorySaver()
        first = Agent([act(-1)], ASK, checkpointer=saver, guard=guard)
        run(first.graph, config=CONFIG, how=how)
        second = Agent([say(1)], ASK, checkpointer=saver, guard=guard)
        final = answer(second, how, decision)
        assert second.world.ran == ran
        assert final["messages"][-1].text == "done #1"
    assert texts(second.scorer.steps[0].history) == ["human:made again", "human:go"]
    record = second.graph.get_state(CONFIG).values["pa"][1]
    assert (record["by"], record["score"], record["error"]) == ("human", 5.0, None)


def test_an_edit_whose_prompt_is_lost_says_so_on_record() -> None:
    saver = InMemorySaver()
    run(Agent([act(-1)], ASK, checkpointer=saver).graph, config=CONFIG)
    second = Agent([say(1)], ASK, checkpointer=saver)
    answer(second, "sync", edit(5))
    record = second.graph.get_state(CONFIG).values["pa"][1]
    assert record["error"].startswith("GuardError: what the model was shown in this step is no longer known")


def test_the_prompt_of_long_ago_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pa_langchain.prompts._KEPT", 1)
    agent = Agent([act(-1), act(-1), say(1), say(1)], ASK, checkpointer=InMemorySaver())
    run(agent.graph, config=CONFIG)
    run(agent.graph, config={"configurable": {"thread_id": "another"}})
    answer(agent, "sync", edit(5))
    assert agent.world.ran == []


def test_a_checkpointer_that_outlives_the_process_is_to_be_used_with_durability_sync(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    messages: Any = {"messages": [HumanMessage("go")]}
    with SqliteSaver.from_conn_string(str(tmp_path / "store")) as saver, caplog.at_level(logging.WARNING):
        Agent([say(1)], enforced(threshold=0.0), checkpointer=saver).graph.invoke(messages, CONFIG, durability="sync")
        assert not caplog.records
        Agent([say(1)], enforced(threshold=0.0), checkpointer=saver).graph.invoke(messages, CONFIG)
    assert "durability='sync'" in caplog.text


def test_records_survive_a_checkpointer_in_its_strict_mode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LANGGRAPH_STRICT_MSGPACK", "true")
    with SqliteSaver.from_conn_string(str(tmp_path / "store")) as saver:
        run(Agent([act(-1)], ASK, checkpointer=saver).graph, config=CONFIG)
        second = Agent([say(1)], ASK, checkpointer=saver)
        answer(second, "sync", APPROVE)
        assert second.world.ran == [-1.0]


def test_an_agent_inside_a_graph_waits_with_the_graphs_checkpointer() -> None:
    from langgraph.graph import START, MessagesState, StateGraph

    agent = Agent([act(-1), say(1)], ASK, after=[Changed(lambda request: request)])
    builder: Any = StateGraph(MessagesState)
    builder.add_node("agent", agent.graph)
    builder.add_edge(START, "agent")
    graph = builder.compile(checkpointer=InMemorySaver())
    state = run(graph, config=CONFIG)
    assert "__interrupt__" in state
    final = graph.invoke(Command(resume={"decisions": [APPROVE]}), CONFIG)
    assert agent.world.ran == [-1.0]
    assert final["messages"][-1].text == "done #1"
