"""One step of a guarded agent: draw, score, judge, record, tell. Written once, for sync and async alike.

The step is a coroutine over two operations it is handed: the turn's `draw`, and `ask`, which asks the scorer. An async
node awaits it. A sync node's operations never suspend, so `run_immediately` drives the same coroutine to its end
without an event loop.
"""

from __future__ import annotations

import logging
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

from pa_middleware.guard import place
from pa_middleware.guard.core import GuardCore
from pa_middleware.guard.hand import AskScorer, Hand
from pa_middleware.guard.judge import judge, passes
from pa_middleware.guard.outcome import settle
from pa_middleware.guard.record import Record, steps_of
from pa_middleware.guard.turn import LetBe, Turn

logger = logging.getLogger(__name__)

Result = TypeVar("Result")


def run_immediately(coroutine: Coroutine[Any, Any, Result]) -> Result:
    """The result of a coroutine that never suspends."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        result: Result = done.value
        return result
    coroutine.close()
    raise RuntimeError("a synchronous step was suspended")


async def take_step(core: GuardCore, turn: Turn, ask: AskScorer) -> Any:
    """The framework's answer for one step: the accepted draw with its record, or a safe message with its record.

    Raises:
        GuardError: a draw holds no single action, or the graph cannot keep what the rules promise.
        Exception: whatever drawing itself raises, interrupts of the graph included.
    """
    rules = core.rules
    config = place.current_config()
    core.check(config)
    taken = steps_of(turn.records)
    anchor = next((record["anchor"] for record in reversed(turn.records) if record.get("anchor")), None)
    with core.telemetry.step(
        index=len(taken), attempt=place.attempt(config), anchor=anchor, attributes=place.origin(config)
    ) as span:
        wanted, allowed = _budget(core, taken)
        hand = Hand(core, turn, ask)
        hand.read_ahead()
        if rules.select == "best" and rules.effective_mode == "enforce":
            for _ in range(allowed):
                await hand.draw()
            await hand.score_all()
        else:
            for _ in range(allowed):
                try:
                    await hand.draw()
                except LetBe as unjudged:
                    logger.warning("a step was not judged: %s", unjudged.__cause__)
                    return unjudged.answer
                await hand.score_last()
                if hand.draws[-1].failed or passes(hand.draws[-1], rules):
                    break
        verdict = judge(hand.draws, rules, out_of_budget=allowed < wanted)
        return settle(core, turn, hand, verdict, span)


def _budget(core: GuardCore, taken: Sequence[Record]) -> tuple[int, int]:
    """Draws the rules want for this step, and draws the run still allows: at least one."""
    rules = core.rules
    if rules.effective_mode == "shadow":
        return 1, 1
    if rules.draws_per_run is None:
        return rules.draws, rules.draws
    used = sum(len(record["candidates"]) for record in taken)
    return rules.draws, max(1, min(rules.draws, rules.draws_per_run - used))
