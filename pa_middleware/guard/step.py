"""One step of a guarded agent: draw, score, judge, record, tell. Written once, for sync and async alike.

The step is a coroutine over two operations it is handed, `draw` and `score`. An async node awaits it. A sync node's
operations never suspend, so `run_immediately` drives the same coroutine to its end without an event loop.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, TypeVar
from uuid import uuid4

from langchain_core.messages import AIMessage
from langgraph.errors import GraphBubbleUp

from pa_middleware.guard import place
from pa_middleware.guard.core import GuardCore, own_copy
from pa_middleware.guard.judge import Draw, Verdict, check_answer, judge, passes
from pa_middleware.guard.proposal import Proposal, read_proposal
from pa_middleware.guard.quiet import Muted, mute, unmuted
from pa_middleware.guard.record import RECORDS, Record, action_digest, call_entry, candidate_entry, describe
from pa_middleware.scoring.errors import UnscorableActionError
from pa_middleware.scoring.scorer import CandidateScore, ReadsAhead, Step, StepScore
from pa_middleware.tracing.step import StepSpan

logger = logging.getLogger(__name__)

Result = TypeVar("Result")
DrawOnce = Callable[[Any, Muted], Awaitable[Any]]
"""Runs the guarded node once on a copy of the state, muted."""
ScoreSteps = Callable[[Sequence[Step]], Awaitable[list[StepScore]]]


def run_immediately(coroutine: Coroutine[Any, Any, Result]) -> Result:
    """The result of a coroutine that never suspends."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        result: Result = done.value
        return result
    coroutine.close()
    raise RuntimeError("a synchronous step was suspended")


async def take_step(core: GuardCore, state: Any, draw: DrawOnce, score: ScoreSteps) -> Any:
    """The guarded node's output: the accepted draw with its record, or a safe message with its record.

    Raises:
        GuardError: the node's output holds no single action, or the state no room for records.
        Exception: whatever the node itself raises, interrupts of the graph included.
    """
    rules = core.rules
    records = core.records(state)
    config = place.current_config()
    anchor = next((record["anchor"] for record in reversed(records) if record.get("anchor")), None)
    with core.telemetry.step(
        index=len(records), attempt=place.attempt(config), anchor=anchor, attributes=place.origin(config)
    ) as span:
        wanted, allowed = _budget(core, records)
        hand = _Hand(core, state, draw, score, conversation=place.conversation(config))
        hand.read_ahead()
        if rules.select == "best" and rules.mode == "enforce":
            for _ in range(allowed):
                await hand.draw()
            await hand.score_all()
        else:
            for _ in range(allowed):
                await hand.draw()
                await hand.score_last()
                if hand.draws[-1].failed or passes(hand.draws[-1].score, rules):
                    break
        verdict = judge(hand.draws, rules, out_of_budget=allowed < wanted)
        return _finish(core, hand, verdict, len(records), span)


class _Hand:
    """The draws of one step as they are made and scored."""

    def __init__(
        self, core: GuardCore, state: Any, draw: DrawOnce, score: ScoreSteps, *, conversation: str | None
    ) -> None:
        self._core = core
        self._state = state
        self._draw = draw
        self._score = score
        self._conversation = conversation
        self._known = frozenset(message.id for message in core.messages(state) if message.id is not None)
        self.draws: list[Draw] = []
        self.muted: list[Muted] = []
        self.started_ns: list[int] = []

    def read_ahead(self) -> None:
        """Let a scorer that can read the prompt begin with it, while the first draw is made."""
        scorer = self._core.scorer
        if isinstance(scorer, ReadsAhead) and self._conversation is not None:
            try:
                scorer.read_ahead(
                    self._core.shown(self._state), self._core.tools or (), conversation=self._conversation
                )
            except Exception:
                logger.debug("the scorer could not read ahead", exc_info=True)

    async def draw(self) -> None:
        config = place.current_config()
        muted = mute(config) if self._core.rules.mode == "enforce" else unmuted(config)
        output = await self._draw(own_copy(self._state), muted)
        proposal = read_proposal(output, messages_key=self._core.messages_key, known=self._known)
        self.draws.append(Draw(proposal))
        self.muted.append(muted)
        self.started_ns.append(time.time_ns())

    async def score_last(self) -> None:
        self.draws[-1:] = await self._scored([self.draws[-1].proposal])

    async def score_all(self) -> None:
        self.started_ns[:] = [time.time_ns()] * len(self.draws)
        self.draws[:] = await self._scored([draw.proposal for draw in self.draws])

    async def _scored(self, proposals: list[Proposal]) -> list[Draw]:
        try:
            history = self._core.shown(self._state)
            tools = self._core.tools or ()
            candidates = [proposal.action for proposal in proposals]
            answer = await self._score([Step(history, candidates, tools, self._conversation)])
            answered = check_answer(answer, proposals)
        except GraphBubbleUp:  # an interrupt of the graph is no failure
            raise
        except UnscorableActionError as error:
            if len(proposals) == 1:
                return [Draw(proposals[0], error=error)]
            # One of several spoils the call for all: tell them apart.
            return [draw for proposal in proposals for draw in await self._scored([proposal])]
        except Exception as error:  # noqa: BLE001 - whatever a scorer raises, the rules decide
            logger.warning("the scorer failed: %s", describe(error))
            return [Draw(proposal, error=error) for proposal in proposals]
        return [
            Draw(proposal, score=score, least_margin=answered.least_margin)
            for proposal, score in zip(proposals, answered.candidates, strict=True)
        ]


