"""A finished run again from the step that went wrong: was it that step?

Attribution says which step of a failed run was decisive; that is a correlation. Replay intervenes: it forks the run
before that step, draws the action again as the best of several, leaves all else as it was, and runs on. If the outcome
changes, the step may have mattered, or later steps had more luck: further runs on from it, with the new action and with
the old one, tell the two apart.

In a conversation of several turns the replayed run ends with the turn of that step: what the user said afterwards was
said to another agent.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any, Literal

import numpy as np
from langchain_core.runnables import RunnableConfig

from pa_middleware.debugging.attribution import AttributionError, Rule, Suspect, attribute
from pa_middleware.guard.way import run_immediately
from pa_middleware.selection.again import Again
from pa_middleware.selection.decisive import suspects_to_replay
from pa_middleware.selection.driving import Driver, Graph, check_count, check_graph, check_unpaused, in_thread
from pa_middleware.selection.errors import SelectionError
from pa_middleware.selection.fork import ForkEnvironment, check_world
from pa_middleware.selection.replay_result import LEAST, Attempt, Replay, Succeeded
from pa_middleware.selection.threads import Threads
from pa_middleware.selection.trajectory import Trajectory, trajectory

TRIES = 3
"""Suspects that are replayed by default. One is right about half of the time at best; see docs/choosing.md."""


def replay(
    graph: Graph,
    thread_id: str,
    *,
    step: int | Literal["decisive"] = "decisive",
    rule: Rule | None = None,
    threshold: float | None = None,
    tries: int | None = None,
    draws: int = 8,
    confirm: int = 0,
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
        tries: most suspects to draw again, the most suspect first, until a run succeeds. Where the best draw is the old
            action, nothing is run on. None: three if the run failed, else one.
        draws: candidates for that step, of which the best is taken. All later steps go by the guard's rules, as they
            did.
        confirm: for an attempt that flips the run, run on from its step so many times more with the new action, and as
            many times with the old one, 3 or more; if the difference may be chance, the next suspect has its turn.
        config: of the replayed run, in all but its thread.
        context: of the replayed run, for a graph that has a `context_schema`.
        messages_key: the state key of the conversation.
        fork_environment: makes a world as it was before the step; see `Fork`.
        side_effect_free: say that the tools change nothing, in place of `fork_environment`.
        succeeded: tells whether a run did what it was to do; called for each. One that replays a run of several turns
            ends with the turn of its step.

    Raises:
        SelectionError: no world, no checkpointer, no such run or step, a run that is not finished or holds no scores, a
            graph that pauses by itself.
        Exception: whatever a node or tool raises in an attempt; in a run that confirms it is on record.
    """
    driver = Driver(graph, fork_environment, waits=True, context=context, messages_key=messages_key)
    plan = _Plan(thread_id, step, rule, threshold, tries, draws, confirm, config, side_effect_free, succeeded)
    return run_immediately(_replay(driver, plan))


async def areplay(
    graph: Graph,
    thread_id: str,
    *,
    step: int | Literal["decisive"] = "decisive",
    rule: Rule | None = None,
    threshold: float | None = None,
    tries: int | None = None,
    draws: int = 8,
    confirm: int = 0,
    config: RunnableConfig | None = None,
    context: Any = None,
    messages_key: str = "messages",
    fork_environment: ForkEnvironment | None = None,
    side_effect_free: bool = False,
    succeeded: Succeeded | None = None,
) -> Replay:
    """As `replay`, in an event loop."""
    driver = Driver(graph, fork_environment, waits=False, context=context, messages_key=messages_key)
    plan = _Plan(thread_id, step, rule, threshold, tries, draws, confirm, config, side_effect_free, succeeded)
    return await _replay(driver, plan)


@dataclass(frozen=True, slots=True)
class _Plan:
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
        if self.succeeded is None or not run.finished:
            return None
        told: Any = self.succeeded(run)
        if told is None:
            return None
        if isinstance(told, (np.bool_, Real)) and told in (0, 1):
            return bool(told)
        if inspect.iscoroutine(told):
            told.close()
        raise SelectionError(f"succeeded answers {told!r:.100}; allowed: True, False, or None where it cannot say")


async def _replay(driver: Driver, plan: _Plan) -> Replay:
    check_graph(driver.graph, forks=True)
    check_unpaused(driver.graph)
    check_world(driver.fork_environment, side_effect_free=plan.side_effect_free)
    _check(plan)
    original = await _finished(driver, plan.thread)
    steps, suspects = _which(plan, original)
    succeeded = plan.outcome(original)
    tries = plan.tries or (TRIES if succeeded is False else 1)
    attempts: list[Attempt] = []
    with Threads(driver) as threads:
        again = Again(driver, threads, original, await driver.history(plan.thread), plan.config, plan.outcome)
        for step in steps[:tries]:
            attempt = await again.attempt(step, plan.draws, must_change=bool(suspects))
            won = attempt.changed and attempt.succeeded
            if won and plan.confirm and succeeded is False:
                confirmation = await again.confirmation(attempt, plan.confirm)
                attempt, won = replace(attempt, confirmation=confirmation), confirmation.confirmed
            attempts.append(attempt)
            if won:
                break
    return Replay(original, succeeded, suspects, tuple(attempts))


def _check(plan: _Plan) -> None:
    """See to it that the numbers can be used."""
    check_count("draws", plan.draws)
    if plan.tries is not None:
        check_count("tries", plan.tries)
    if type(plan.confirm) is not int or (plan.confirm != 0 and plan.confirm < LEAST):
        raise SelectionError(
            f"confirm is {plan.confirm!r}; allowed: 0, or a whole number from {LEAST} on: of fewer runs each way even "
            "the clearest difference may be chance"
        )
    if plan.confirm and plan.succeeded is None:
        raise SelectionError(
            f"confirm={plan.confirm!r} has no effect: nothing tells whether a run succeeded; give succeeded=..."
        )


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
    for name in ("tries", "rule", "threshold"):
        if (given := getattr(plan, name)) is not None:
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
