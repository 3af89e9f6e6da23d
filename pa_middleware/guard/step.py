"""One step of a guarded agent: draw, score, judge, record, tell. Written once, for sync and async alike.

The step is a coroutine over operations it is handed: the turn's `draw`, and its way, which asks the scorer. An async
node awaits it. A sync node's operations never suspend, so `run_immediately` drives the same coroutine to its end
without an event loop.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.errors import GraphBubbleUp, ParentCommand

from pa_middleware.guard import place
from pa_middleware.guard.core import GuardCore
from pa_middleware.guard.enough import chance_of_better, void_for
from pa_middleware.guard.hand import Hand
from pa_middleware.guard.judge import Draw, Verdict, judge, passes
from pa_middleware.guard.outcome import settle
from pa_middleware.guard.record import Record, steps_of
from pa_middleware.guard.rules import Rules
from pa_middleware.guard.search import Expanding, Resuming, Taking, choices, search, searching
from pa_middleware.guard.turn import LetBe, Turn
from pa_middleware.guard.way import Way

logger = logging.getLogger(__name__)


async def take_step(core: GuardCore, turn: Turn, way: Way) -> Any:
    """The framework's answer for one step: the accepted draw with its record, or a safe message with its record.

    Raises:
        GuardError: a draw holds no single action, or the graph cannot keep what the rules promise.
        Exception: whatever drawing itself raises, interrupts of the graph included.
    """
    config = place.current_config()
    core.check(config)
    taken = steps_of(turn.records)
    asked, forked = _asked(len(taken), config)
    anchors = (record["anchor"] for record in reversed(turn.records) if record.get("anchor"))
    anchor = None if forked else next(anchors, None)
    with (
        searching(None),  # steps within this one, of graphs in its node, are none that the search asks about
        core.telemetry.step(
            index=len(taken), attempt=place.attempt(config), anchor=anchor, attributes=place.origin(config)
        ) as span,
    ):
        if isinstance(asked, Taking):
            hand, verdict = asked.choices.hand.again(turn), asked.verdict(core)
        else:
            hand = Hand(core, asked.rules(core.rules) if asked is not None else core.rules, turn, way)
            try:
                verdict = await _decide(core, hand, taken)
            except LetBe as unjudged:
                if asked is not None:
                    raise unjudged.__cause__ or unjudged from None
                logger.warning("a step was not judged (%s)", type(unjudged.__cause__).__name__)
                logger.debug("a step was not judged", exc_info=unjudged.__cause__)
                return unjudged.answer
            except GraphBubbleUp as stop:
                if not isinstance(stop, ParentCommand):  # the step is to go on later, from what its draws have stored
                    await hand.store()
                raise
        counted = len(hand.draws) if asked is None else _counted(core.rules, hand.draws, taken)
        answer, record = settle(core, turn, hand, verdict, span, counted=counted)
        if record["id"] == hand.draws[verdict.selected].proposal.action.id:  # else a safe message stands for all draws
            await hand.store(verdict.selected)
        if isinstance(asked, Taking):
            asked.record = record
        elif asked is not None:
            asked.found = choices(core, hand, verdict, record)
        return answer


def _asked(steps: int, config: RunnableConfig) -> tuple[Expanding | Taking | None, bool]:
    """What a search wants of the step that comes after so many, if anything, and whether a trace begins with it."""
    match asked := search():
        case None:
            return None, False
        case Resuming():
            return None, asked.begins(steps, config)
        case _:
            return asked, asked.forked


async def _decide(core: GuardCore, hand: Hand, taken: Sequence[Record]) -> Verdict:
    """Draw and score as many as it takes, and judge them."""
    rules = hand.rules
    wanted, allowed = _budget(rules, taken)
    best = rules.select == "best" and rules.effective_mode == "enforce"
    hand.read_ahead()
    if best and rules.stop_at is None:
        await hand.draw_all(allowed)
        await hand.score_all()
    else:
        for left in reversed(range(allowed)):
            await hand.draw()
            await hand.score_last()
            if hand.draws[-1].failed or (_enough(core, hand, left) if best else passes(hand.draws[-1], rules)):
                break
    return judge(hand.draws, rules, out_of_budget=allowed < wanted)


def _enough(core: GuardCore, hand: Hand, left: int) -> bool:
    """Whether more draws are pointless."""
    rules = hand.rules
    if rules.stop_at is None or chance_of_better(hand.draws, left, rules, beta=hand.beta) > rules.stop_at:
        return False
    if (sampling := void_for(hand.draws, rules)) is None:
        return True
    core.warn_once(
        "stop_at",
        f"stop_at={rules.stop_at!r} reckons with samples at temperature 1, and draws are sampled with {sampling}: all "
        "draws are made. Have the model sample at temperature 1, without penalties"
        f"{' and without top_k, top_p and min_p' if rules.drawn_by == 'reference' else ''}, or leave stop_at out",
    )
    return False


def _budget(rules: Rules, taken: Sequence[Record]) -> tuple[int, int]:
    """Draws the rules want for this step, and draws the run still allows: at least one."""
    if rules.effective_mode == "shadow":
        return 1, 1
    if rules.draws_per_run is None:
        return rules.draws, rules.draws
    used = sum(record.get("counted", len(record["candidates"])) for record in taken)
    return rules.draws, max(1, min(rules.draws, rules.draws_per_run - used))


def _counted(rules: Rules, draws: Sequence[Draw], taken: Sequence[Record]) -> int:
    """Draws that a step of a search takes out of its run's budget: as many of them as the rules would have made."""
    _, allowed = _budget(rules, taken)
    made = draws[:allowed]
    if rules.select == "best":
        return len(made)
    return next((number for number, draw in enumerate(made, 1) if draw.failed or passes(draw, rules)), len(made))
