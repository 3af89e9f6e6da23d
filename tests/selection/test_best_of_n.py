"""Best of N whole runs."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from guard.agents import Failing, enforced
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import MessagesState
from selection.worlds import GO, How, agent, run, taken, thread

from pa_middleware import Rules
from pa_middleware.selection import BestOfN, SelectionError, abest_of_n, best_of_n

hows = pytest.mark.parametrize("how", get_args(How))
RUNS = {1.0: (9.0,), 2.0: (1.0, 3.0), 3.0: (0.5,)}
"""The first action tells the run; the others follow it."""


def _follows(path: tuple[float, ...]) -> list[float | None]:
    if not path:
        return list(RUNS)
    rest = RUNS[path[0]]
    return [rest[len(path) - 1] if len(path) <= len(rest) else None]


def _best(how: How, graph: Any, n: int = 3, **settings: Any) -> BestOfN:
    found: BestOfN = run(how, best_of_n, abest_of_n, graph, GO, n, **{"at_once": 1, **settings})
    return found


@hows
def test_each_run_has_a_world_and_a_thread_of_its_own_and_the_best_of_them_is_told(how: How) -> None:
    graph, worlds, _ = agent(_follows, how=how)
    best = _best(how, graph, fork_environment=worlds.fork if how == "sync" else worlds.afork, config=thread("task"))
    assert [fork.target for fork in worlds.forks] == ["task/0", "task/1", "task/2"]
    assert all((fork.source, fork.steps) == (None, 0) for fork in worlds.forks)
    assert [worlds.done[name] for name in ("task/0", "task/1", "task/2")] == [[1, 9], [2, 1, 3], [3, 0.5]]
    assert [taken(one.messages) for one in best.runs] == [(1, 9), (2, 1, 3), (3, 0.5)]
    assert best.best.thread == "task/0"
    assert (best.lengths, best.draws) == ((3, 4, 3), 10)


def test_runs_are_compared_over_as_many_first_steps_as_the_shortest_has() -> None:
    graph, worlds, _ = agent(_follows)
    best = _best("sync", graph, fork_environment=worlds.fork, aggregation="sum")
    assert (best.prefix, best.scores) == (3, (10.0, 6.0, 3.5))
    longer = _best("sync", graph, fork_environment=worlds.fork, aggregation="min", prefix=2)
    assert (longer.prefix, longer.scores) == (2, (1.0, 1.0, 0.5))
    assert longer.best is longer.runs[0]  # the earlier of two
    assert _best("sync", graph, fork_environment=worlds.fork, prefix=9).prefix == 3


@pytest.mark.parametrize("checkpointer", [InMemorySaver(), False])
def test_a_graph_needs_no_checkpointer(checkpointer: Any) -> None:
    graph, worlds, _ = agent(_follows, checkpointer=checkpointer)
    best = _best("sync", graph, fork_environment=worlds.fork)
    assert taken(best.best.messages) == (1, 9)


@hows
def test_a_run_that_raises_is_told_beside_those_that_do_not(how: How) -> None:
    def follows(path: tuple[float, ...]) -> list[float | None]:
        if path == (2.0,):
            raise ValueError("no way on")
        return _follows(path)

    graph, worlds, _ = agent(follows, how=how)
    best = _best(how, graph, fork_environment=worlds.fork, config=thread("t"))
    assert [one.thread for one in best.runs] == ["t/0", "t/2"]
    [(name, error)] = best.failed
    assert (name, str(error)) == ("t/1", "no way on")


def test_if_all_raise_so_does_the_search() -> None:
    def follows(path: tuple[float, ...]) -> list[float | None]:
        raise ValueError("no way on")

    graph, _, _ = agent(follows)
    with pytest.raises(ValueError, match="no way on"):
        _best("sync", graph, side_effect_free=True)


def test_a_run_with_an_unscored_step_is_not_chosen() -> None:
    scorer = Failing(RuntimeError("down"), None)
    graph, worlds, _ = agent(_follows, Rules(on_scorer_error="flag"), scorer=scorer)
    best = _best("sync", graph, fork_environment=worlds.fork)
    assert best.scores[0] is None
    assert best.best is best.runs[1]


def test_without_any_score_there_is_nothing_to_choose_by() -> None:
    graph, worlds, _ = agent(_follows, Rules(on_scorer_error="flag"), scorer=Failing(RuntimeError("down")))
    with pytest.raises(SelectionError, match="no run has a score"):
        _best("sync", graph, fork_environment=worlds.fork)


def test_runs_that_wait_for_a_human_are_not_chosen() -> None:
    graph, worlds, _ = agent(_follows, enforced(threshold=0.75, thresholds={"final_answer": None}, on_low="escalate"))
    best = _best("sync", graph, fork_environment=worlds.fork, config=thread("t"))
    assert [one.thread for one in best.runs] == ["t/0", "t/1"]
    strict, worlds, _ = agent(_follows, enforced(threshold=9.0, on_low="escalate"))
    with pytest.raises(SelectionError, match="no run came to an end"):
        _best("sync", strict, fork_environment=worlds.fork)


def test_a_world_is_forked_or_said_to_need_none() -> None:
    graph, worlds, model = agent(_follows)
    with pytest.raises(SelectionError, match="fork_environment"):
        _best("sync", graph)
    with pytest.raises(SelectionError, match="side_effect_free=True has no effect"):
        _best("sync", graph, fork_environment=worlds.fork, side_effect_free=True)
    with pytest.raises(SelectionError, match="coroutine function"):
        _best("sync", graph, fork_environment=worlds.afork)
    assert model.calls == 0


def test_a_thread_that_exists_is_not_run_on() -> None:
    graph, worlds, _ = agent(_follows)
    _best("sync", graph, fork_environment=worlds.fork, config=thread("t"))
    with pytest.raises(SelectionError, match="'t/0' exists already"):
        _best("sync", graph, fork_environment=worlds.fork, config=thread("t"))


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"n": 1}, "n is 1; allowed: a whole number from 2 on"),
        ({"n": True}, "n is True"),
        ({"prefix": 0}, "prefix is 0"),
        ({"at_once": 0}, "at_once is 0"),
    ],
)
def test_numbers_out_of_range_are_refused_before_anything_runs(settings: dict[str, Any], told: str) -> None:
    graph, _, model = agent(_follows)
    with pytest.raises(SelectionError, match=told):
        _best("sync", graph, **{"side_effect_free": True, **settings})
    with pytest.raises(ValueError, match="aggregation is 'average'; allowed"):
        _best("sync", graph, side_effect_free=True, aggregation="average")
    assert model.calls == 0


def test_what_is_no_guarded_graph_is_refused() -> None:
    graph, _, _ = agent(_follows)
    with pytest.raises(SelectionError, match="compiled"):
        _best("sync", graph.builder, side_effect_free=True)
    builder = type(graph.builder)(MessagesState)
    builder.add_node("agent", lambda state: {"messages": [("ai", "hello")]})
    builder.add_edge("__start__", "agent")
    with pytest.raises(SelectionError, match="no guard's records"):
        _best("sync", builder.compile(), side_effect_free=True)


def test_runs_side_by_side_come_to_the_same() -> None:
    graph, worlds, _ = agent(lambda path: [1.0] if len(path) < 3 else [None], how="async")
    best = _best("async", graph, 4, fork_environment=worlds.afork, at_once=None)
    assert [taken(one.messages) for one in best.runs] == [(1, 1, 1)] * 4
    threaded, worlds, _ = agent(lambda path: [1.0] if len(path) < 3 else [None])
    best = _best("sync", threaded, 4, fork_environment=worlds.fork, at_once=3)
    assert [taken(one.messages) for one in best.runs] == [(1, 1, 1)] * 4


STOPPED = {0.5: (0.4, -5.0), 0.3: (0.3, 0.3, 0.3), 0.2: (-6.0,)}
"""Under a threshold of 0 the guard ends the first and the last of these runs at their last action."""


def _stops(path: tuple[float, ...]) -> list[float | None]:
    if not path:
        return list(STOPPED)
    rest = STOPPED[path[0]]
    return [rest[len(path) - 1] if len(path) <= len(rest) else None]


@hows
def test_a_run_that_the_guard_ended_comes_behind_and_sets_no_prefix(how: How) -> None:
    graph, worlds, _ = agent(_stops, enforced(threshold=0.0), how=how)
    best = _best(how, graph, fork_environment=worlds.fork if how == "sync" else worlds.afork)
    assert best.stopped == (True, False, True)
    assert best.lengths == (3, 5, 2)
    assert (best.prefix, best.best) == (5, best.runs[1])
    assert [score is None for score in best.scores] == [True, False, True]  # they did not take so many actions
    short = _best(how, graph, fork_environment=worlds.fork if how == "sync" else worlds.afork, prefix=2)
    assert short.scores == (0.45, 0.3, None)
    assert short.best is short.runs[1]  # whatever the one that was ended did before


def test_of_runs_that_the_guard_ended_all_the_best_is_told_over_what_it_did_not_let_run() -> None:
    graph, worlds, _ = agent(_stops, enforced(threshold=9.0))
    best = _best("sync", graph, fork_environment=worlds.fork)
    assert (best.stopped, best.prefix, best.scores) == ((True,) * 3, 1, (0.5, 0.3, 0.2))
    assert best.best is best.runs[0]


def test_a_guard_that_only_watches_ends_no_run() -> None:
    graph, worlds, _ = agent(_stops, Rules(threshold=0.0, mode="shadow"))
    best = _best("sync", graph, fork_environment=worlds.fork)
    assert (best.stopped, best.lengths) == ((False,) * 3, (4, 5, 3))


def test_a_run_that_the_guard_ended_is_not_taken_for_want_of_another() -> None:
    scorer = Failing(None, None, None, RuntimeError("down"))
    rules = enforced(threshold=0.0, on_scorer_error="flag")
    graph, worlds, _ = agent(_stops, rules, scorer=scorer)
    with pytest.raises(SelectionError, match="no run that the guard let go on has a score for each"):
        _best("sync", graph, 2, fork_environment=worlds.fork)
