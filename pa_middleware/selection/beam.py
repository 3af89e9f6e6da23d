"""Beam search over the states of a graph: several runs at once, of which the best go on.

Every branch is a LangGraph thread of its own. At each level a branch draws some candidates for its next action, without
running any; of all branches' candidates the best survive, by the score of the whole branch up to them. A branch goes on
in its own thread with its best candidate, and another thread is forked from the checkpoint before the action for each
further one. No other candidate reaches any state, and tools run on survivors only: the thread of a branch that was
given up ends with its best candidate, unexecuted.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from langchain_core.messages import ToolMessage
from langchain_core.runnables import RunnableConfig
from langgraph.types import StateSnapshot

from pa_middleware.guard.record import Record
from pa_middleware.guard.search import Expanding, Taking, searching
from pa_middleware.guard.way import run_immediately
from pa_middleware.scoring.advantage import StepAggregation, run_score
from pa_middleware.selection.branch import Branch, Child, children
from pa_middleware.selection.cost import Cost, count_checkpoints
from pa_middleware.selection.driving import Driver, Graph, check_count, check_graph, in_thread
from pa_middleware.selection.errors import SelectionError
from pa_middleware.selection.fork import Fork, ForkEnvironment, check_world
from pa_middleware.selection.threads import Threads, base_name
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

    Raises:
        SelectionError: no world, no checkpointer, no guard, no such node, a thread that exists already, a graph that
            asks a human, pauses by itself, or acts otherwise than by one node, one action at a time.
        Exception: whatever a node or tool raises, in whichever branch.
    """
    driver = Driver(graph, fork_environment, waits=True, context=context, messages_key=messages_key)
    plan = _Plan(input, width, expand, depth, agent, config, side_effect_free, aggregation)
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
) -> Beam:
    """As `beam_search`, in an event loop; the branches of a level draw and run side by side."""
    driver = Driver(graph, fork_environment, waits=False, context=context, messages_key=messages_key)
    plan = _Plan(input, width, expand, depth, agent, config, side_effect_free, aggregation)
    return await _search(driver, plan)


@dataclass(frozen=True, slots=True)
class _Plan:
    input: Any
    width: int
    expand: int
    depth: int
    agent: str
    config: RunnableConfig | None
    side_effect_free: bool
    aggregation: StepAggregation


async def _search(driver: Driver, plan: _Plan) -> Beam:
    _check(driver, plan)
    with Threads(driver) as threads:
        search = _Search(driver, plan, threads)
        await search.begin()
        for _ in range(plan.depth):
            if all(branch.over for branch in search.branches):
                break
            await search.level()
        return await search.result()


def _check(driver: Driver, plan: _Plan) -> None:
    check_graph(driver.graph, forks=True)
    check_world(driver.fork_environment, side_effect_free=plan.side_effect_free)
    run_score([0.0], plan.aggregation)  # refuses an unknown name before anything runs
    for name in ("width", "expand", "depth"):
        check_count(name, getattr(plan, name))
    nodes = sorted(name for name in driver.graph.nodes if not name.startswith("__"))
    if plan.agent not in nodes:
        raise SelectionError(f"agent={plan.agent!r} is no node of this graph; its nodes: {nodes}")
    if driver.graph.interrupt_before_nodes or driver.graph.interrupt_after_nodes:
        raise SelectionError(
            "the graph pauses by itself, and in a search nobody lets it go on; compile it without interrupt_before and "
            "interrupt_after"
        )


