"""What a search draws is its own expense: a run's budget of draws is charged what the rules would have drawn."""

from __future__ import annotations

from typing import Any

import pytest
from guard.agents import ByArgument, How, Scripted, act, agent_node, enforced, one_node, run, say
from guard.test_search import HOWS, made
from langchain_core.messages import AIMessage, HumanMessage
from selection.worlds import GO, agent, thread

from pa_middleware import Guard, Rules
from pa_middleware.guard.search import Taking
from pa_middleware.selection import replay

LOW = [act(-1), act(-2), act(-3)]


@HOWS
@pytest.mark.parametrize(
    ("first", "counted"), [([act(-1), act(2)], 2), ([act(2), act(-1)], 1), (LOW[:2], 3), (["unscorable", act(1)], 2)]
)
def test_a_search_takes_no_more_of_the_runs_budget_than_the_rules_would_have(
    first: list[Any], counted: int, how: How
) -> None:
    rules = enforced(threshold=0.0, draws=3, draws_per_run=counted + 4, on_low="flag")
    drawn = [AIMessage("") if each == "unscorable" else each for each in first]
    agent = made([*drawn, *LOW * 2, *LOW, *LOW, say(1)], rules, how=how)
    assert agent.expand(8).record["counted"] == counted
    agent.go(None, None)
    agent.go(None, None)
    records = agent.graph.get_state({"configurable": {"thread_id": "a"}}).values["pa"]
    assert [len(record["candidates"]) for record in records] == [8, 3, 1]
    assert [record["counted"] for record in records] == [counted, 3, 1]
    assert [record["reason"] for record in records[1:]] == ["below_threshold", "budget_exhausted"]


@HOWS
def test_what_is_taken_in_another_run_counts_in_its_budget_alike(how: How) -> None:
    rules = enforced(threshold=0.0, draws=3, draws_per_run=5, on_low="flag")
    agent = made([act(1), act(4), act(-3), act(2), *LOW, say(1)], rules, how=how)
    taking = Taking(agent.expand(4), 3)
    agent.go(taking, thread="b")
    assert taking.record is not None
    assert taking.record["counted"] == 1
    final = agent.go(None, None, "b")
    assert [len(record["candidates"]) for record in final["pa"]] == [4, 3]


@pytest.mark.parametrize("rules", [enforced(threshold=0.0, draws=2, select="best"), Rules(threshold=0.0, draws=2)])
def test_rules_that_make_all_draws_count_all_and_those_that_watch_one(rules: Rules) -> None:
    found = made([act(1), act(4), act(3)], rules).expand(3)
    assert found.record["counted"] == (2 if rules.effective_mode == "enforce" else 1)


def test_a_record_from_before_draws_were_counted_counts_all_of_them() -> None:
    guard = Guard(ByArgument(), enforced(threshold=0.0, draws=3, draws_per_run=4, on_low="flag"))
    graph = one_node(guard.node(agent_node(Scripted(replies=[say(-1), say(1), say(-1), say(-2), say(-3)]))))
    (record,) = run(graph)["pa"]
    older = {key: value for key, value in record.items() if key != "counted"}
    final = run(graph, {"messages": [HumanMessage("go on")], "pa": [older]})
    assert [len(each["candidates"]) for each in final["pa"]] == [2, 2]


def test_a_replays_later_steps_have_the_draws_they_would_have_had() -> None:
    rules = enforced(threshold=0.0, draws=3, draws_per_run=12, on_low="flag")
    low = [-1.0, -1.0, 0.5, -2.0, -2.0, -2.0, -2.0, -2.0]
    graph, worlds, _ = agent(lambda path: low if len(path) < 4 else [None], rules)
    graph.invoke(GO, thread("run"))
    found = replay(graph, "run", step=0, draws=8, fork_environment=worlds.fork)
    (attempt,) = found.attempts
    assert attempt.run is not None
    records = attempt.run.records
    assert [len(record["candidates"]) for record in records] == [8, 3, 3, 3, 1]
    assert {record["reason"] for record in records} <= {"above_threshold", "below_threshold"}, "none was short of draws"
