"""A model that makes all draws of a step in one call is asked once, and one that cannot is not waited for."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest
from guard.agents import ByArgument, How, Kind, World, act, agent_node, build, enforced, run, say
from guard.batching import Batching
from langchain_core.messages import HumanMessage
from langgraph.checkpoint.memory import InMemorySaver

from pa_middleware import Guard, GuardState, Rules
from pa_middleware.guard.drawing import draws_wanted

BEST = enforced(draws=3, select="best")


def looped(model: Any, rules: Rules = BEST, kind: Kind = "function", how: How = "sync", **settings: Any) -> Any:
    builder = build(Guard(ByArgument(), rules, **settings), agent_node(model, kind, how), World())
    return builder.compile(checkpointer=InMemorySaver())


def thread(name: str) -> Any:
    return {"configurable": {"thread_id": name}}


@pytest.mark.parametrize("at_once", [None, 1, 2, 8])
@pytest.mark.parametrize("how", ["sync", "async"])
@pytest.mark.parametrize("kind", ["function", "runnable"])
def test_it_is_asked_once_in_each_step_however_many_draws_are_allowed_at_once(
    kind: Kind, how: How, at_once: int | None
) -> None:
    model = Batching(replies=[act(1), act(3), act(2), say(1), say(2), say(3)])
    final = run(looped(model, kind=kind, how=how, draws_at_once=at_once), config=thread("a"), how=how)
    assert model.made == [3, 3]
    assert [record["selected"] for record in final["pa"]] == [1, 2]
    assert [[each["score"] for each in record["candidates"]] for record in final["pa"]] == [[1, 3, 2], [1, 2, 3]]


@pytest.mark.parametrize("how", ["sync", "async"])
def test_another_step_finds_nothing_that_an_earlier_one_left(how: How) -> None:
    model = Batching(replies=[say(number) for number in range(6)])
    graph = looped(model, how=how)
    for name in ("a", "b"):
        run(graph, config=thread(name), how=how)
    assert model.made == [3, 3]


@pytest.mark.parametrize("at_once", [None, 2])
@pytest.mark.parametrize("how", ["sync", "async"])
def test_a_step_that_had_one_draw_left_does_not_show_that_the_model_cannot(how: How, at_once: int | None) -> None:
    rules = enforced(draws=3, select="best", draws_per_run=4)
    model = Batching(replies=[act(1), act(3), act(2), say(1), say(1), say(2), say(3)])
    graph = looped(model, rules, how=how, draws_at_once=at_once)
    run(graph, config=thread("a"), how=how)
    assert model.made == [3, 1], "the budget of the run left one draw for its second step"
    run(graph, config=thread("b"), how=how)
    assert model.made == [3, 1, 3]


@pytest.mark.parametrize(("how", "at_once"), [("sync", 2), ("async", None)])
def test_draws_made_side_by_side_are_each_asked_for_alone(how: How, at_once: int | None) -> None:
    told: list[int] = []
    number = itertools.count(1)

    def agent(state: GuardState) -> dict[str, Any]:
        told.append(draws_wanted())
        return {"messages": [act(next(number)) if len(state["messages"]) == 1 else say(next(number))]}

    async def aagent(state: GuardState) -> dict[str, Any]:
        return agent(state)

    guard = Guard(ByArgument(), BEST, draws_at_once=at_once)
    graph = build(guard, agent if how == "sync" else aagent, World()).compile()
    for _ in range(2):
        run(graph, how=how)
    assert told == [3, 1, 1, 1, 1, 1] * 2, "the first draw of a run finds out whether the model makes all at once"


def test_draws_made_one_after_another_are_counted_down() -> None:
    told: list[int] = []

    def agent(state: GuardState) -> dict[str, Any]:
        told.append(draws_wanted())
        return {"messages": [say(1)]}

    run(build(Guard(ByArgument(), BEST), agent, World()).compile())
    assert told == [3, 2, 1]


def test_a_guard_that_may_stop_early_is_sure_of_one_draw_only() -> None:
    for rules in (
        enforced(draws=3, threshold=0.0),
        enforced(draws=3, select="best", stop_at=0.1, drawn_by="policy"),
    ):
        model = Batching(replies=[say(-1, "one"), say(-2, "two"), say(-3, "three")])
        run(looped(model, rules), config=thread("a"))
        assert model.made == [1, 1, 1]


def test_runs_at_the_same_time_leave_their_draws_to_themselves() -> None:
    model = Batching(replies=[say(number) for number in range(9)])
    graph = looped(model, how="async")

    async def main() -> list[Any]:
        runs = [graph.ainvoke({"messages": [HumanMessage("go")]}, thread(str(index))) for index in range(3)]
        return list(await asyncio.gather(*runs))

    taken = [[each["score"] for each in final["pa"][0]["candidates"]] for final in asyncio.run(main())]
    assert sorted(score for scores in taken for score in scores) == [float(number) for number in range(9)]
    assert model.made == [3, 3, 3]
