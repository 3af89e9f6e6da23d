"""The spans of one run -> its steps, each with its candidates.

Tolerated: a missing root, a step that never ended, a step told twice because the graph was interrupted and resumed,
messages that were told in a span that is lost.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from pa_middleware.tracing import conventions as names
from pa_middleware.tracing.otlp import SpanRecord
from pa_middleware.tracing.runs import Run, TracedCall, TracedCandidate, TracedMessage, TracedStep

LOST = TracedMessage("", "")
"""Stands for a message that no span of the trace spells out."""

Messages = dict[str, TracedMessage]
"""Messages of a trace by their digest."""


def run_of(span: SpanRecord) -> tuple[str, str]:
    """Which run a span belongs to: the trace it began in, and its conversation, of which a trace may hold several."""
    return span.text(names.RUN_TRACE) or span.trace_id, span.text(names.CONVERSATION_ID)


def assemble_run(trace_id: str, spans: Iterable[SpanRecord]) -> Run:
    """The run that these spans tell. It may have no steps.

    A step that is there twice (same index and tool calls) after a resume is given once, as told last.
    """
    told = sorted(spans, key=lambda span: (span.start_ns, span.span_id))
    scored: dict[str, list[SpanRecord]] = defaultdict(list)
    guards: dict[str, SpanRecord] = {}
    reviews: dict[str, tuple[str, ...]] = {}
    for span in told:
        if span.name == names.SCORE_SPAN:
            scored[span.parent_id].append(span)
        elif span.name == names.GUARD_SPAN:
            guards[span.span_id] = span
        elif span.name == names.REVIEW_SPAN:
            reviews[span.text(names.REVIEW_OF)] = span.texts(names.REVIEW_DECISIONS)
    messages: Messages = {}
    tools = ""
    steps: list[TracedStep] = []
    for guard in guards.values():
        collect_messages(guard, messages)
    for span_id, guard in guards.items():
        tools = guard.text(names.TOOL_DEFINITIONS) or tools
        step = assemble_step(guard, scored.get(span_id, ()), messages, tools)
        steps.append(replace(step, review=reviews[span_id]) if span_id in reviews else step)
    steps += [unfinished_step(parent, found) for parent, found in scored.items() if parent not in guards]
    return Run(
        trace_id,
        next((each for span in told if (each := span.text(names.CONVERSATION_ID))), None),
        _last_told(steps),
        agent=next((each for span in told if (each := span.text(names.AGENT_NAME))), None),
    )


def assemble_step(
    span: SpanRecord, scored: Iterable[SpanRecord], messages: Mapping[str, TracedMessage], tools: str
) -> TracedStep:
    """A step from its guard span and score spans; `messages` and `tools` are what its trace told up to here."""
    return TracedStep(
        index=span.integer(names.STEP_INDEX) or 0,
        attempt=span.integer(names.STEP_ATTEMPT) or 1,
        span_id=span.span_id,
        start_ns=span.start_ns,
        decision=span.text(names.DECISION),
        reason=span.text(names.DECISION_REASON),
        score=span.real(names.SCORE),
        threshold=span.real(names.THRESHOLD),
        action_kind=span.text(names.ACTION_KIND),
        tool_names=span.texts(names.ACTION_TOOL_NAMES),
        tool_call_ids=span.texts(names.ACTION_TOOL_CALL_IDS),
        selected_index=span.integer(names.CANDIDATE_SELECTED),
        candidates=tuple(sorted((_candidate(each) for each in scored), key=lambda each: each.index)),
        error=span.text(names.ERROR_TYPE) or None,
        attributes=span.attributes,
        mode=span.text(names.MODE),
        tiers=span.texts(names.ACTION_TIERS),
        p_success=span.real(names.P_SUCCESS),
        end_ns=span.end_ns,
        history=tuple(messages.get(digest, LOST) for digest in span.texts(names.HISTORY)),
        tool_definitions=tools if names.HISTORY in span.attributes else "",
    )


def unfinished_step(span_id: str, scored: Sequence[SpanRecord]) -> TracedStep:
    """A step whose guard span was never written: all that is known of it are its candidates."""
    step = assemble_step(replace(scored[0], span_id=span_id), scored, {}, "")
    return replace(
        step, score=None, threshold=None, error=None, action_kind="", tool_names=(), end_ns=None, attributes={}
    )


def collect_messages(span: SpanRecord, messages: Messages) -> None:
    """Add the messages that a guard span spells out."""
    for digest, spelled in zip(span.texts(names.HISTORY_NEW), span.texts(names.HISTORY_MESSAGES), strict=False):
        messages[digest] = _message(spelled)


def _last_told(steps: Iterable[TracedStep]) -> tuple[TracedStep, ...]:
    last: dict[tuple[object, ...], TracedStep] = {}
    for step in sorted(steps, key=lambda step: (step.start_ns, step.attempt, step.span_id)):
        # Without calls to tell them apart, the steps of parallel nodes differ by their task, which a resume keeps.
        task = None if step.tool_call_ids else step.attributes.get(names.LANGGRAPH_TASK_ID)
        last[step.index, step.tool_call_ids, task, bool(step.decision)] = step
    return tuple(sorted(last.values(), key=lambda step: (step.start_ns, step.span_id)))


def _candidate(span: SpanRecord) -> TracedCandidate:
    return TracedCandidate(
        index=span.integer(names.CANDIDATE_INDEX) or 0,
        span_id=span.span_id,
        score=span.real(names.EVALUATION_SCORE),
        threshold=span.real(names.THRESHOLD),
        label=span.text(names.EVALUATION_LABEL),
        token_count=span.integer(names.TOKEN_COUNT),
        log_ratio_min=span.real(names.TOKEN_LOG_RATIO_MIN),
        log_ratio_argmin=span.integer(names.TOKEN_LOG_RATIO_ARGMIN),
        log_ratio_mean=span.real(names.TOKEN_LOG_RATIO_MEAN),
        log_ratios=tuple(ratio for ratio in span.array(names.TOKEN_LOG_RATIOS) if isinstance(ratio, float)),
        text=span.text(names.ACTION_TEXT) if names.ACTION_TEXT in span.attributes else None,
        tool_arguments=span.texts(names.ACTION_TOOL_ARGUMENTS),
        error=span.text(names.ERROR_TYPE) or None,
        attributes=span.attributes,
        same_as=span.integer(names.CANDIDATE_SAME_AS),
        output_tokens=span.integer(names.OUTPUT_TOKENS),
        action_kind=span.text(names.ACTION_KIND),
        tool_names=span.texts(names.ACTION_TOOL_NAMES) or span.texts(names.CALL_NAMES),
        reasoning=span.text(names.ACTION_REASONING),
        token_texts=span.texts(names.TOKEN_TEXTS),
        policy_log_prob=span.real(names.POLICY_LOG_PROB),
        reference_log_prob=span.real(names.REFERENCE_LOG_PROB),
        least_margin=span.real(names.LEAST_MARGIN),
    )


def _message(spelled: str) -> TracedMessage:
    try:
        told = json.loads(spelled)
    except (ValueError, RecursionError):
        return LOST
    parts = told.get("parts") if isinstance(told, dict) else None
    if not isinstance(parts, list):
        return LOST
    texts: list[str] = []
    calls: list[TracedCall] = []
    reasoning = answers = ""
    for part in parts:
        match part:
            case {"type": "text", "content": content}:
                texts.append(str(content))
            case {"type": "reasoning", "content": content}:
                reasoning += str(content)
            case {"type": "tool_call_response", "response": response}:
                texts.append(str(response))
                answers = str(part.get("id") or "")
            case {"type": "tool_call", "name": name}:
                arguments = json.dumps(part.get("arguments"), ensure_ascii=False)
                calls.append(TracedCall(str(part.get("id") or ""), str(name), arguments))
            case {"type": kind}:
                texts.append(f"[{kind}]")
    return TracedMessage(str(told.get("role") or ""), "".join(texts), reasoning, tuple(calls), answers)
