"""Whether a run that was flipped was flipped by its step, or by luck."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path as File
from typing import Any, get_args

import pytest
from guard.agents import ByArgument, enforced, say
from langchain_core.runnables import RunnableConfig, RunnableLambda
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from langgraph.types import Command
from selection.replays import follows, ran, replayed
from selection.worlds import GO, How, Path, agent, taken, thread

from pa_middleware import Guard, GuardState, Rules, record
from pa_middleware.selection import Confirmation, Ending, Trajectory
from pa_middleware.tracing import read

hows = pytest.mark.parametrize("how", get_args(How))


@hows
def test_a_flip_is_confirmed_by_runs_on_from_the_new_action_and_from_the_old_one(how: How) -> None:
    graph, worlds, model = ran(how)
    drawn, before = model.calls, [one.config for one in graph.get_state_history(thread("run"))]
    found = replayed(how, graph, worlds, confirm=3)
    [attempt] = found.attempts
    assert attempt.confirmation is not None
    told = {
        name: [(one.run.thread, taken(one.run.messages), one.succeeded) for one in endings]
        for name, endings in (("new", attempt.confirmation.otherwise), ("old", attempt.confirmation.as_it_was))
    }
    assert told == {
        "new": [(f"run/replay-1/otherwise{end}", (1.0, 4.0, 3.0), True) for end in ("", ".1", ".2")],
        "old": [
            (f"run/replay-1/as-it-was{end}", (1.0, -5.0, x), False) for end, x in (("", 2.0), (".1", 0.5), (".2", 2.0))
        ],
    }
    assert attempt.confirmation.gain == 1.0
    assert attempt.confirmation.p_value == pytest.approx(1 / 20)
    assert found.confirmed_at == 1
    assert model.calls == drawn + (3 + 1 + 1) + 6 * 2  # the step itself is drawn once, all later ones anew
    assert [one.config for one in graph.get_state_history(thread("run"))] == before
    assert [(fork.source, fork.steps, taken(fork.messages)) for fork in worlds.forks] == [("run", 1, (1.0,))] * 7
    assert [fork.luck for fork in worlds.forks] == [None, 0, 1, 2, 3, 4, 5]
    assert worlds.done["run/replay-1/as-it-was"] == [1.0, -5.0, 2.0]


def test_after_a_flip_that_may_be_luck_the_next_suspect_is_tried() -> None:
    ways: list[list[float | None]] = [[1.0], [-5.0, 0.5, -5.0], [-3.0, 3.0, -3.0], [1.0, 2.0], [None]]
    graph, worlds, _ = agent(lambda path: ways[len(path)], Rules(mode="shadow"))
    graph.invoke(GO, thread("run"), durability="sync")
    won = iter([False, True, *[False] * 6, True, *[True] * 3, *[False] * 3])
    found = replayed("sync", graph, worlds, confirm=3, succeeded=lambda run: next(won))
    assert [(one.step, one.changed, one.succeeded) for one in found.attempts] == [(1, True, True), (2, True, True)]
    assert [each.confirmation.p_value for each in found.attempts if each.confirmation] == [1.0, pytest.approx(1 / 20)]
    assert (found.flipped_at, found.confirmed_at) == (1, 2)


def test_a_step_that_ended_the_run_is_confirmed_by_that_end() -> None:
    ways: list[list[float | None]] = [[1.0], [None, 4.0], [None]]
    graph, worlds, _ = agent(lambda path: ways[len(path)], Rules(mode="shadow"))
    graph.invoke(GO, thread("run"), durability="sync")
    found = replayed("sync", graph, worlds, step=1, confirm=3)
    [attempt] = found.attempts
    assert attempt.confirmation is not None
    assert [one.succeeded for one in attempt.confirmation.as_it_was] == [False] * 3
    assert [one.succeeded for one in attempt.confirmation.otherwise] == [True] * 3
    for old in attempt.confirmation.as_it_was:
        assert [message.id for message in old.run.messages] == [message.id for message in found.original.messages]


def test_what_was_not_flipped_is_not_confirmed() -> None:
    graph, worlds, _ = ran("sync")
    for given in ({"step": 2}, {"succeeded": lambda run: True}):
        found = replayed("sync", graph, worlds, confirm=3, **given)
        assert [attempt.confirmation for attempt in found.attempts] == [None]


def test_an_action_that_was_rewritten_before_it_ran_is_the_one_that_the_run_took() -> None:
    graph, worlds, _ = agent(follows, Rules(mode="shadow"))
    pausing: Any = {"durability": "sync", "interrupt_before": ["tools"]}
    graph.invoke(GO, thread("run"), **pausing)
    graph.invoke(None, thread("run"), **pausing)
    written = graph.get_state(thread("run")).values["messages"][-1]
    call = {**written.tool_calls[0], "args": {"x": -7.0}}
    graph.update_state(thread("run"), {"messages": [written.model_copy(update={"tool_calls": [call]})]})
    graph.invoke(None, thread("run"), durability="sync")
    assert taken(graph.get_state(thread("run")).values["messages"])[:2] == (1.0, -7.0)
    [attempt] = replayed("sync", graph, worlds, step=1, confirm=3).attempts
    assert attempt.confirmation is not None
    assert {taken(one.run.messages)[:2] for one in attempt.confirmation.as_it_was} == {(1.0, -7.0)}


def test_a_run_that_raises_while_it_confirms_is_unknown_and_the_others_count() -> None:
    graph, worlds, model = ran("sync")
    seen: list[Path] = []

    def failing(path: Path) -> Sequence[float | None]:
        seen.append(path)
        if seen.count((1.0, 4.0)) == 2:  # the attempt came there first
            raise ValueError("broke")
        return follows(path)

    model.follows = failing
    [attempt] = replayed("sync", graph, worlds, confirm=3, tries=1).attempts
    assert attempt.confirmation is not None
    assert [(one.succeeded, one.error) for one in attempt.confirmation.otherwise] == [
        (None, "ValueError: broke"),
        (True, None),
        (True, None),
    ]
    assert (attempt.confirmation.p_value, attempt.confirmation.confirmed) == (None, None)


def test_a_way_whose_run_waits_for_a_human_is_not_run_again() -> None:
    graph, worlds, _ = agent(follows, enforced(threshold=0.0, on_low="escalate"))
    graph.invoke(GO, thread("run"), durability="sync")
    graph.invoke(Command(resume={"decisions": [{"type": "approve"}]}), thread("run"), durability="sync")
    [attempt] = replayed("sync", graph, worlds, step=1, confirm=3).attempts
    assert attempt.confirmation is not None
    assert [one.succeeded for one in attempt.confirmation.otherwise] == [True] * 3
    assert [(one.succeeded, one.run.finished) for one in attempt.confirmation.as_it_was] == [(None, False)]


def _ends(*succeeded: bool | None) -> tuple[Ending, ...]:
    return tuple(Ending(Trajectory("run", (), {}, True), each) for each in succeeded)


@pytest.mark.parametrize(("new", "old"), [(0, 0), (3, 1), (2, 2), (4, 3), (4, 0), (1, 3)])
def test_the_p_value_is_the_share_of_all_ways_to_share_out_the_endings(new: int, old: int) -> None:
    confirmation = Confirmation(_ends(*[True] * new, *[False] * (4 - new)), _ends(*[True] * old, *[False] * (3 - old)))
    endings = [True] * (new + old) + [False] * (7 - new - old)
    ways = [sum(endings[place] for place in chosen) for chosen in combinations(range(7), 4)]
    assert confirmation.p_value == pytest.approx(sum(way >= new for way in ways) / len(ways))
    assert confirmation.gain == pytest.approx(new / 4 - old / 3)


def test_of_endings_that_are_not_all_known_nothing_is_said() -> None:
    confirmation = Confirmation(_ends(True, None), _ends(False, False))
    assert (confirmation.gain, confirmation.p_value, confirmation.confirmed) == (None, None, None)


def test_runs_that_went_all_alike_may_be_one_and_confirm_nothing() -> None:
    ways: list[list[float | None]] = [[1.0], [-5.0, 4.0], [2.0], [None]]
    graph, worlds, _ = agent(lambda path: ways[len(path)], Rules(mode="shadow"))
    graph.invoke(GO, thread("run"), durability="sync")
    found = replayed("sync", graph, worlds, tries=1, confirm=3)
    confirmation = found.attempts[0].confirmation
    assert confirmation is not None
    assert (confirmation.alike, confirmation.confirmed, found.confirmed_at) == (True, None, None)
    assert confirmation.p_value == pytest.approx(1 / 20)


def test_a_step_of_an_agent_within_the_run_does_not_take_the_beginning_of_its_trace(tmp_path: File) -> None:
    inner: Any = StateGraph(GuardState)
    inner.add_node("agent", Guard(ByArgument(), Rules(mode="shadow")).node(lambda state: {"messages": [say(0.5)]}))
    inner.add_edge(START, "agent")
    asked = inner.compile()
    graph, worlds, _ = agent(follows, Rules(mode="shadow"))
    run_tools = graph.builder.nodes["tools"].runnable

    def tools(state: Any, config: RunnableConfig) -> Any:
        asked.invoke({"messages": [("user", "go")]})
        return run_tools.invoke(state, config)

    graph.builder.nodes["tools"].runnable = RunnableLambda(tools)
    graph = graph.builder.compile(checkpointer=InMemorySaver())
    with record(tmp_path / "trace.jsonl"):
        graph.invoke(GO, thread("run"), durability="sync")
        replayed("sync", graph, worlds, confirm=3)
    own = [one for one in read(tmp_path / "trace.jsonl") if len(one.steps) > 1]
    runs = {one.conversation_id: [step.index for step in one.steps] for one in own}
    assert runs["run/replay-1/otherwise"] == runs["run/replay-1/as-it-was"] == [2, 3]
    assert len({one.trace_id for one in own}) == len(own) == 2 + 6
