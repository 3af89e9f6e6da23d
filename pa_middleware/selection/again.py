"""A finished run again from one of its steps: with the step drawn anew, or on from an action that was chosen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from langchain_core.runnables import RunnableConfig
from langgraph.types import StateSnapshot

from pa_middleware.debugging.attribution import Rule
from pa_middleware.guard.search import Expanding, Resuming, searching
from pa_middleware.scoring.messages import action_key
from pa_middleware.selection.checkpoints import after, before
from pa_middleware.selection.driving import Driver, in_thread
from pa_middleware.selection.errors import SelectionError
from pa_middleware.selection.fork import Fork
from pa_middleware.selection.replay_result import Attempt, Confirmation, Ending, Succeeded
from pa_middleware.selection.threads import Threads
from pa_middleware.selection.trajectory import Trajectory, reached


@dataclass(frozen=True, slots=True)
class Plan:
    """What was asked for; see `replay`."""

    thread: str
    step: int | Literal["decisive"]
    rule: Rule | None
    threshold: float | None
    tries: int | None
    draws: int
    confirm: int
    config: RunnableConfig | None
    side_effect_free: bool
    succeeded: Succeeded | None

    def outcome(self, run: Trajectory) -> bool | None:
        """Whether a run succeeded; of one that waits nobody can say."""
        return self.succeeded(run) if self.succeeded is not None and run.finished else None


@dataclass(frozen=True, slots=True)
class Again:
    """Makes runs that go on from a step of a finished one, each in a thread of its own."""

    driver: Driver
    plan: Plan
    threads: Threads
    original: Trajectory
    history: Sequence[StateSnapshot]
    """All checkpoints of the original, the latest first."""

    async def attempt(self, step: int) -> Attempt:
        """The run again from before a step, with the best of several draws for it."""
        start = before(self.history, step)
        thread = await self.threads.free(f"{self.plan.thread}/replay-{step}")
        expanding = Expanding(self.plan.draws, forked=True)
        run = await self._run_on(start, step, thread, expanding)
        if expanding.found is None or expanding.found.record["step"] != step:
            raise SelectionError(f"step {step} was not drawn again: the graph did not come to its guarded agent")
        choice = expanding.found.record
        drawn = choice["reason"] != "scorer_error"  # else nothing was chosen, and the outcome says nothing of the step
        return Attempt(step, choice, run, self.plan.outcome(run) if drawn else None, self._changed(step, run))

    async def confirmation(self, attempt: Attempt) -> Confirmation:
        """Runs on from right after a step, as an attempt took it and as the original did."""
        history = await self.driver.history(attempt.run.thread)
        return Confirmation(
            attempt.step,
            await self._endings(attempt, history, "otherwise"),
            await self._endings(attempt, self.history, "as-it-was"),
        )

    async def _endings(self, attempt: Attempt, history: Sequence[StateSnapshot], name: str) -> tuple[Ending, ...]:
        chosen = after(history, attempt.step)
        runs = []
        for _ in range(self.plan.confirm):
            thread = await self.threads.free(f"{attempt.run.thread}/{name}")
            runs.append(await self._run_on(chosen, attempt.step, thread, Resuming()))
        return tuple(Ending(run, self.plan.outcome(run)) for run in runs)

    async def _run_on(self, at: StateSnapshot, step: int, thread: str, search: Expanding | Resuming) -> Trajectory:
        """Go on from a checkpoint to the end, in a world as it was before the step."""
        await self.driver.copy(at.config, thread)
        messages = before(self.history, step).values.get(self.driver.messages_key, ())
        await self.driver.fork(Fork(thread, self.plan.thread, step, messages))
        with searching(search):
            await self.driver.run(None, in_thread(thread, self.plan.config))
        return await reached(self.driver, thread)

    def _changed(self, step: int, run: Trajectory) -> bool:
        """Whether the step is another action than in the original; by its calls where no conversation keeps it."""
        old, new = self.original.action(step), run.action(step)
        if old is not None and new is not None:
            return (key := action_key(old)) is None or key != action_key(new)
        calls = [[call["digest"] for call in each.records[step]["calls"]] for each in (self.original, run)]
        return not calls[0] or calls[0] != calls[1]
