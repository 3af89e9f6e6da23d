"""A beam search under way: level by level, what its branches draw, which of them go on, and what that takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from langchain_core.messages import ToolMessage
from langchain_core.runnables import RunnableConfig
from langgraph.types import StateSnapshot

from pa_middleware.guard.record import Record
from pa_middleware.guard.search import Expanding, Taking, searching
from pa_middleware.guard.way import Making
from pa_middleware.scoring.advantage import StepAggregation
from pa_middleware.selection.branch import Branch, Child, children
from pa_middleware.selection.cost import Cost
from pa_middleware.selection.driving import Driver, in_thread
from pa_middleware.selection.errors import SelectionError
from pa_middleware.selection.fork import Fork
from pa_middleware.selection.threads import Threads, base_name
from pa_middleware.selection.trajectory import reached


@dataclass(frozen=True, slots=True)
class Plan:
    """What was asked for; see `beam_search`."""

    input: Any
    width: int
    expand: int
    depth: int
    agent: str
    config: RunnableConfig | None
    side_effect_free: bool
    aggregation: StepAggregation
    at_once: int | None


class Search:
    """A beam search under way."""

    def __init__(self, driver: Driver, plan: Plan, threads: Threads) -> None:
        self._driver = driver
        self._plan = plan
        self._base = base_name(plan.config, "beam")
        self._threads = threads
        self.cost = Cost()
        self.branches: list[Branch] = []

    async def begin(self) -> None:
        """Run the graph up to its first action."""
        root = Branch(await self._new_thread())
        await self._driver.fork(Fork(root.thread, None, 0))
        self.branches = [root]
        self.cost.tool_executions += await self._advance(root, self._plan.input)

    async def level(self) -> None:
        """Draw, choose, fork, run."""
        going = [branch for branch in self.branches if not branch.over]
        self.cost.model_calls += sum(await self._several([partial(self._draw, branch) for branch in going]))
        found = [child for branch in self.branches for child in children(branch)]
        found.sort(key=lambda child: child.rank(self._plan.aggregation))  # stable: the earlier first
        survivors = found[: self._plan.width]
        self.branches = [await self._go_on(child) for child in survivors]
        going = [branch for branch in self.branches if not branch.over]
        self.cost.tool_executions += sum(await self._several([partial(self._advance, one, None) for one in going]))

    def ranked(self) -> list[Branch]:
        """The branches, the best first."""
        aggregation = self._plan.aggregation
        return sorted(self.branches, key=lambda one: Child(one, None, one.scores, one.doubtful).rank(aggregation))

    async def _several(self, making: Sequence[Making[int]]) -> list[int]:
        return await self._driver.several(making, self._plan.at_once)

    async def _draw(self, branch: Branch) -> int:
        """Draw the candidates of a branch's next action; the best of them stands in its thread afterwards.

        Returns:
            How many were drawn.
        """
        expanding = Expanding(self._plan.expand)
        with searching(expanding):
            await self._run(None, branch.thread, interrupt_after=[self._plan.agent])
        if expanding.found is None:
            raise SelectionError(f"no guard stands around {self._plan.agent!r}: its actions have no scores to go by")
        branch.found = expanding.found
        await self._check_step(branch.thread, branch.actions + 1, expanding.found.record)
        if branch.found.verdict.decision == "escalate":
            raise SelectionError(
                "the guard's rules ask a human about this step, and a search cannot wait for one; use rules with "
                "another on_low and on_scorer_error"
            )
        return len(branch.found.record["candidates"])

    async def _go_on(self, child: Child) -> Branch:
        """The branch that a surviving candidate makes: the same thread, or one forked before the action."""
        branch, found = child.branch, child.branch.found
        if child.number is None or found is None or branch.before is None:
            return branch
        if child.number == found.verdict.selected:
            return Branch(branch.thread, child.scores, branch.actions + 1, doubtful=child.doubtful)
        thread = await self._new_thread()
        messages = branch.before.values.get(self._driver.messages_key, ())
        await self._driver.fork(Fork(thread, branch.thread, branch.actions, messages))
        await self._driver.copy(branch.before.config, thread)
        self.cost.forks += 1
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

    async def _advance(self, branch: Branch, value: Any) -> int:
        """Run a branch up to its next action, or to its end.

        Returns:
            How many tool results came back meanwhile. A graph may have trimmed older ones, so new ones are counted.
        """
        before = await self._driver.state(in_thread(branch.thread))
        if before.next != (self._plan.agent,):  # else one action leads right to the next
            await self._run(value, branch.thread, interrupt_before=[self._plan.agent])
        after = await self._driver.state(in_thread(branch.thread))
        if not before.values:
            before = await self._entered(branch.thread) or before
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
        return len(self._tool_results(after) - self._tool_results(before))

    async def _entered(self, thread: str) -> StateSnapshot | None:
        """The state of a thread before its first node: its input, which may hold tool results of its own."""
        history = await self._driver.history(thread)
        return next((one for one in history if (one.metadata or {}).get("step") == 0), None)

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

    def _tool_results(self, state: StateSnapshot) -> set[str]:
        """Ids of those in a conversation."""
        messages = state.values.get(self._driver.messages_key, ())
        return {message.id or message.tool_call_id for message in messages if isinstance(message, ToolMessage)}

    async def _new_thread(self) -> str:
        return await self._threads.new(f"{self._base}/{len(self._threads.names)}")
