"""Beam search over the states of a graph: several runs at once, of which the best go on.

Every branch is a LangGraph thread of its own. At each level a branch draws some candidates for its next action, without
running any; of all branches' candidates the best survive, by the score of the whole branch up to them. A branch goes on
in its own thread with its best candidate, and another thread is forked from the checkpoint before the action for each
further one. No other candidate reaches any state, and tools run on survivors only: the thread of a branch that was
given up ends with its best candidate, unexecuted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from langchain_core.runnables import RunnableConfig

from pa_middleware.guard.way import run_immediately
from pa_middleware.scoring.advantage import StepAggregation, run_score
from pa_middleware.selection.cost import Cost, count_checkpoints
from pa_middleware.selection.driving import Driver, Graph, check_count, check_graph, check_unpaused
from pa_middleware.selection.errors import SelectionError
from pa_middleware.selection.fork import ForkEnvironment, check_world
from pa_middleware.selection.levels import Plan, Search
from pa_middleware.selection.threads import Threads
from pa_middleware.selection.trajectory import Trajectory, reached


@dataclass(frozen=True, slots=True)
class Beam:
    """What a beam search came to."""

    branches: tuple[Trajectory, ...]
    """The survivors, the best first. Those with an unscored step, and those that the guard ended, come last."""
    scores: tuple[float | None, ...]
    """Of each, over the actions that were taken and scored; None if there was none."""
    cost: Cost

    @property
    def best(self) -> Trajectory:
        """The branch with the highest score."""
        return self.branches[0]


def beam_search(
    graph: Graph,
    input: Any,  # noqa: A002 - as LangGraph's own methods call it
    *,
    width: int,
    expand: int,
    depth: int,
    agent: str = "agent",
    config: RunnableConfig | None = None,
    context: Any = None,
    messages_key: str = "messages",
    fork_environment: ForkEnvironment | None = None,
    side_effect_free: bool = False,
    aggregation: StepAggregation = "mean",
    at_once: int | None = None,
) -> Beam:
    """Search for the run whose actions score best.

    The thresholds of the guard's rules hold if it enforces them: a candidate below its threshold does not survive, and
    where none passes the step goes as the rules say. They may not ask a human.

    Args:
        graph: compiled with a checkpointer, guarded.
        input: of the run.
        width: how many branches survive a level.
        expand: candidates drawn for each branch at each level.
        depth: most actions of a branch.
        agent: the node that proposes actions; `model` in an agent of `create_agent`.
        config: of every branch. They get threads of their own, named after its `thread_id` if it has one.
        context: of every run, for a graph that has a `context_schema`.
        messages_key: the state key of the conversation.
        fork_environment: makes a world for each branch; see `Fork`.
        side_effect_free: say that the tools change nothing, in place of `fork_environment`.
        aggregation: makes one score of a branch's steps. Branches of a level have the same number of them; one that is
            over keeps its score, and its place if that is good enough.
        at_once: most branches that draw or run at the same time: by default one, and in `abeam_search` all.

    Raises:
        SelectionError: no world, no checkpointer, no guard, no such node, a thread that exists already, a graph that
            asks a human, pauses by itself, or acts otherwise than by one node, one action at a time.
        Exception: whatever a node or tool raises, in whichever branch.
    """
    driver = Driver(graph, fork_environment, waits=True, context=context, messages_key=messages_key)
    plan = Plan(input, width, expand, depth, agent, config, side_effect_free, aggregation, at_once)
    return run_immediately(_search(driver, plan))


async def abeam_search(
    graph: Graph,
    input: Any,  # noqa: A002
    *,
    width: int,
    expand: int,
    depth: int,
    agent: str = "agent",
    config: RunnableConfig | None = None,
    context: Any = None,
    messages_key: str = "messages",
    fork_environment: ForkEnvironment | None = None,
    side_effect_free: bool = False,
    aggregation: StepAggregation = "mean",
    at_once: int | None = None,
) -> Beam:
    """As `beam_search`, in an event loop."""
    driver = Driver(graph, fork_environment, waits=False, context=context, messages_key=messages_key)
    plan = Plan(input, width, expand, depth, agent, config, side_effect_free, aggregation, at_once)
    return await _search(driver, plan)


async def _search(driver: Driver, plan: Plan) -> Beam:
    _check(driver, plan)
    with Threads(driver) as threads:
        search = Search(driver, plan, threads)
        await search.begin()
        for _ in range(plan.depth):
            if all(branch.over for branch in search.branches):
                break
            await search.level()
        await count_checkpoints(driver, threads.names, search.cost)
        ended = search.ranked()
        return Beam(
            tuple([await reached(driver, branch.thread) for branch in ended]),
            tuple(run_score(branch.scores, plan.aggregation) if branch.scores else None for branch in ended),
            search.cost,
        )


def _check(driver: Driver, plan: Plan) -> None:
    check_graph(driver.graph, forks=True)
    check_world(driver.fork_environment, side_effect_free=plan.side_effect_free)
    run_score([0.0], plan.aggregation)  # refuses an unknown name before anything runs
    for name in ("width", "expand", "depth"):
        check_count(name, getattr(plan, name))
    if plan.at_once is not None:
        check_count("at_once", plan.at_once)
    nodes = sorted(name for name in driver.graph.nodes if not name.startswith("__"))
    if plan.agent not in nodes:
        raise SelectionError(f"agent={plan.agent!r} is no node of this graph; its nodes: {nodes}")
    check_unpaused(driver.graph)
