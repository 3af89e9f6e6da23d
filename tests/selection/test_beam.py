"""Beam search over the states of a graph."""

from __future__ import annotations

import asyncio
import itertools
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path as File
from typing import Annotated, Any, get_args

import aiosqlite
import pytest
from guard.agents import ByArgument, Failing, enforced, say
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, HumanMessage, RemoveMessage, ToolMessage
from langgraph.cache.memory import InMemoryCache
from langgraph.channels import UntrackedValue
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import CachePolicy
from selection.worlds import GO, How, Path, agent, run, taken, thread

from pa_middleware import Guard, GuardState, Rules, Step, StepScore
from pa_middleware.scoring.advantage import run_score
from pa_middleware.selection import Beam, SelectionError, abeam_search, beam_search

hows = pytest.mark.parametrize("how", get_args(How))
Follows = Callable[[Path], Sequence[float | None]]


def naive_beam(follows: Follows, width: int, expand: int, depth: int, how: Any) -> list[tuple[float, Path]]:
    """Paths and their scores; a final answer scores 0 and ends its path."""
    beam: list[tuple[list[float], Path, bool]] = [([], (), False)]
    for _ in range(depth):
        children: list[tuple[list[float], Path, bool]] = []
        for scores, path, over in beam:
            if over:
                children.append((scores, path, True))
                continue
            drawn = dict.fromkeys(follows(path)[number % len(follows(path))] for number in range(expand))
            best_first = sorted(drawn, key=lambda x: x != max(drawn, key=lambda y: y or 0.0))
            children.extend(([*scores, x or 0.0], path if x is None else (*path, x), x is None) for x in best_first)
        beam = sorted(children, key=lambda child: -run_score(child[0], how))[:width]
    return sorted(((run_score(scores, how), path) for scores, path, _ in beam), key=lambda one: -one[0])


def _tree(numbers: Sequence[int]) -> Follows:
    """A tree of actions, the same for the same numbers; no two actions of a place score alike."""

    def follows(path: Path) -> Sequence[float | None]:
        seed = hash((tuple(numbers), path))
        if len(path) >= 2 + seed % 2:
            return [None]
        return [float((seed >> shift) % 97) - 40 + shift / 8 for shift in range(1, 5)]

    return follows


def _beam(how: How, graph: Any, **given: Any) -> Beam:
    found: Beam = run(how, beam_search, abeam_search, graph, GO, **{"width": 2, "expand": 3, "depth": 6, **given})
    return found


@hows
@settings(max_examples=15, deadline=None)
@given(
    numbers=st.lists(st.integers(0, 9), min_size=3, max_size=3),
    width=st.integers(1, 3),
    expand=st.integers(1, 4),
    depth=st.integers(1, 4),
    aggregation=st.sampled_from(["sum", "mean", "min"]),
)
def test_it_finds_what_a_naive_beam_finds_and_each_world_saw_its_own_branch(
    how: How, numbers: list[int], width: int, expand: int, depth: int, aggregation: Any
) -> None:
    follows = _tree(numbers)
    graph, worlds, _ = agent(follows, how=how)
    found = _beam(
        how,
        graph,
        width=width,
        expand=expand,
        depth=depth,
        aggregation=aggregation,
        fork_environment=worlds.fork if how == "sync" else worlds.afork,
    )
    expected = naive_beam(follows, width, expand, depth, aggregation)
    assert sorted(zip(found.scores, (taken(one.messages) for one in found.branches), strict=True)) == sorted(expected)
    assert found.best is found.branches[0]
    for branch in found.branches:
        assert tuple(worlds.done[branch.thread]) == taken(branch.messages)  # what stands in its messages is what ran


def test_what_it_took_is_counted() -> None:
    graph, worlds, model = agent(lambda path: [3.0, 2.0, 1.0] if len(path) < 2 else [None])
    found = _beam("sync", graph, fork_environment=worlds.fork, config=thread("t"))
    cost = found.cost
    assert cost.model_calls == model.calls == 3 + 2 * 3 + 2 * 3
    assert [taken(one.messages) for one in found.branches] == [(3, 3), (3, 2)]
    assert (cost.forks, len(worlds.forks)) == (2, 3)  # the first begins in a fresh world
    assert cost.tool_executions == sum(len(done) for done in worlds.done.values()) - 1  # one was copied with its world
    threads = {fork.target for fork in worlds.forks}
    kept = [one for name in threads for one in graph.checkpointer.list(thread(name))]
    sizes = [len(graph.checkpointer.serde.dumps_typed(one.checkpoint)[1]) for one in kept]
    assert (cost.checkpoints, cost.checkpoint_bytes) == (len(sizes), sum(sizes))