def _budget(core: GuardCore, records: Sequence[Record]) -> tuple[int, int]:
    """Draws the rules want for this step, and draws the run still allows: at least one."""
    rules = core.rules
    if rules.mode == "shadow":
        return 1, 1
    if rules.draws_per_run is None:
        return rules.draws, rules.draws
    used = sum(len(record["candidates"]) for record in records)
    return rules.draws, max(1, min(rules.draws, rules.draws_per_run - used))


def _finish(core: GuardCore, hand: _Hand, verdict: Verdict, index: int, span: StepSpan) -> Any:
    """Record and tell the verdict, and put the node's output together."""
    chosen = hand.draws[verdict.selected]
    action = chosen.proposal.action
    enforced = core.rules.mode == "enforce"
    stopped = verdict.decision == "abstain" and enforced
    error = next((draw.error for draw in hand.draws if draw.failed), chosen.error)
    if stopped:
        mark = {RECORDS: {"decision": "abstain", "reason": verdict.reason}}
        action = AIMessage(core.rules.abstain_message, id=f"pa-{uuid4()}", response_metadata=mark)
    record: Record = {
        "v": 1,
        "id": action.id,
        "step": index,
        "decision": verdict.decision,
        "reason": verdict.reason,
        "mode": core.rules.mode,
        "score": None if chosen.score is None else chosen.score.score,
        "threshold": core.rules.threshold,
        "selected": verdict.selected,
        "digest": action_digest(action),
        "calls": _calls(action, None if stopped else chosen.score, verdict),
        "candidates": [
            candidate_entry(
                draw.proposal.action,
                draw.score,
                verdict.decision if position == verdict.selected else "resample",
                draw.error,
            )
            for position, draw in enumerate(hand.draws)
        ],
        "error": None if error is None else describe(error),
        "anchor": span.anchor,
        "span": span.traceparent,
    }
    _tell(core, hand, verdict, span, error)
    if stopped:
        return {core.messages_key: [action], RECORDS: [record]}
    hand.muted[verdict.selected].let_through()
    return chosen.proposal.accepted(record)


def _calls(action: AIMessage, score: CandidateScore | None, verdict: Verdict) -> list[Record]:
    scores: list[float | None] = [None] * len(action.tool_calls)
    if score is not None and score.calls:
        scores = [call.score for call in score.calls]
    return [
        call_entry(call, scores[position], "block" if position in verdict.blocked else "pass")
        for position, call in enumerate(action.tool_calls)
    ]


def _tell(core: GuardCore, hand: _Hand, verdict: Verdict, span: StepSpan, error: Exception | None) -> None:
    rules = core.rules
    for position, (draw, started) in enumerate(zip(hand.draws, hand.started_ns, strict=True)):
        judged = "" if rules.threshold is None else "pass" if passes(draw.score, rules) else "fail"
        action = draw.proposal.action
        span.candidate(
            position,
            draw.score,
            label=judged,
            threshold=rules.threshold,
            message=action,
            response_id=action.id,
            error=draw.error,
            started_ns=started,
        )
    chosen = hand.draws[verdict.selected]
    action = chosen.proposal.action
    span.decided(
        decision=verdict.decision,
        reason=verdict.reason,
        score=None if chosen.score is None else chosen.score.score,
        threshold=rules.threshold,
        aggregation=str(getattr(core.scorer, "aggregation", "")),
        candidate_count=len(hand.draws),
        selected_index=verdict.selected,
        action_kind="tool_call" if action.tool_calls else "final_answer",
        tool_names=[call["name"] for call in action.tool_calls],
        tool_call_ids=[call["id"] for call in action.tool_calls],
        response_id=action.id,
        error=error,
    )
