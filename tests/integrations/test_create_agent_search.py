"""Choosing among runs of agents made with `create_agent`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, get_args

import pytest
from guard.agents import ByArgument
from langchain.agents import create_agent
from langchain.agents.middleware import before_model
from langgraph.checkpoint.memory import InMemorySaver
from pa_langchain import ProgressAdvantageMiddleware
from selection.test_beam import naive_beam
from selection.worlds import GO, How, Path, Tree, Worlds, run, taken, thread

from pa_middleware import Rules
from pa_middleware.selection import (
    SelectionError,
    abeam_search,
    abest_of_n,
    areplay,
    beam_search,
    best_of_n,
    replay,
)

hows = pytest.mark.parametrize("how", get_args(How))


@before_model
def counting(state: Any, runtime: Any) -> None:
    """A node between the tools and the model."""


def _agent(follows: Any, *, checkpointer: Any = None) -> tuple[Any, Worlds, Tree]:
    worlds, model = Worlds(), Tree(follows=follows)
    graph = create_agent(
        model,
        worlds.tools,
        middleware=[counting, ProgressAdvantageMiddleware(ByArgument(), Rules())],
        checkpointer=InMemorySaver() if checkpointer is None else checkpointer,
    )
    return graph, worlds, model


def _follows(path: Path) -> Sequence[float | None]:
    return [2.0 - len(path), -5.0, 4.0 + len(path)] if len(path) < 3 else [None]


@hows
def test_beam_search_finds_what_a_naive_beam_finds(how: How) -> None:
    graph, worlds, _ = _agent(_follows)
    found = run(
        how,
        beam_search,
        abeam_search,
        graph,
        GO,
        width=2,
        expand=3,
        depth=5,
        agent="model",
        fork_environment=worlds.fork,
    )
    expected = naive_beam(_follows, 2, 3, 5, "mean")
    assert list(zip(found.scores, (taken(one.messages) for one in found.branches), strict=True)) == expected
    for branch in found.branches:
        assert tuple(worlds.done[branch.thread]) == taken(branch.messages)
        assert branch.finished


@hows
def test_best_of_n_reads_the_records_from_the_checkpoints(how: How) -> None:
    graph, worlds, _ = _agent(lambda path: [1.0, 3.0, 2.0] if not path else [None])
    found = run(how, best_of_n, abest_of_n, graph, GO, 3, fork_environment=worlds.fork, at_once=1)
    assert [taken(one.messages) for one in found.runs] == [(1,), (3,), (2,)]
    assert found.best is found.runs[1]
    bare, worlds, _ = _agent(lambda path: [None], checkpointer=False)
    with pytest.raises(SelectionError, match="needs a checkpointer"):
        run(how, best_of_n, abest_of_n, bare, GO, 2, fork_environment=worlds.fork)


@hows
def test_replay_draws_the_decisive_step_again(how: How) -> None:
    graph, worlds, _ = _agent(lambda path: [-3.0, 4.0, 0.0] if len(path) == 1 else [1.0] if len(path) < 3 else [None])
    if how == "sync":
        graph.invoke(GO, thread("run"), durability="sync")
    else:
        asyncio.run(graph.ainvoke(GO, thread("run"), durability="sync"))
    found = run(
        how,
        replay,
        areplay,
        graph,
        "run",
        draws=2,
        tries=1,
        confirm=3,
        fork_environment=worlds.fork,
        succeeded=lambda ended: 4 in taken(ended.messages),
    )
    [attempt] = found.attempts
    assert (attempt.step, taken(found.original.messages)) == (1, (1, -3, 1))
    assert taken(attempt.run.messages) == (1, 4, 1)
    assert worlds.done[attempt.run.thread] == [1, 4, 1]
    assert attempt.confirmation is not None
    ended = [one.run for one in (*attempt.confirmation.otherwise, *attempt.confirmation.as_it_was)]
    assert [worlds.done[one.thread] for one in ended] == [[1, 4, 1]] * 3 + [[1, -3, 1]] * 3
    assert all(one.finished for one in ended)