def test_tool_results_that_were_in_the_input_did_not_run_and_those_that_were_trimmed_did() -> None:
    earlier = [
        HumanMessage("go"),
        AIMessage("", tool_calls=[{"name": "act", "args": {"x": 9.0}, "id": "c"}]),
        ToolMessage("did 9", tool_call_id="c"),
        HumanMessage("go on"),
    ]
    graph, worlds, _ = agent(lambda path: [0.5, 0.1] if len(path) < 4 else [None])
    given: Any = {"width": 1, "expand": 2, "depth": 9, "fork_environment": worlds.fork, "config": thread("t")}
    found = beam_search(graph, {"messages": earlier}, **given)
    assert found.cost.tool_executions == len(worlds.done["t/0"]) == 3

    def trim(state: MessagesState) -> Any:
        results = [message for message in state["messages"] if isinstance(message, ToolMessage)]
        return {"messages": [RemoveMessage(str(message.id)) for message in results[:-1]]}

    trimmed, worlds, _ = agent(lambda path: [0.5, 0.1] if len(path) < 4 else [None])
    builder = trimmed.builder
    builder.edges.remove(("tools", "agent"))
    builder.add_node("trim", trim)
    builder.add_edge("tools", "trim")
    builder.add_edge("trim", "agent")
    graph = builder.compile(checkpointer=InMemorySaver())
    found = beam_search(graph, {"messages": earlier}, **{**given, "fork_environment": worlds.fork})
    assert found.cost.tool_executions == len(worlds.done["t/0"]) == 3
    assert sum(isinstance(message, ToolMessage) for message in found.best.messages) == 1


def test_no_more_branches_draw_or_run_at_the_same_time_than_was_asked_for() -> None:
    def most(at_once: int | None) -> int:
        now = highest = 0

        async def node(state: GuardState) -> Any:
            nonlocal now, highest
            now += 1
            highest = max(highest, now)
            await asyncio.sleep(0.03)
            now -= 1
            return {"messages": [say(float(next(drawn)))]}

        drawn = itertools.count(1)
        builder: Any = StateGraph(GuardState)
        builder.add_node("agent", Guard(ByArgument(), Rules()).node(node))
        builder.add_edge(START, "agent")
        builder.add_edge("agent", "agent")
        graph = builder.compile(checkpointer=InMemorySaver())
        asyncio.run(abeam_search(graph, GO, width=3, expand=3, depth=3, side_effect_free=True, at_once=at_once))
        return highest

    alone = most(1)  # draws of one branch
    assert alone < most(2) <= 2 * alone
    assert most(None) > alone


def test_branches_side_by_side_in_threads_come_to_the_same() -> None:
    follows = _tree([4, 5, 6])
    found = []
    for at_once in (None, 3):
        graph, worlds, _ = agent(follows)
        beam = _beam("sync", graph, width=3, at_once=at_once, fork_environment=worlds.fork, config=thread("t"))
        cost = replace(beam.cost, checkpoint_bytes=0)  # they hold ids
        found.append((beam.scores, [taken(one.messages) for one in beam.branches], cost))
    assert found[0] == found[1]


@hows
def test_a_candidate_that_does_not_survive_is_in_no_state_and_ran_nowhere(how: How) -> None:
    follows = _tree([1, 2, 3])
    graph, worlds, _ = agent(follows, how=how)
    found = _beam(how, graph, fork_environment=worlds.fork, config=thread("t"))
    allowed = {taken(one.messages)[: place + 1] for one in found.branches for place in range(5)}
    for fork in worlds.forks:
        paths = {taken(one.values.get("messages", ())) for one in graph.get_state_history(thread(fork.target))}
        best = max(follows(max(paths, key=len))[:3], key=lambda x: x or 0.0)  # of a branch that was given up
        assert all(path in allowed or path == () or path[-1] == best or worlds.done[fork.target] for path in paths)
    for branch in found.branches:
        paths = {taken(one.values.get("messages", ())) for one in graph.get_state_history(thread(branch.thread))}
        assert paths <= {taken(branch.messages)[:place] for place in range(7)}


def test_it_comes_to_the_same_twice() -> None:
    def once() -> Any:
        graph, worlds, _ = agent(_tree([4, 5, 6]))
        found = _beam("sync", graph, fork_environment=worlds.fork, config=thread("t"))
        return found.scores, [(one.thread, taken(one.messages)) for one in found.branches], found.cost.model_calls

    assert once() == once()


def test_it_works_on_a_database_as_in_memory() -> None:
    follows = _tree([7, 8, 9])
    saver = SqliteSaver(sqlite3.connect(":memory:", check_same_thread=False))
    graph, worlds, _ = agent(follows, checkpointer=saver)
    found = _beam("sync", graph, fork_environment=worlds.fork)
    assert [taken(one.messages) for one in found.branches] == [path for _, path in naive_beam(follows, 2, 3, 6, "mean")]
    saver.conn.close()


