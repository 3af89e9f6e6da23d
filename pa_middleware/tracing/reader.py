"""Trace files back to runs and steps, whatever state their writer left them in.

Tolerated: a torn last line, spans of others, a missing root, a step that never ended, a step told twice because the
graph was interrupted and resumed, the same span twice, NaN.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from pa_middleware.tracing import conventions as names
from pa_middleware.tracing.otlp import SpanRecord, requests, spans
from pa_middleware.tracing.runs import Run, TracedCandidate, TracedStep

_OURS = frozenset({names.RUN_SPAN, names.GUARD_SPAN, names.SCORE_SPAN})

Source = str | os.PathLike[str]


def read(path: Source | Sequence[Source]) -> list[Run]:
    """The runs of a trace file, of all .jsonl files of a directory, or of several of either; in the order they began.

    A step that is there twice (same trace, step index and tool calls) after a resume is given once, as told last. Runs
    of which no step was told are left out. Raises FileNotFoundError for a path that does not exist or a directory
    without .jsonl files, ValueError for a file in which no line can be read; in a directory, if that is so for all.
    """
    sources = [path] if isinstance(path, str | os.PathLike) else list(path)
    found: dict[tuple[str, str], SpanRecord] = {}
    for source in sources:
        files = _files(Path(source))
        readable = [file for file in files if _collect(file, found)]
        if not readable:
            where = "no line" if len(files) == 1 else f"no line of its {len(files)} .jsonl files"
            raise ValueError(
                f"read() got {os.fspath(source)!r}, of which {where} can be read as OTLP-JSON spans. Give a file that "
                "pa_middleware.record() or another OTLP-JSON file exporter wrote"
            )
    return _runs(found.values())


def _files(source: Path) -> list[Path]:
    if not source.is_dir():
        return [source]
    files = sorted(source.glob("*.jsonl"))
    if not files:
        raise FileNotFoundError(f"read() got {str(source)!r}, a directory without .jsonl files. Record into it first")
    return files


def _collect(file: Path, found: dict[tuple[str, str], SpanRecord]) -> bool:
    readable = False
    for request in requests(file):
        readable = True
        found.update(((span.trace_id, span.span_id), span) for span in spans(request) if span.name in _OURS)
    return readable


def _runs(found: Iterable[SpanRecord]) -> list[Run]:
    traces: dict[str, list[SpanRecord]] = defaultdict(list)
    for span in found:
        traces[span.trace_id].append(span)
    runs = [
        _run(trace_id, sorted(told, key=lambda span: (span.start_ns, span.span_id)))
        for trace_id, told in traces.items()
    ]
    return sorted((run for run in runs if run.steps), key=lambda run: (run.steps[0].start_ns, run.trace_id))


def _run(trace_id: str, told: Sequence[SpanRecord]) -> Run:
    scored: dict[str, list[SpanRecord]] = defaultdict(list)
    for span in told:
        if span.name == names.SCORE_SPAN:
            scored[span.parent_id].append(span)
    guards = {span.span_id: span for span in told if span.name == names.GUARD_SPAN}
    steps = [_step(guard, scored.get(span_id, ())) for span_id, guard in guards.items()]
    steps += [_unfinished(parent, spans) for parent, spans in scored.items() if parent not in guards]
    conversations = (_text(span, names.CONVERSATION_ID) for span in told)
    return Run(trace_id, next((each for each in conversations if each), None), _last_told(steps))


def _last_told(steps: Iterable[TracedStep]) -> tuple[TracedStep, ...]:
    last: dict[tuple[object, ...], TracedStep] = {}
    for step in sorted(steps, key=lambda step: (step.start_ns, step.attempt, step.span_id)):
        # Without calls to tell them apart, the steps of parallel nodes differ by their task, which a resume keeps.
        task = None if step.tool_call_ids else step.attributes.get(names.LANGGRAPH_TASK_ID)
        last[step.index, step.tool_call_ids, task, bool(step.decision)] = step
    return tuple(sorted(last.values(), key=lambda step: (step.start_ns, step.span_id)))


def _step(span: SpanRecord, scored: Sequence[SpanRecord]) -> TracedStep:
    return TracedStep(
        index=_integer(span, names.STEP_INDEX) or 0,
        attempt=_integer(span, names.STEP_ATTEMPT) or 1,
        span_id=span.span_id,
        start_ns=span.start_ns,
        decision=_text(span, names.DECISION) or "",
        reason=_text(span, names.DECISION_REASON) or "",
        score=_real(span, names.SCORE),
        threshold=_real(span, names.THRESHOLD),
        action_kind=_text(span, names.ACTION_KIND) or "",
        tool_names=_texts(span, names.ACTION_TOOL_NAMES),
        tool_call_ids=_texts(span, names.ACTION_TOOL_CALL_IDS),
        selected_index=_integer(span, names.CANDIDATE_SELECTED),
        candidates=tuple(sorted((_candidate(each) for each in scored), key=lambda each: each.index)),
        error=_text(span, names.ERROR_TYPE),
        attributes=span.attributes,
        mode=_text(span, names.MODE) or "",
        tiers=_texts(span, names.ACTION_TIERS),
        p_success=_real(span, names.P_SUCCESS),
    )


def _unfinished(span_id: str, scored: Sequence[SpanRecord]) -> TracedStep:
    """A step whose guard span was never written: all that is known of it are its candidates."""
    first = scored[0]
    step = _step(replace(first, span_id=span_id), scored)
    return replace(step, score=None, threshold=None, error=None, attributes={})


def _candidate(span: SpanRecord) -> TracedCandidate:
    return TracedCandidate(
        index=_integer(span, names.CANDIDATE_INDEX) or 0,
        span_id=span.span_id,
        score=_real(span, names.EVALUATION_SCORE),
        threshold=_real(span, names.THRESHOLD),
        label=_text(span, names.EVALUATION_LABEL) or "",
        token_count=_integer(span, names.TOKEN_COUNT),
        log_ratio_min=_real(span, names.TOKEN_LOG_RATIO_MIN),
        log_ratio_argmin=_integer(span, names.TOKEN_LOG_RATIO_ARGMIN),
        log_ratio_mean=_real(span, names.TOKEN_LOG_RATIO_MEAN),
        log_ratios=tuple(ratio for ratio in _array(span, names.TOKEN_LOG_RATIOS) if isinstance(ratio, float)),
        text=_text(span, names.ACTION_TEXT),
        tool_arguments=_texts(span, names.ACTION_TOOL_ARGUMENTS),
        error=_text(span, names.ERROR_TYPE),
        attributes=span.attributes,
        same_as=_integer(span, names.CANDIDATE_SAME_AS),
        output_tokens=_integer(span, names.OUTPUT_TOKENS),
    )


def _text(span: SpanRecord, name: str) -> str | None:
    value = span.attributes.get(name)
    return value if isinstance(value, str) else None


def _integer(span: SpanRecord, name: str) -> int | None:
    value = span.attributes.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _real(span: SpanRecord, name: str) -> float | None:
    value = span.attributes.get(name)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _array(span: SpanRecord, name: str) -> tuple[object, ...]:
    value = span.attributes.get(name)
    return value if isinstance(value, tuple) else ()


def _texts(span: SpanRecord, name: str) -> tuple[str, ...]:
    return tuple(each for each in _array(span, name) if isinstance(each, str))
