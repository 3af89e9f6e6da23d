"""What the page knows of one run's steps: candidates, context, observations, attributes. Read when it is opened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pa_middleware.debugging.report.overview import Numbered
from pa_middleware.tracing import conventions as names
from pa_middleware.tracing.runs import Run, TracedCandidate, TracedMessage, TracedStep, Value

_DIGITS = 4
"""Decimals of a token's log-ratio."""
_ELSEWHERE = frozenset(
    {
        names.HISTORY,
        names.HISTORY_NEW,
        names.HISTORY_MESSAGES,
        names.TOOL_DEFINITIONS,
        names.TOKEN_LOG_RATIOS,
        names.TOKEN_TEXTS,
        names.ACTION_TEXT,
        names.ACTION_TOOL_ARGUMENTS,
        names.ACTION_REASONING,
    }
)
"""Attributes whose values the page shows anyway; among the attributes it shows only their names."""


def details(run: Run) -> dict[str, Any]:
    """The run's steps. Messages, tool definitions and attributes that recur are told once.

    A step's history is told by its difference from the step before: `cut`, from which place on how many messages are
    gone, then `added` at its end.
    """
    messages: Numbered[TracedMessage] = Numbered()
    definitions: Numbered[str] = Numbered()
    of_steps = _common([step.attributes for step in run.steps])
    of_candidates = _common([each.attributes for step in run.steps for each in step.candidates])
    told: list[dict[str, Any]] = []
    asked: dict[str, int] = {}
    before: Sequence[TracedMessage] = ()
    for place, step in enumerate(run.steps):
        begin, gone = _cut(before, step.history)
        new = step.history[len(before) - gone :]
        added = [messages[message] for message in new]
        for message, number in zip(new, added, strict=True):
            if message.answers in asked:  # the first to answer a call of an earlier step
                told[asked.pop(message.answers)].setdefault("answers", []).append([message.answers, number])
        tools = definitions[step.tool_definitions] if step.tool_definitions else None
        told.append(
            _step(step, of_steps)
            | _given(cut=[begin, gone] if gone else None, added=added, tools=tools)
            | {"candidates": [_candidate(each, of_candidates) for each in step.candidates]}
        )
        asked.update(dict.fromkeys(step.tool_call_ids, place))
        before = step.history
    return {
        "messages": [_message(each) for each in messages],
        "definitions": list(definitions),
        "common": [_shown(of_steps), _shown(of_candidates)],
        "steps": told,
    }


def _step(step: TracedStep, common: Mapping[str, Value]) -> dict[str, Any]:
    return _given(
        span=step.span_id,
        attempt=step.attempt if step.attempt != 1 else None,
        start=step.start_ns // 1_000_000,
        took=(step.end_ns - step.start_ns) / 1e6 if step.end_ns is not None else None,
        reason=step.reason,
        kind=step.action_kind,
        mode=step.mode,
        tiers=step.tiers,
        chance=step.p_success,
        error=step.error,
        selected=step.selected_index,
        calls=step.tool_call_ids,
        review=step.review,
        attributes=_own(step.attributes, common),
    )


def _candidate(each: TracedCandidate, common: Mapping[str, Value]) -> dict[str, Any]:
    return _given(
        index=each.index,
        span=each.span_id,
        score=each.score,
        threshold=each.threshold,
        label=each.label,
        tokens=each.token_count,
        lowest=each.log_ratio_min,
        lowest_at=each.log_ratio_argmin,
        mean=each.log_ratio_mean,
        ratios=[round(ratio, _DIGITS) for ratio in each.log_ratios],
        texts=each.token_texts,
        arguments=each.tool_arguments,
        kind=each.action_kind,
        tools=each.tool_names,
        reasoning=each.reasoning,
        error=each.error,
        same_as=each.same_as,
        generated=each.output_tokens,
        policy=each.policy_log_prob,
        reference=each.reference_log_prob,
        attributes=_own(each.attributes, common),
    ) | ({} if each.text is None else {"text": each.text})


def _message(message: TracedMessage) -> dict[str, Any]:
    return _given(
        role=message.role,
        text=message.text,
        reasoning=message.reasoning,
        answers=message.answers,
        calls=[[call.id, call.name, call.arguments] for call in message.calls],
    )


def _given(**fields: Any) -> dict[str, Any]:
    """The fields that say something."""
    return {name: value for name, value in fields.items() if value is not None and value not in ("", (), [])}


def _cut(before: Sequence[TracedMessage], now: Sequence[TracedMessage]) -> tuple[int, int]:
    """From which place on how many messages are gone, as few as can be: `now` begins with what is left of `before`."""
    pairs = enumerate(zip(before, now, strict=False))
    begin = next((place for place, (old, new) in pairs if old is not new and old != new), min(len(before), len(now)))
    if begin < len(now):
        for end in range(begin + 1, len(before)):
            if before[end] == now[begin] and before[end:] == now[begin : begin + len(before) - end]:
                return begin, end - begin
    return begin, len(before) - begin


def _common(spans: Sequence[Mapping[str, Value]]) -> dict[str, Value]:
    """The attributes that all spans which have any have in common."""
    told = [span for span in spans if span]
    if not told:
        return {}
    return {name: value for name, value in told[0].items() if all(span.get(name) == value for span in told)}


def _own(attributes: Mapping[str, Value], common: Mapping[str, Value]) -> dict[str, Value | None] | None:
    if not attributes:
        return None
    return _shown({name: value for name, value in attributes.items() if name not in common})


def _shown(attributes: Mapping[str, Value]) -> dict[str, Value | None]:
    return {name: None if name in _ELSEWHERE else value for name, value in attributes.items()}
