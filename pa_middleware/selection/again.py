"""A finished run again from one of its steps: with the step drawn anew, or on from an action that was chosen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableConfig
from langgraph.types import StateSnapshot

from pa_middleware.guard.record import describe
from pa_middleware.guard.search import Expanding, Resuming, searching
from pa_middleware.scoring.messages import action_key
from pa_middleware.selection.checkpoints import after, before
from pa_middleware.selection.driving import Driver, in_thread
from pa_middleware.selection.errors import SelectionError
from pa_middleware.selection.fork import Fork
from pa_middleware.selection.replay_result import Attempt, Confirmation, Ending
from pa_middleware.selection.threads import Threads
from pa_middleware.selection.trajectory import Trajectory, reached, trajectory


@dataclass(frozen=True, slots=True)
class Again:
    """Makes runs that go on from a step of a finished one, each in a thread of its own."""

    driver: Driver
    threads: Threads
    original: Trajectory
    history: Sequence[StateSnapshot]
    """All checkpoints of the original, the latest first."""
    config: RunnableConfig | None
    outcome: Callable[[Trajectory], bool | None]
    """Whether a run succeeded."""

    async def attempt(self, step: int, draws: int, *, must_change: bool) -> Attempt:
        """The run again from before a step, with the best of so many draws for it.

        Args:
            step: from 0.
            draws: candidates.
            must_change: run on only if the best of them is another action than that of the original.
        """
        start, ran = before(self.history, step), after(self.history, step)
        thread = await self.threads.free(f"{self.original.thread}/replay-{step}")
        await self._fork(start, step, thread)
        expanding = Expanding(draws, forked=True)
        with searching(expanding):
            await self.driver.run(None, in_thread(thread, self.config), interrupt_after="*")
        if expanding.found is None or expanding.found.record["step"] != step:
            raise SelectionError(f"step {step} was not drawn again: the graph did not come to its guarded agent")
        choice = expanding.found.record
        run = await reached(self.driver, thread)
        changed = not _same(self._original(ran).action(step), run.action(step))
        if not run.finished and (changed or not must_change):
            await self.driver.run(None, in_thread(thread, self.config))
            run = await reached(self.driver, thread)
        drawn = choice["reason"] != "scorer_error"  # else nothing was chosen, and the outcome says nothing of the step
        return Attempt(step, choice, run, self.outcome(run) if drawn else None, changed)

    async def confirmation(self, attempt: Attempt, runs: int) -> Confirmation:
        """So many runs on from right after a step as an attempt took it, and as many as the original did."""
        history = await self.driver.history(attempt.run.thread)
        return Confirmation(
            await self._endings(attempt, history, "otherwise", range(runs)),
            await self._endings(attempt, self.history, "as-it-was", range(runs, 2 * runs)),
        )

    async def _endings(
        self, attempt: Attempt, history: Sequence[StateSnapshot], name: str, luck: Sequence[int]
    ) -> tuple[Ending, ...]:
        chosen = after(history, attempt.step)
        endings: list[Ending] = []
        for number in luck:
            thread = await self.threads.free(f"{attempt.run.thread}/{name}")
            endings.append(await self._ending(chosen, attempt.step, thread, number))
            if not endings[-1].run.finished and endings[-1].error is None:
                break  # it waits for a human, whom the others would ask as well
        return tuple(endings)

    async def _ending(self, chosen: StateSnapshot, step: int, thread: str, luck: int) -> Ending:
        await self._fork(chosen, step, thread, luck)
        error: Exception | None = None
        if chosen.next:
            try:
                with searching(Resuming(thread, step + 1)):
                    await self.driver.run(None, in_thread(thread, self.config))
            except Exception as raised:  # noqa: BLE001 - what was run before is not lost for it
                error = raised
        run = await reached(self.driver, thread)
        return Ending(run, self.outcome(run), None if error is None else describe(error))

    async def _fork(self, at: StateSnapshot, step: int, thread: str, luck: int | None = None) -> None:
        """Begin a thread with a checkpoint, in a world as it was before the step."""
        messages = before(self.history, step).values.get(self.driver.messages_key, ())
        await self.driver.fork(Fork(thread, self.original.thread, step, messages, luck))
        await self.driver.copy(at.config, thread)

    def _original(self, at: StateSnapshot) -> Trajectory:
        """The original as it stood at a checkpoint."""
        return trajectory(at, self.original.thread, messages_key=self.driver.messages_key)


def _same(old: AIMessage | None, new: AIMessage | None) -> bool:
    """Whether both are one action, text and calls; what is not kept, or cannot be scored, is like no other."""
    key = None if old is None else action_key(old)
    return key is not None and new is not None and key == action_key(new)
