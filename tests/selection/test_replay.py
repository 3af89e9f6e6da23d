"""A finished run again from the step that went wrong."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path as File
from typing import Any, get_args

import aiosqlite
import numpy as np
import pytest
from guard.agents import ByArgument, Failing, enforced, say
from langchain_core.messages import RemoveMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.runtime import Runtime
from selection.replays import PLAN, follows, ran, replayed, succeeded
from selection.worlds import GO, How, Path, agent, run, taken, thread

from pa_middleware import Guard, GuardState, Rules, record
from pa_middleware.selection import (
    Attempt,
    Replay,
    SelectionError,
    Trajectory,
    abeam_search,
    abest_of_n,
    areplay,
    beam_search,
    best_of_n,
    replay,
)
from pa_middleware.tracing import read

hows = pytest.mark.parametrize("how", get_args(How))


@dataclass
class Who:
    name: str


@hows
def test_the_run_is_forked_before_its_decisive_step_and_runs_on_from_the_best_of_several_draws(how: How) -> None:
    graph, worlds, model = ran(how)
    before = [one.config for one in graph.get_state_history(thread("run"))]
    drawn = model.calls
    found = replayed(how, graph, worlds)
    [attempt] = found.attempts
    assert (attempt.step, [suspect.step for suspect in found.suspects]) == (1, [1, 3, 0, 2])
    assert found.suspects[0].value == -1.0  # below minus one nat all count alike
    assert [each["score"] for each in attempt.choice["candidates"]] == [4.0, -5.0, -5.0]  # its second draw on
    assert taken(found.original.messages) == PLAN
    assert taken(attempt.run.messages) == (1.0, 4.0, 3.0)
    assert attempt.run.scores == (1.0, 4.0, 3.0, 0.0)
    assert (found.succeeded, attempt.succeeded, found.flipped, found.flipped_at) == (False, True, True, 1)
    assert model.calls == drawn + 3 + 1 + 1  # the later steps draw once, as they did
    assert [one.config for one in graph.get_state_history(thread("run"))] == before
    assert worlds.done == {"run": list(PLAN), "run/replay-1": [1.0, 4.0, 3.0]}
    [fork] = worlds.forks
    assert (fork.target, fork.source, fork.steps, taken(fork.messages)) == ("run/replay-1", "run", 1, (1.0,))


def test_only_the_step_asked_for_is_drawn_again() -> None:
    graph, worlds, _ = ran("sync")
    found = replayed("sync", graph, worlds, step=2)
    [attempt] = found.attempts
    assert found.suspects == ()
    assert taken(attempt.run.messages) == (1.0, -5.0, 2.0)
    assert (attempt.step, attempt.succeeded, found.flipped, found.flipped_at) == (2, False, False, None)
    assert [len(one["candidates"]) for one in attempt.run.records] == [1, 1, 3, 1]


@hows
def test_suspects_are_tried_in_turn_until_one_flips_the_run(how: How) -> None:
    graph, worlds, _ = ran(how)
    found = replayed(how, graph, worlds, rule="sharpest_fall", tries=4)
    assert [attempt.step for attempt in found.attempts] == [1]
    found = replayed(how, graph, worlds, rule="lowest_sum", tries=4)
    steps = [attempt.step for attempt in found.attempts]
    assert steps[-1] == 1
    assert [attempt.succeeded for attempt in found.attempts] == [False] * (len(steps) - 1) + [True]
    assert found.flipped_at == 1


def test_of_several_bad_steps_the_earliest_is_replayed_first_and_another_rule_can_be_asked_for() -> None:
    graph, worlds, _ = agent(lambda path: [(0.5, -1.5, -0.5, -5.0)[len(path)]] if len(path) < 4 else [None])
    graph.invoke(GO, thread("run"), durability="sync")
    tried = {
        rule: [attempt.step for attempt in replayed("sync", graph, worlds, rule=rule, tries=3).attempts]
        for rule in (None, "lowest")
    }
    assert tried == {None: [1, 3, 2], "lowest": [3, 1, 2]}


@pytest.mark.parametrize(
    ("succeeded", "steps"),
    [(lambda run: False, [1, 3, 0]), (lambda run: True, [1]), (lambda run: None, [1]), (None, [1])],
)
def test_of_a_failed_run_three_suspects_are_tried_by_default_and_of_any_other_one(
    succeeded: Any, steps: list[int]
) -> None:
    graph, worlds, _ = ran("sync")
    found = replayed("sync", graph, worlds, succeeded=succeeded)
    assert [attempt.step for attempt in found.attempts] == steps


def _lucky(path: Path) -> Sequence[float | None]:
    """The second step is the same whenever it is drawn, and the third is another the second time."""
    ways: list[list[float | None]] = [[1.0], [-5.0], [-2.0, 4.0], [None]]
    return ways[len(path)]


def _ran_luckily() -> tuple[Any, Any, Any]:
    graph, worlds, model = agent(_lucky, Rules(mode="shadow"))
    graph.invoke(GO, thread("run"), durability="sync")
    return graph, worlds, model


@hows
def test_a_suspect_that_is_drawn_again_the_same_is_not_run_on(how: How) -> None:
    graph, worlds, model = agent(_lucky, Rules(mode="shadow"), how=how)
    if how == "sync":
        graph.invoke(GO, thread("run"), durability="sync")
    else:
        asyncio.run(graph.ainvoke(GO, thread("run"), durability="sync"))
    drawn = model.calls
    found = replayed(how, graph, worlds, tries=2)
    assert [(one.step, one.changed, one.succeeded) for one in found.attempts] == [(1, False, None), (2, True, True)]
    assert (found.flipped, found.flipped_at) == (True, 2)
    assert worlds.done["run/replay-1"] == [1.0]
    assert model.calls == drawn + 3 + 3 + 1


def test_a_success_after_the_same_action_again_flips_nothing() -> None:
    graph, worlds, _ = _ran_luckily()
    found = replayed("sync", graph, worlds, step=1)  # a step that was asked for is run on, whatever was drawn
    assert [(one.step, one.changed, one.succeeded) for one in found.attempts] == [(1, False, True)]
    assert (found.flipped, found.flipped_at) == (False, None)


def test_an_action_is_the_same_by_its_text_and_calls_though_the_conversation_no_longer_keeps_it() -> None:
    graph, worlds, _ = _ran_luckily()
    removed = [RemoveMessage(each.id) for each in graph.get_state(thread("run")).values["messages"][1:]]
    graph.update_state(thread("run"), {"messages": removed}, as_node="agent")
    changed = {step: replayed("sync", graph, worlds, step=step).attempts[0].changed for step in (0, 1, 2)}
    assert changed == {0: False, 1: False, 2: True}


@pytest.mark.parametrize("told", [np.bool_(False), 0, 0.0, np.float64(0)])
def test_an_outcome_may_be_a_truth_value_of_any_kind(told: Any) -> None:
    graph, worlds, _ = ran("sync")
    found = replayed("sync", graph, worlds, succeeded=lambda run: told, tries=1)
    assert (found.succeeded, found.attempts[0].succeeded, found.flipped) == (False, False, False)


async def _later(run: Trajectory) -> bool:
    return True


@pytest.mark.parametrize("told", [lambda run: "no", lambda run: 0.5, _later])
def test_an_outcome_of_another_kind_is_refused_before_anything_runs(told: Any) -> None:
    graph, worlds, model = ran("sync")
    drawn = model.calls
    with pytest.raises(SelectionError, match="allowed: True, False, or None where it cannot say"):
        replayed("sync", graph, worlds, succeeded=told)
    assert (model.calls, worlds.forks) == (drawn, [])


def test_a_second_replay_has_a_thread_of_its_own() -> None:
    graph, worlds, _ = ran("sync")
    names = [replayed("sync", graph, worlds).attempts[0].run.thread for _ in range(3)]
    assert names == ["run/replay-1", "run/replay-1.1", "run/replay-1.2"]


def test_where_nobody_can_say_whether_a_run_succeeded_nothing_is_said() -> None:
    graph, worlds, _ = ran("sync")
    found = replayed("sync", graph, worlds, succeeded=None, tries=2)
    assert (found.succeeded, found.flipped, found.flipped_at, len(found.attempts)) == (None, None, None, 2)


@pytest.mark.parametrize(
    ("original", "attempts", "flipped"),
    [
        (False, (None, True), True),
        (False, (False, True), True),
        (False, (None, False), None),
        (False, (False, False), False),
        (True, (None, True), False),
        (None, (False, True), None),
    ],
)
def test_an_attempt_that_succeeded_flips_the_run_whatever_became_of_those_before_it(
    original: bool | None, attempts: tuple[bool | None, ...], flipped: bool | None
) -> None:
    run = Trajectory("run", (), {}, True)
    found = Replay(run, original, (), tuple(Attempt(step, {}, run, each) for step, each in enumerate(attempts)))
    assert (found.flipped, found.flipped_at) == (flipped, 1 if flipped else None)


def test_rules_that_are_enforced_hold_for_the_step_drawn_again() -> None:
    graph, worlds, _ = agent(lambda path: [-1.0, -2.0] if not path else [None], enforced(threshold=0.0, on_low="flag"))
    graph.invoke(GO, thread("run"), durability="sync")
    [attempt] = replayed("sync", graph, worlds, tries=1).attempts
    assert (attempt.choice["decision"], attempt.choice["score"], attempt.choice["threshold"]) == ("flag", -1.0, 0.0)


def test_the_way_that_led_to_the_end_is_followed_back_after_time_travel() -> None:
    graph, worlds, _ = ran("sync")
    second = next(one for one in graph.get_state_history(thread("run")) if taken(one.values["messages"]) == (1.0,))
    graph.invoke(None, second.config, durability="sync")  # the step drawn anew: 4 this time
    assert taken(graph.get_state(thread("run")).values["messages"]) == (1.0, 4.0, 3.0)
    [attempt] = replayed("sync", graph, worlds, step=2).attempts
    assert taken(attempt.run.messages)[:2] == (1.0, 4.0)


def test_a_run_of_another_process_is_replayed_from_a_database(tmp_path: File) -> None:
    file = str(tmp_path / "runs.sqlite")
    for finished in (False, True):
        saver = SqliteSaver(sqlite3.connect(file, check_same_thread=False))
        if not finished:
            ran("sync", checkpointer=saver)
        else:
            graph, worlds, _ = agent(follows, Rules(mode="shadow"), checkpointer=saver)
            found = replayed("sync", graph, worlds)
            assert taken(found.original.messages) == PLAN
            assert found.attempts[0].step == 1
        saver.conn.close()


def test_a_run_of_an_async_database_is_replayed_in_its_event_loop(tmp_path: File) -> None:
    async def both() -> Replay:
        async with aiosqlite.connect(str(tmp_path / "runs.sqlite")) as connection:
            graph, worlds, _ = agent(
                follows, Rules(mode="shadow"), how="async", checkpointer=AsyncSqliteSaver(connection)
            )
            await graph.ainvoke(GO, thread("run"), durability="sync")
            return await areplay(graph, "run", fork_environment=worlds.afork, succeeded=succeeded, draws=3)

    assert asyncio.run(both()).flipped is True


def test_a_replay_is_a_trace_of_its_own(tmp_path: File) -> None:
    with record(tmp_path / "trace.jsonl"):
        graph, worlds, _ = ran("sync")
        replayed("sync", graph, worlds, confirm=3)
    runs = {one.conversation_id: [step.index for step in one.steps] for one in read(tmp_path / "trace.jsonl")}
    assert runs == {
        "run": [0, 1, 2, 3],
        "run/replay-1": [1, 2, 3],
        **{f"run/replay-1/{way}{end}": [2, 3] for way in ("otherwise", "as-it-was") for end in ("", ".1", ".2")},
    }


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"step": 4}, "step is 4; allowed: 'decisive', or 0 to 3"),
        ({"step": -1}, "step is -1"),
        ({"step": True}, "step is True"),
        ({"step": 1, "tries": 2}, "tries=2 has no effect"),
        ({"step": 1, "rule": "lowest_sum"}, "rule='lowest_sum' has no effect"),
        ({"step": 1, "threshold": 0.5}, "threshold=0.5 has no effect"),
        ({"draws": 0}, "draws is 0; allowed: a whole number from 1 on"),
        ({"tries": 0}, "tries is 0"),
        ({"confirm": -1}, "confirm is -1; allowed: 0, or a whole number from 3 on"),
        ({"confirm": 2}, "confirm is 2; allowed: 0, or a whole number from 3 on"),
        ({"confirm": 3.0}, "confirm is 3.0"),
        ({"confirm": 3, "succeeded": None}, "confirm=3 has no effect: nothing tells whether a run succeeded"),
        ({"rule": "first_below", "threshold": -9.0}, "the rule 'first_below' finds no step of 'run' suspect"),
        ({"rule": "first_below"}, "threshold"),
        ({"threshold": -1.0}, "threshold=-1.0 has no effect without rule='first_below'"),
        ({"rule": "loudest"}, "loudest"),
        ({"fork_environment": None}, "fork_environment"),
    ],
)
def test_what_cannot_be_replayed_is_refused_before_anything_runs(given: dict[str, Any], told: str) -> None:
    graph, worlds, model = ran("sync")
    drawn = model.calls
    with pytest.raises(SelectionError, match=told):
        replayed("sync", graph, worlds, **given)
    assert (model.calls, worlds.forks) == (drawn, [])


def _broken(break_it: Callable[[], tuple[Any, Any]], told: str) -> None:
    graph, worlds = break_it()
    with pytest.raises(SelectionError, match=told):
        replayed("sync", graph, worlds)
    assert worlds.forks == []


def test_a_run_that_is_unknown_unfinished_or_kept_without_its_steps_cannot_be_replayed() -> None:
    def unknown() -> tuple[Any, Any]:
        return agent(follows)[:2]

    def waiting() -> tuple[Any, Any]:
        graph, worlds, _ = agent(follows, enforced(threshold=3.0, on_low="escalate"))
        graph.invoke(GO, thread("run"), durability="sync")
        return graph, worlds

    def only_its_end() -> tuple[Any, Any]:
        graph, worlds, _ = agent(follows)
        graph.invoke(GO, thread("run"), durability="exit")
        return graph, worlds

    def unguarded() -> tuple[Any, Any]:
        graph, worlds, _ = agent(follows)
        builder = type(graph.builder)(MessagesState)
        builder.add_node("agent", lambda state: {"messages": [("ai", "hello")]})
        builder.add_edge("__start__", "agent")
        plain = builder.compile(checkpointer=graph.checkpointer)
        plain.invoke(GO, thread("run"), durability="sync")
        return plain, worlds

    _broken(unknown, "holds no run 'run'")
    _broken(waiting, "not finished")
    _broken(only_its_end, "no checkpoint right before step")

    def paused() -> tuple[Any, Any]:
        graph, worlds, _ = ran("sync")
        return graph.builder.compile(checkpointer=graph.checkpointer, interrupt_before=["tools"]), worlds

    _broken(unguarded, "no guard's records")
    _broken(paused, "the graph pauses by itself")


@hows
def test_searches_hand_on_the_context_that_a_graph_asks_for(how: How) -> None:
    told: list[Any] = []

    def node(state: GuardState, runtime: Runtime[Who]) -> Any:
        told.append(runtime.context.name)
        return {"messages": [say(1.0)]}

    builder: Any = StateGraph(GuardState, context_schema=Who)
    builder.add_node("agent", Guard(ByArgument(), Rules()).node(node))
    builder.add_edge(START, "agent")
    graph = builder.compile(checkpointer=InMemorySaver())
    shared: Any = {"side_effect_free": True, "context": Who("me")}
    run(how, best_of_n, abest_of_n, graph, GO, 2, **shared, config=thread("n"))
    run(how, beam_search, abeam_search, graph, GO, width=1, expand=2, depth=1, **shared, config=thread("beam"))
    run(how, replay, areplay, graph, "n/0", draws=2, **shared)
    assert told == ["me"] * (2 + 2 + 2)


def test_a_replay_ends_with_the_turn_of_its_step() -> None:
    graph, worlds, _ = ran("sync")
    graph.invoke(GO, thread("run"), durability="sync")
    assert len(graph.get_state(thread("run")).values["pa"]) == 5
    [attempt] = replayed("sync", graph, worlds, step=1).attempts
    assert [message.type for message in attempt.run.messages].count("human") == 1
    assert attempt.run.finished


def test_a_step_inside_a_subgraph_is_not_mistaken_for_another() -> None:
    inner, worlds, _ = agent(follows, Rules(mode="shadow"), checkpointer=False)
    builder: Any = StateGraph(GuardState)
    builder.add_node("agent", inner.builder.compile())
    builder.add_edge(START, "agent")
    graph = builder.compile(checkpointer=InMemorySaver())
    graph.invoke(GO, thread("run"), durability="sync")
    for step, where in ((0, "after"), (1, "before")):
        with pytest.raises(SelectionError, match=f"no checkpoint right {where} step {step}"):
            replayed("sync", graph, worlds, step=step)
    assert worlds.forks == []


def test_of_a_replay_that_waits_or_whose_scorer_is_down_nobody_can_say_whether_it_succeeded() -> None:
    scorer = Failing(*[None] * 4, RuntimeError("down"))
    graph, worlds, _ = agent(follows, Rules(mode="shadow", on_scorer_error="flag"), scorer=scorer)
    graph.invoke(GO, thread("run"), durability="sync")
    found = replayed("sync", graph, worlds)
    assert (found.attempts[0].succeeded, found.flipped) == (None, None)
    assert found.attempts[0].choice["reason"] == "scorer_error"


def test_replays_at_the_same_time_have_threads_of_their_own(tmp_path: File) -> None:
    async def both() -> list[Any]:
        async with aiosqlite.connect(str(tmp_path / "runs.sqlite")) as connection:
            saver = AsyncSqliteSaver(connection)
            graph, worlds, _ = agent(follows, Rules(mode="shadow"), how="async", checkpointer=saver)
            await graph.ainvoke(GO, thread("run"), durability="sync")
            again = (areplay(graph, "run", fork_environment=worlds.afork, draws=3) for _ in range(2))
            return await asyncio.gather(*again)

    names = {found.attempts[0].run.thread for found in asyncio.run(both())}
    assert names == {"run/replay-1", "run/replay-1.1"}


def test_a_config_that_names_a_checkpoint_names_a_thread_only() -> None:
    graph, worlds, _ = ran("sync")
    config = graph.get_state(thread("run")).config
    assert replayed("sync", graph, worlds, config=config).flipped is True
