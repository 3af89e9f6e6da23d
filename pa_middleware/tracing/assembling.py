"""The spans of one run -> its steps, each with its candidates.

Tolerated: a missing root, a step that never ended, a step told twice because the graph was interrupted and resumed,
messages that were told in a span that is lost.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace

from pa_middleware.tracing import conventions as names
from pa_middleware.tracing.otlp import SpanRecord
from pa_middleware.tracing.runs import Run, TracedCandidate, TracedStep
from pa_middleware.tracing.spelled import Spelled

RunKey = tuple[str, str]
"""Which run: the trace it began in, and its conversation, of which a trace may hold several."""


def run_of(span: SpanRecord) -> RunKey:
    """The run that a span belongs to."""
    return span.text(names.RUN_TRACE) or span.trace_id, span.text(names.CONVERSATION_ID)


def assemble_run(trace_id: str, spans: Iterable[SpanRecord]) -> Run:
    """The run that these spans tell. It may have no steps.

    A step that is there twice after a resume (same index, task and tool calls, or the same answer) is given once, as
    told last.
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
    spelled = Spelled()
    steps: list[TracedStep] = []
    for guard in guards.values():
        spelled.take(guard)
    for span_id, guard in guards.items():
        step = assemble_step(guard, scored.get(span_id, ()), spelled)
        steps.append(replace(step, review=reviews[span_id]) if span_id in reviews else step)
    steps += [unfinished_step(parent, found) for parent, found in scored.items() if parent not in guards]
    return Run(
        trace_id,
        next((each for span in told if (each := span.text(names.CONVERSATION_ID))), None),
        _last_told(steps),
        agent=next((each for span in told if (each := span.text(names.AGENT_NAME))), None),
    )


def assemble_step(span: SpanRecord, scored: Iterable[SpanRecord], spelled: Spelled) -> TracedStep:
    """A step from its guard span and score spans; `spelled` is what its run spelled out up to here."""
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
        history=spelled.history(span),
        tool_definitions=spelled.definitions(span),
    )


def unfinished_step(span_id: str, scored: Sequence[SpanRecord]) -> TracedStep:
    """A step whose guard span was never written: all that is known of it are its candidates."""
    step = assemble_step(replace(scored[0], span_id=span_id), scored, Spelled())
    return replace(
        step, score=None, threshold=None, error=None, action_kind="", tool_names=(), end_ns=None, attributes={}
    )


def _last_told(steps: Iterable[TracedStep]) -> tuple[TracedStep, ...]:
    last: dict[tuple[object, ...], TracedStep] = {}
    for step in sorted(steps, key=lambda step: (step.start_ns, step.attempt, step.span_id)):
        last[step.index, bool(step.decision), *_identity(step)] = step
    return tuple(sorted(last.values(), key=lambda step: (step.start_ns, step.span_id)))


def _identity(step: TracedStep) -> tuple[object, ...]:
    """What a step keeps when it is told again, and what tells it from steps of the same index elsewhere in the run."""
    task = step.attributes.get(names.LANGGRAPH_TASK_ID)
    if task or any(step.tool_call_ids):
        return task, step.tool_call_ids
    return (step.attributes.get(names.RESPONSE_ID) or step.span_id,)


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