def test_a_candidate_below_its_threshold_does_not_survive_if_the_guard_enforces_it() -> None:
    def follows(path: Path) -> Sequence[float | None]:
        return [3.0, -1.0] if not path else [None]

    kept = _beam("sync", agent(follows, Rules())[0], side_effect_free=True)
    assert [taken(one.messages) for one in kept.branches] == [(3,), (-1,)]
    strict = _beam("sync", agent(follows, enforced(threshold=0.0, on_low="flag"))[0], side_effect_free=True)
    assert [taken(one.messages) for one in strict.branches] == [(3,)]


def test_a_branch_without_a_good_candidate_goes_as_the_rules_say() -> None:
    graph, worlds, _ = agent(lambda path: [-1.0, -2.0] if not path else [None], enforced(threshold=0.0))
    found = _beam("sync", graph, fork_environment=worlds.fork)
    [branch] = found.branches
    assert (branch.records[0]["decision"], branch.finished, taken(branch.messages)) == ("abstain", True, ())
    assert all(done == [] for done in worlds.done.values())


def test_a_branch_that_is_not_over_at_its_depth_is_told_as_unfinished() -> None:
    found = _beam("sync", agent(lambda path: [1.0, 2.0])[0], side_effect_free=True, depth=2)
    assert [(one.length, one.finished) for one in found.branches] == [(2, False)] * 2


def test_survivors_other_than_the_best_say_that_a_search_went_on_with_them() -> None:
    graph, worlds, _ = agent(lambda path: [3.0, 2.0] if not path else [None])
    best, other = _beam("sync", graph, fork_environment=worlds.fork).branches
    assert [(one.records[0]["reason"], one.records[0]["score"]) for one in (best, other)] == [
        ("best_of", 3.0),
        ("searched", 2.0),
    ]
    assert [each["decision"] for each in other.records[0]["candidates"]][:2] == ["resample", "pass"]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"width": 0}, "width is 0; allowed: a whole number from 1 on"),
        ({"expand": 0}, "expand is 0"),
        ({"depth": 1.5}, "depth is 1.5"),
        ({"at_once": 0}, "at_once is 0; allowed: a whole number from 1 on"),
        ({"agent": "model"}, r"agent='model' is no node of this graph; its nodes: \['agent', 'tools'\]"),
        ({"side_effect_free": False}, "fork_environment"),
    ],
)
def test_what_cannot_be_searched_is_refused_before_anything_runs(given: dict[str, Any], told: str) -> None:
    graph, _, model = agent(lambda path: [None])
    with pytest.raises(SelectionError, match=told):
        _beam("sync", graph, **{"side_effect_free": True, **given})
    assert model.calls == 0


def test_a_graph_without_checkpoints_cannot_be_forked() -> None:
    graph, _, _ = agent(lambda path: [None], checkpointer=False)
    with pytest.raises(SelectionError, match="no checkpointer"):
        _beam("sync", graph, side_effect_free=True)


def test_a_search_cannot_ask_a_human() -> None:
    graph, _, _ = agent(lambda path: [-1.0], enforced(threshold=0.0, on_low="escalate"))
    with pytest.raises(SelectionError, match="ask a human"):
        _beam("sync", graph, side_effect_free=True)


def test_the_agent_has_to_be_the_guarded_node() -> None:
    graph, _, _ = agent(lambda path: [None])
    builder = type(graph.builder)(MessagesState)
    builder.add_node("agent", lambda state: {"messages": [AIMessage("hello")]})
    builder.add_edge("__start__", "agent")
    with pytest.raises(SelectionError, match="no guard stands around 'agent'"):
        _beam("sync", builder.compile(checkpointer=InMemorySaver()), side_effect_free=True)


def test_ties_go_to_what_the_policy_finds_likelier_so_that_a_beam_of_one_is_best_of_n() -> None:
    def follows(path: Path) -> Sequence[float | None]:
        return [1.0, 2.0, 3.0] if not path else [None]

    class Even(ByArgument):
        def score(self, steps: Sequence[Step]) -> list[StepScore]:
            return [
                StepScore(tuple(replace(one, score=1.0, policy_log_prob=one.score - 9) for one in step.candidates))
                for step in super().score(steps)
            ]

    graph, worlds, _ = agent(follows, scorer=Even())
    found = _beam("sync", graph, width=2, fork_environment=worlds.fork)
    assert [taken(one.messages) for one in found.branches] == [(3,), (2,)]
    single, worlds, _ = agent(follows, scorer=Even())
    beam = _beam("sync", single, width=1, fork_environment=worlds.fork)
    best, _, _ = agent(follows, Rules(draws=3, select="best"), scorer=Even())
    assert taken(beam.best.messages) == taken(best.invoke(GO, thread("best"))["messages"])
    assert beam.cost.forks == 0