class _Search:
    """A beam search under way."""

    def __init__(self, driver: Driver, plan: _Plan, threads: Threads) -> None:
        self._driver = driver
        self._plan = plan
        self._base = base_name(plan.config, "beam")
        self._threads = threads
        self._cost = Cost()
        self.branches: list[Branch] = []

    async def begin(self) -> None:
        """Run the graph up to its first action."""
        root = Branch(await self._new_thread())
        await self._driver.fork(Fork(root.thread, None, 0))
        self.branches = [root]
        await self._advance(root, self._plan.input)

    async def level(self) -> None:
        """Draw, choose, fork, run."""
        going = [branch for branch in self.branches if not branch.over]
        await self._driver.several([partial(self._draw, branch) for branch in going])
        found = [child for branch in self.branches for child in children(branch)]
        found.sort(key=lambda child: child.rank(self._plan.aggregation))  # stable: the earlier first
        survivors = found[: self._plan.width]
        self.branches = [await self._go_on(child) for child in survivors]
        going = [branch for branch in self.branches if not branch.over]
        await self._driver.several([partial(self._advance, branch, None) for branch in going])

    async def result(self) -> Beam:
        """The survivors, and what it took."""
        await count_checkpoints(self._driver, self._threads.names, self._cost)
        aggregation = self._plan.aggregation
        ended = sorted(self.branches, key=lambda one: Child(one, None, one.scores, one.doubtful).rank(aggregation))
        return Beam(
            tuple([await reached(self._driver, branch.thread) for branch in ended]),
            tuple(run_score(branch.scores, aggregation) if branch.scores else None for branch in ended),
            self._cost,
        )

    async def _draw(self, branch: Branch) -> None:
        """Draw the candidates of a branch's next action; the best of them stands in its thread afterwards."""
        expanding = Expanding(self._plan.expand)
        with searching(expanding):
            await self._run(None, branch.thread, interrupt_after=[self._plan.agent])
        if expanding.found is None:
            raise SelectionError(f"no guard stands around {self._plan.agent!r}: its actions have no scores to go by")
        branch.found = expanding.found
        await self._check_step(branch.thread, branch.actions + 1, expanding.found.record)
        self._cost.model_calls += len(branch.found.record["candidates"])
        if branch.found.verdict.decision == "escalate":
            raise SelectionError(
                "the guard's rules ask a human about this step, and a search cannot wait for one; use rules with "
                "another on_low and on_scorer_error"
            )

    async def _go_on(self, child: Child) -> Branch:
        """The branch that a surviving candidate makes: the same thread, or one forked before the action."""
        branch, found = child.branch, child.branch.found
        if child.number is None or found is None or branch.before is None:
            return branch
        if child.number == found.verdict.selected:
            return Branch(branch.thread, child.scores, branch.actions + 1, doubtful=child.doubtful)
        thread = await self._new_thread()
        await self._driver.copy(branch.before.config, thread)
        messages = branch.before.values.get(self._driver.messages_key, ())
        await self._driver.fork(Fork(thread, branch.thread, branch.actions, messages))
        self._cost.forks += 1
        taking = Taking(found, child.number)
        with searching(taking):
            await self._run(None, thread, interrupt_after=[self._plan.agent])
        if taking.record is None:
            raise SelectionError(
                f"{self._plan.agent!r} did not take the candidate that was chosen for it; a node with a cache_policy "
                "answers what it answered before"
            )
        await self._check_step(thread, branch.actions + 1, taking.record)
        return Branch(thread, child.scores, branch.actions + 1, doubtful=child.doubtful)

    async def _advance(self, branch: Branch, value: Any) -> None:
        """Run a branch up to its next action, or to its end."""
        before = await self._driver.state(in_thread(branch.thread))
        if before.next != (self._plan.agent,):  # else one action leads right to the next
            await self._run(value, branch.thread, interrupt_before=[self._plan.agent])
        after = await self._driver.state(in_thread(branch.thread))
        self._cost.tool_executions += self._tool_results(after) - self._tool_results(before)
        if after.interrupts:
            raise SelectionError(
                f"the graph asks a human in thread {branch.thread!r}, and a search cannot wait for one: "
                f"{after.interrupts!r:.200}"
            )
        if len(after.next) > 1 or any(name != self._plan.agent for name in after.next):
            raise SelectionError(
                f"the graph goes on with {after.next}, where one {self._plan.agent!r} was expected; beam search "
                "follows one agent that acts by itself"
            )
        branch.over, branch.before = not after.next, after

    async def _run(self, value: Any, thread: str, **settings: Any) -> None:
        await self._driver.run(value, in_thread(thread, self._plan.config), **settings)

    async def _check_step(self, thread: str, actions: int, record: Record) -> None:
        """See to it that the agent took the one action that was chosen, and no other."""
        run = await reached(self._driver, thread)
        if run.length != actions or run.records[-1]["id"] != record["id"]:
            raise SelectionError(
                f"{self._plan.agent!r} took {run.length} actions where {actions} were chosen; beam search follows a "
                "node that takes one action at a time. An agent in a subgraph is searched by its own graph"
            )

    def _tool_results(self, state: StateSnapshot) -> int:
        return sum(isinstance(message, ToolMessage) for message in state.values.get(self._driver.messages_key, ()))

    async def _new_thread(self) -> str:
        return await self._threads.new(f"{self._base}/{len(self._threads.names)}")
