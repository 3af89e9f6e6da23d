"""A finished run again from the step that went wrong: was it that step?

Attribution says which step of a failed run was decisive; that is a correlation. Replay intervenes: it forks the run
before that step, draws the action again as the best of several, leaves all else as it was, and runs on. If the outcome
changes, the step mattered.

In a conversation of several turns the replayed run ends with the turn of that step: what the user said afterwards was
said to another agent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from langchain_core.runnables import RunnableConfig
from langgraph.types import StateSnapshot

from pa_middleware.debugging.attribution import AttributionError, Rule, Suspect, attribute
from pa_middleware.guard.record import RECORDS, Record, steps_of
from pa_middleware.guard.search import Expanding, searching
from pa_middleware.guard.way import run_immediately
from pa_middleware.selection.decisive import suspects_to_replay
from pa_middleware.selection.driving import Driver, Graph, check_count, check_graph, in_thread
from pa_middleware.selection.errors import SelectionError
from pa_middleware.selection.fork import Fork, ForkEnvironment, check_world
from pa_middleware.selection.threads import Threads
from pa_middleware.selection.trajectory import Trajectory, reached, trajectory

Succeeded = Callable[[Trajectory], bool | None]
"""Whether a run did what it was to do; None if that cannot be said."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """The run again, with one step taken otherwise."""

    step: int
    """The step that was drawn again, from 0."""
    choice: Record
    """Its record: the candidates, their scores, and which was taken."""
    run: Trajectory
    succeeded: bool | None
    """None where nobody can say."""


@dataclass(frozen=True, slots=True)
class Replay:
    """A run, and what became of it with one step taken otherwise."""

    original: Trajectory
    succeeded: bool | None
    """Whether the original did; None where nobody can say."""
    suspects: tuple[Suspect, ...]
    """Steps of the original, most suspect first; empty if the step was given."""
    attempts: tuple[Attempt, ...]
    """In the order they were made; each changes one step of the original."""

    @property
    def flipped(self) -> bool | None:
        """Whether the run failed, and one of the attempts succeeded; None where nobody can say.

        An attempt that succeeded tells, whatever became of those before it.
        """
        outcomes = [attempt.succeeded for attempt in self.attempts]
        if self.succeeded is not False:
            return None if self.succeeded is None else False
        if any(outcomes):
            return True
        return None if None in outcomes else False

    @property
    def flipped_at(self) -> int | None:
        """The step whose change made the run succeed; None if none did."""
        return next((attempt.step for attempt in self.attempts if attempt.succeeded), None) if self.flipped else None


def replay(
    graph: Graph,
    thread_id: str,
    *,
    step: int | Literal["decisive"] = "decisive",
    rule: Rule | None = None,
    threshold: float | None = None,
    tries: int = 1,
    draws: int = 8,
    config: RunnableConfig | None = None,
    context: Any = None,
    messages_key: str = "messages",
    fork_environment: ForkEnvironment | None = None,
    side_effect_free: bool = False,
    succeeded: Succeeded | None = None,
) -> Replay:
    """Run a finished run again from one of its steps, in a thread of its own.

    Args:
        graph: that made the run, compiled with the same checkpointer and guarded; mode `shadow` is enough.
        thread_id: of the run. Its own thread is left as it is.
        step: which step to draw again, from 0; `decisive` is the one that `rule` suspects most.
        rule: of attribution; see `debugging.attribution`. None: the steps that score below -beta, whose action the
            policy takes less than 1/e as often as the reference, the earlier first; then the others, the lowest first.
            Beta is read off the records; where they do not tell it, it counts as 1.
        threshold: for the rule `first_below`.
        tries: most suspects to replay, one run each, the most suspect first, until one succeeds.
        draws: candidates for that step, of which the best is taken. All later steps go by the guard's rules, as they
            did.
        config: of the replayed run, in all but its thread.
        context: of the replayed run, for a graph that has a `context_schema`.
        messages_key: the state key of the conversation.
        fork_environment: makes a world as it was before the step; see `Fork`.
        side_effect_free: say that the tools change nothing, in place of `fork_environment`.
        succeeded: tells whether a run did what it was to do; called for both.

    Raises:
        SelectionError: no world, no checkpointer, no such run or step, a run that is not finished or holds no scores.
    """
    driver = Driver(graph, fork_environment, waits=True, context=context, messages_key=messages_key)
    plan = _Plan(thread_id, step, rule, threshold, tries, draws, config, side_effect_free, succeeded)
    return run_immediately(_replay(driver, plan))


async def areplay(
    graph: Graph,
    thread_id: str,
    *,
    step: int | Literal["decisive"] = "decisive",
    rule: Rule | None = None,
    threshold: float | None = None,
    tries: int = 1,
    draws: int = 8,
    config: RunnableConfig | None = None,
    context: Any = None,
    messages_key: str = "messages",
    fork_environment: ForkEnvironment | None = None,
    side_effect_free: bool = False,
    succeeded: Succeeded | None = None,
) -> Replay:
    """As `replay`, in an event loop."""
    driver = Driver(graph, fork_environment, waits=False, context=context, messages_key=messages_key)
    return await _replay(
        driver, _Plan(thread_id, step, rule, threshold, tries, draws, config, side_effect_free, succeeded)
    )


@dataclass(frozen=True, slots=True)
class _Plan:
    thread: str
    step: int | Literal["decisive"]
    rule: Rule | None
    threshold: float | None
    tries: int
    draws: int
    config: RunnableConfig | None
    side_effect_free: bool
    succeeded: Succeeded | None


async def _replay(driver: Driver, plan: _Plan) -> Replay:
    check_graph(driver.graph, forks=True)
    check_world(driver.fork_environment, side_effect_free=plan.side_effect_free)
    for name in ("draws", "tries"):
        check_count(name, getattr(plan, name))
    original = await _finished(driver, plan.thread)
    steps, suspects = _which(plan, original)
    history = await driver.history(plan.thread)
    attempts: list[Attempt] = []
    with Threads(driver) as threads:
        for step in steps[: plan.tries]:
            before = _before(history, step)
            thread = await threads.free(f"{plan.thread}/replay-{step}")
            attempts.append(await _from(driver, plan, before, step, thread))
            if attempts[-1].succeeded:
                break
    return Replay(original, _outcome(plan, original), suspects, tuple(attempts))


async def _from(driver: Driver, plan: _Plan, before: StateSnapshot, step: int, thread: str) -> Attempt:
    """The run again from a checkpoint, with the best of several draws for its next step."""
    await driver.copy(before.config, thread)
    await driver.fork(Fork(thread, plan.thread, step, before.values.get(driver.messages_key, ())))
    expanding = Expanding(plan.draws, forked=True)
    with searching(expanding):
        await driver.run(None, in_thread(thread, plan.config))
    if expanding.found is None or expanding.found.record["step"] != step:
        raise SelectionError(f"step {step} was not drawn again: the graph did not come to its guarded agent")
    choice = expanding.found.record
    run = await reached(driver, thread)
    drawn = choice["reason"] != "scorer_error"  # else nothing was chosen, and the outcome says nothing of the step
    return Attempt(step, choice, run, _outcome(plan, run) if drawn else None)


def _outcome(plan: _Plan, run: Trajectory) -> bool | None:
    """Whether a run succeeded; of one that waits nobody can say."""
    return plan.succeeded(run) if plan.succeeded is not None and run.finished else None


async def _finished(driver: Driver, thread: str) -> Trajectory:
    snapshot = await driver.state(in_thread(thread))
    if not snapshot.values:
        raise SelectionError(f"the checkpointer holds no run {thread!r}; give the thread_id of a run it holds")
    run = trajectory(snapshot, thread, messages_key=driver.messages_key)
    if not run.finished:
        raise SelectionError(
            f"the run {thread!r} is not finished: it goes on with {snapshot.next}; let it end before it is replayed"
        )
    return run


def _which(plan: _Plan, run: Trajectory) -> tuple[Sequence[int], tuple[Suspect, ...]]:
    """The steps to draw again, in turn, and why."""
    if plan.step == "decisive":
        try:
            suspects = _suspects(plan, run)
        except AttributionError as error:
            raise SelectionError(f"the run {plan.thread!r} has no decisive step: {error}") from error
        if not suspects:
            raise SelectionError(f"the rule {plan.rule!r} finds no step of {plan.thread!r} suspect; give step=...")
        return [suspect.step for suspect in suspects], suspects
    if type(plan.step) is not int or not 0 <= plan.step < run.length:
        raise SelectionError(f"step is {plan.step!r}; allowed: 'decisive', or 0 to {run.length - 1}")
    for name, idle in (("tries", 1), ("rule", None), ("threshold", None)):
        if (given := getattr(plan, name)) != idle:
            raise SelectionError(f"{name}={given!r} has no effect: step is given; leave one of them out")
    return [plan.step], ()


def _suspects(plan: _Plan, run: Trajectory) -> tuple[Suspect, ...]:
    if plan.rule is not None:
        return attribute(run.scores, plan.rule, threshold=plan.threshold)
    if plan.threshold is not None:
        raise SelectionError(
            f"threshold={plan.threshold!r} has no effect without rule='first_below'; give both, or none"
        )
    return suspects_to_replay(run)


def _before(history: Sequence[StateSnapshot], step: int) -> StateSnapshot:
    """The last checkpoint before a step, on the way that led to the latest one."""
    known = {snapshot.config["configurable"]["checkpoint_id"]: snapshot for snapshot in history}
    at: StateSnapshot | None = history[0]
    while at is not None and len(steps_of(at.values.get(RECORDS) or ())) > step:
        parent: Any = at.parent_config
        at = None if parent is None else known.get(parent["configurable"]["checkpoint_id"])
    if at is None or len(steps_of(at.values.get(RECORDS) or ())) != step or not at.next:
        raise SelectionError(
            f"there is no checkpoint right before step {step}. A run can be replayed if the checkpointer keeps all of "
            "its steps (durability='sync' or 'async', not 'exit'), and if the agent is a node of this graph; one in a "
            "subgraph takes its steps within one step of this graph"
        )
    return at