def test_a_branch_with_an_unscored_step_or_ended_by_the_guard_comes_last() -> None:
    def follows(path: Path) -> Sequence[float | None]:
        return {(): [5.0, 4.0], (5.0,): [-9.0], (4.0,): [1.0]}.get(path, [None])

    ended, worlds, _ = agent(follows, enforced(threshold=0.0, thresholds={"final_answer": None}))
    found = _beam("sync", ended, fork_environment=worlds.fork)
    assert [(taken(one.messages), one.records[-1]["decision"]) for one in found.branches] == [
        ((4, 1), "pass"),
        ((5,), "abstain"),
    ]
    assert found.scores[1] == 5.0  # the action that was not taken counts for nothing

    down, worlds, _ = agent(lambda path: [1.0], scorer=Failing(RuntimeError("down")))
    [lost] = _beam("sync", down, fork_environment=worlds.fork).branches
    assert (lost.scores, lost.records[0]["reason"]) == ((None,), "scorer_error")


def test_a_graph_that_pauses_by_itself_is_refused() -> None:
    graph, _, model = agent(lambda path: [None])
    pausing = graph.builder.compile(checkpointer=InMemorySaver(), interrupt_before=["tools"])
    with pytest.raises(SelectionError, match="pauses by itself"):
        _beam("sync", pausing, side_effect_free=True)
    assert model.calls == 0


def test_one_action_may_lead_right_to_the_next() -> None:
    drawn = iter(range(1, 99))

    def node(state: GuardState) -> Any:
        return {"messages": [say(float(next(drawn)))]}

    builder: Any = StateGraph(GuardState)
    builder.add_node("agent", Guard(ByArgument(), Rules()).node(node))
    builder.add_edge(START, "agent")
    builder.add_edge("agent", "agent")
    graph = builder.compile(checkpointer=InMemorySaver())
    found = _beam("sync", graph, width=1, expand=2, depth=3, side_effect_free=True)
    assert [len(one["candidates"]) for one in found.best.records] == [2, 2, 2]
    assert found.best.scores == (2.0, 4.0, 6.0)


def test_an_agent_that_takes_several_steps_at_once_is_refused() -> None:
    inner, _, _ = agent(lambda path: [1.0] if len(path) < 2 else [None], checkpointer=False)
    builder: Any = StateGraph(GuardState)
    builder.add_node("agent", inner.builder.compile())
    builder.add_edge(START, "agent")
    with pytest.raises(SelectionError, match="one action at a time"):
        _beam("sync", builder.compile(checkpointer=InMemorySaver()), side_effect_free=True)


def test_a_node_that_answers_from_a_cache_is_found_out() -> None:
    drawn = itertools.cycle([2.0, 1.0])

    def node(state: GuardState) -> Any:
        return {"messages": [say(next(drawn))]}

    builder: Any = StateGraph(GuardState)
    builder.add_node("agent", Guard(ByArgument(), Rules()).node(node), cache_policy=CachePolicy(key_func=lambda _: "k"))
    builder.add_edge(START, "agent")
    graph = builder.compile(checkpointer=InMemorySaver(), cache=InMemoryCache())
    with pytest.raises(SelectionError, match="cache_policy"):
        _beam("sync", graph, expand=2, side_effect_free=True)


def test_state_that_no_checkpoint_holds_cannot_be_forked() -> None:
    class Kept(GuardState):
        secret: Annotated[str, UntrackedValue]

    builder: Any = StateGraph(Kept)
    builder.add_node("agent", Guard(ByArgument(), Rules()).node(lambda state: {"messages": [say(1)]}))
    builder.add_edge(START, "agent")
    with pytest.raises(SelectionError, match="UntrackedValue"):
        _beam("sync", builder.compile(checkpointer=InMemorySaver()), side_effect_free=True)


def test_searches_of_one_name_at_the_same_time_do_not_share_threads(tmp_path: File) -> None:
    async def both() -> list[Any]:
        async with aiosqlite.connect(str(tmp_path / "runs.sqlite")) as connection:
            graph, worlds, _ = agent(lambda path: [None], how="async", checkpointer=AsyncSqliteSaver(connection))
            given: Any = {"width": 1, "expand": 1, "depth": 1, "config": thread("t"), "fork_environment": worlds.afork}
            searches = (abeam_search(graph, GO, **given) for _ in range(2))
            return await asyncio.gather(*searches, return_exceptions=True)

    found = asyncio.run(both())
    assert sorted(type(one).__name__ for one in found) == ["Beam", "SelectionError"]
