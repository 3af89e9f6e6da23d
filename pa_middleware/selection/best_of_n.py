"""Best of N whole runs: the same input N times, each in a world of its own, and the run with the best score.

A sum over steps grows with their number, and so does the bias of a minimum; in many tasks the length of a run alone
tells whether it failed. So runs are compared over an equal number of first steps, and their lengths stand beside.

A guard that enforces may end a run early. Such a run comes behind those that went on: what it did not let run counts
for nothing, and the few steps before are no measure for the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.errors import GraphBubbleUp

from pa_middleware.guard.way import run_immediately
from pa_middleware.scoring.advantage import StepAggregation, run_score
from pa_middleware.selection.driving import Driver, Graph, check_count, check_graph, in_thread
from pa_middleware.selection.errors import SelectionError
from pa_middleware.selection.fork import Fork, ForkEnvironment, check_world
from pa_middleware.selection.threads import Threads, base_name
from pa_middleware.selection.trajectory import Trajectory, from_values, reached


@dataclass(frozen=True, slots=True)
class BestOfN:
    """N runs of one task, and which of them scored best."""

    runs: tuple[Trajectory, ...]
    """Those that came to an end, in the order they were begun; those that the guard ended among them, see `stopped`."""
    scores: tuple[float | None, ...]
    """Of each, over the first `prefix` steps; None if one of these has no score, or was not taken, for the guard ended
    the run there. If the guard ended all of them, the actions it did not let run count."""
    prefix: int
    """How many first steps were compared. Runs that the guard ended do not shorten it, unless it ended all."""
    aggregation: StepAggregation
    failed: tuple[tuple[str, Exception], ...] = ()
    """Thread and error of runs that raised."""

    @property
    def best(self) -> Trajectory:
        """The run with the highest score, the earlier of two; one that the guard ended only if it ended all."""
        eligible = _scored(self.runs, self.scores)
        return self.runs[max(eligible, key=lambda place: (self.scores[place], -place))]

    @property
    def stopped(self) -> tuple[bool, ...]:
        """Of each run, whether the guard ended it."""
        return tuple(run.stopped for run in self.runs)

    @property
    def lengths(self) -> tuple[int, ...]:
        """Actions of each run. Look at them: where failing takes long, the shortest run is as good a choice."""
        return tuple(run.length for run in self.runs)

    @property
    def draws(self) -> int:
        """Actions drawn in all runs."""
        return sum(run.draws for run in self.runs)


def best_of_n(
    graph: Graph,
    input: Any,  # noqa: A002 - as LangGraph's own methods call it
    n: int,
    *,
    config: RunnableConfig | None = None,
    context: Any = None,
    messages_key: str = "messages",
    fork_environment: ForkEnvironment | None = None,
    side_effect_free: bool = False,
    aggregation: StepAggregation = "mean",
    prefix: int | None = None,
    at_once: int | None = None,
) -> BestOfN:
    """Run a guarded graph N times and take the run with the best score.

    Args:
        graph: compiled, with a guard in it; mode `shadow` is enough.
        input: of every run.
        n: how many runs, from 2 on.
        config: of every run. They get threads of their own, named after its `thread_id` if it has one.
        context: of every run, for a graph that has a `context_schema`.
        messages_key: the state key of the conversation.
        fork_environment: makes a fresh world for each run; see `Fork`.
        side_effect_free: say that the tools change nothing, in place of `fork_environment`.
        aggregation: makes one score of a run's steps. None is best everywhere: choose on data of your own.
        prefix: how many first steps to compare; None: as many as the shortest run has, which is the most in any case.
        at_once: most runs at the same time: by default one, and in `abest_of_n` all.

    Raises:
        SelectionError: no world, no guard, a thread that exists already, or no run that has a score and that the guard
            let go on, unless it ended all.
        Exception: what the runs raised, if all did.
    """
    driver = Driver(graph, fork_environment, waits=True, context=context, messages_key=messages_key)
    plan = _Plan(input, n, config, aggregation, prefix, at_once, side_effect_free)
    return run_immediately(_best_of_n(driver, plan))


async def abest_of_n(
    graph: Graph,
    input: Any,  # noqa: A002
    n: int,
    *,
    config: RunnableConfig | None = None,
    context: Any = None,
    messages_key: str = "messages",
    fork_environment: ForkEnvironment | None = None,
    side_effect_free: bool = False,
    aggregation: StepAggregation = "mean",
    prefix: int | None = None,
    at_once: int | None = None,
) -> BestOfN:
    """As `best_of_n`, in an event loop."""
    driver = Driver(graph, fork_environment, waits=False, context=context, messages_key=messages_key)
    return await _best_of_n(driver, _Plan(input, n, config, aggregation, prefix, at_once, side_effect_free))


@dataclass(frozen=True, slots=True)
class _Plan:
    input: Any
    n: int
    config: RunnableConfig | None
    aggregation: StepAggregation
    prefix: int | None
    at_once: int | None
    side_effect_free: bool


async def _best_of_n(driver: Driver, plan: _Plan) -> BestOfN:
    check_graph(driver.graph, forks=False)
    check_world(driver.fork_environment, side_effect_free=plan.side_effect_free)
    run_score([0.0], plan.aggregation)  # refuses an unknown name before anything runs
    check_count("n", plan.n, least=2)
    for name, value in (("prefix", plan.prefix), ("at_once", plan.at_once)):
        if value is not None:
            check_count(name, value)
    base = base_name(plan.config, "best-of")
    threads = [f"{base}/{number}" for number in range(plan.n)]
    with Threads(driver) as begun:
        if isinstance(driver.graph.checkpointer, BaseCheckpointSaver):
            for name in threads:
                await begun.new(name)
        ended = await driver.several([partial(_run, driver, plan, name) for name in threads], plan.at_once)
    failed = [(name, end) for name, end in zip(threads, ended, strict=True) if isinstance(end, Exception)]
    runs = [end for end in ended if isinstance(end, Trajectory) and end.finished]
    if len(failed) == plan.n:
        raise failed[0][1]
    if not runs:
        raise SelectionError("no run came to an end: they wait for a human, and nobody answers in a search")
    went_on = [run for run in runs if not run.stopped]
    shortest = min(run.length for run in went_on or runs)
    prefix = min(plan.prefix or shortest, shortest)
    scores = tuple(
        None if went_on and run.stopped and run.length <= prefix else run.score(plan.aggregation, prefix)
        for run in runs
    )
    if not _scored(runs, scores):
        some = "no run that the guard let go on has" if len(went_on) < len(runs) else "no run has"
        raise SelectionError(f"{some} a score for each of its first {prefix} steps; the records say what failed")
    return BestOfN(tuple(runs), scores, prefix, plan.aggregation, tuple(failed))


def _scored(runs: Sequence[Trajectory], scores: Sequence[float | None]) -> list[int]:
    """Places of the runs that may be taken: those with a score that the guard let go on, or any if it ended all."""
    all_stopped = all(run.stopped for run in runs)
    return [
        place
        for place, (run, score) in enumerate(zip(runs, scores, strict=True))
        if score is not None and (all_stopped or not run.stopped)
    ]


async def _run(driver: Driver, plan: _Plan, thread: str) -> Trajectory | Exception:
    await driver.fork(Fork(thread, None, 0))
    try:
        values = await driver.run(plan.input, in_thread(thread, plan.config))
        if isinstance(driver.graph.checkpointer, BaseCheckpointSaver):
            return await reached(driver, thread)
        finished = "__interrupt__" not in values
        return from_values(values, thread, finished=finished, messages_key=driver.messages_key)
    except GraphBubbleUp:
        raise
    except Exception as error:  # noqa: BLE001 - the other runs are worth no less for it
        return error
