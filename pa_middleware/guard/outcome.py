"""A verdict put into effect: the record of the step, what telemetry is told, and the framework's answer."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from langchain_core.messages import AIMessage

from pa_middleware.guard import place
from pa_middleware.guard.core import GuardCore
from pa_middleware.guard.hand import Hand
from pa_middleware.guard.judge import Draw, Verdict, passes
from pa_middleware.guard.record import (
    RECORDS,
    Record,
    action_digest,
    call_entry,
    candidate_entry,
    describe,
    steps_of,
)
from pa_middleware.guard.rules import Rules
from pa_middleware.guard.turn import Turn
from pa_middleware.tracing import conventions as names
from pa_middleware.tracing.step import StepSpan


def settle(
    core: GuardCore, turn: Turn, hand: Hand, verdict: Verdict, span: StepSpan, *, counted: int
) -> tuple[Any, Record]:
    """Record and tell the verdict: the framework's answer, and the record in it; `counted` draws go off the budget."""
    rules = hand.rules
    chosen = hand.draws[verdict.selected]
    action = chosen.proposal.action
    stopped = verdict.decision == "abstain" and rules.effective_mode == "enforce"
    error = next((draw.error for draw in hand.draws if draw.failed), chosen.error)
    if stopped:
        mark = {RECORDS: {"decision": "abstain", "reason": verdict.reason}}
        action = AIMessage(rules.abstain_message, id=f"pa-{uuid4()}", response_metadata=mark)
    taken = steps_of(turn.records)
    record: Record = {
        "v": 1,
        "by": "rules",
        "id": action.id,
        "step": len(taken),
        "decision": verdict.decision,
        "reason": verdict.reason,
        "mode": rules.effective_mode,
        "kind": chosen.kind,
        "score": None if chosen.score is None else chosen.score.score,
        "threshold": rules.threshold_of(chosen.kind),
        "p_success": _p_success(rules, taken, chosen),
        "selected": verdict.selected,
        "digest": action_digest(action),
        "calls": [] if stopped else _calls(rules, chosen, verdict),
        "candidates": [
            _candidate(draw, verdict.decision if position == verdict.selected else "resample")
            for position, draw in enumerate(hand.draws)
        ],
        "counted": counted,
        "error": None if error is None else describe(error),
        "anchor": span.anchor,
        "span": span.traceparent,
    }
    span.shown(turn.shown.history, turn.shown.tools)
    _tell(core, hand, record, span, error)
    if hand.live and rules.effective_mode == "enforce":
        _retract(hand, None if stopped else verdict.selected)
    if stopped:
        return turn.abstained(action, record), record
    hand.muted[verdict.selected].let_through()
    return chosen.proposal.accepted(record), record


def _candidate(draw: Draw, decision: str) -> Record:
    return candidate_entry(draw.proposal.action, draw.score, decision, draw.error, same_as=draw.same_as)


def _calls(rules: Rules, chosen: Draw, verdict: Verdict) -> list[Record]:
    calls = chosen.proposal.action.tool_calls
    scores: list[float | None] = [None] * len(calls)
    if chosen.score is not None and chosen.score.calls:
        scores = [call.score for call in chosen.score.calls]
    return [
        call_entry(
            call,
            score=scores[position],
            tier=chosen.tiers[position],
            threshold=rules.threshold_of(chosen.tiers[position] or "final_answer"),
            decision=verdict.decision if position in verdict.held else "pass",
        )
        for position, call in enumerate(calls)
    ]


def _p_success(rules: Rules, taken: list[Record], chosen: Draw) -> float | None:
    """The probability that the run succeeds, going by its scores so far, if the rules hold a map for it."""
    calibration = rules.calibration
    if calibration is None or calibration.success is None or chosen.score is None:
        return None
    scores = [record["score"] for record in taken if record["score"] is not None]
    return calibration.success.probability([*scores, chosen.score.score])


def _retract(hand: Hand, kept: int | None) -> None:
    """Tell those who watched the draws live which of them count for nothing."""
    runtime = place.current_runtime(place.current_config())
    if runtime is None:
        return
    for position, draw in enumerate(hand.draws):
        if position != kept:
            runtime.stream_writer({names.RETRACTED: draw.proposal.action.id})


def _tell(core: GuardCore, hand: Hand, record: Record, span: StepSpan, error: Exception | None) -> None:
    rules = hand.rules
    for position, (draw, started) in enumerate(zip(hand.draws, hand.started_ns, strict=True)):
        threshold = rules.threshold_of(draw.kind)
        judged = "" if threshold is None else "pass" if passes(draw, rules) else "fail"
        action = draw.proposal.action
        span.candidate(
            position,
            draw.score,
            label=judged,
            threshold=threshold,
            message=action,
            response_id=action.id,
            error=draw.error,
            started_ns=started,
            same_as=draw.same_as,
            action_kind=_kind(draw),
            least_margin=draw.least_margin or None,
        )
    chosen = hand.draws[record["selected"]]
    action = chosen.proposal.action
    span.decided(
        decision=record["decision"],
        reason=record["reason"],
        score=record["score"],
        threshold=record["threshold"],
        aggregation=str(getattr(core.scorer, "aggregation", "")),
        candidate_count=len(hand.draws),
        selected_index=record["selected"],
        action_kind=_kind(chosen),
        tool_names=[call["name"] for call in action.tool_calls],
        tool_call_ids=[call["id"] for call in action.tool_calls],
        tiers=[tier or "final_answer" for tier in chosen.tiers],
        response_id=action.id,
        mode=record["mode"],
        p_success=record["p_success"],
        error=error,
    )


def _kind(draw: Draw) -> str:
    return "final_answer" if draw.kind == "final_answer" else "tool_call"
