"""One step being told: the guard span, a score span and an event for each candidate, the decision and its metrics."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextvars import Token
from types import TracebackType
from typing import TYPE_CHECKING

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import Context

from pa_middleware.tracing import attributes as make
from pa_middleware.tracing import conventions as names
from pa_middleware.tracing import parent
from pa_middleware.tracing.attributes import Attributes
from pa_middleware.tracing.sink import Sink

if TYPE_CHECKING:
    from langchain_core.messages import AIMessage, BaseMessage

    from pa_middleware.scoring.scorer import CandidateScore, Tool


_NO_TRACER = trace.NoOpTracer()


class StepSpan:
    """One step of an agent: enter it, tell each candidate and then the decision, leave it. Made by `Telemetry.step`.

    An exception that leaves the block is neither swallowed nor recorded: an interrupt of the graph is no error, and
    which exception is one only the guard can tell (`error=`).
    """

    traceparent: str
    """W3C traceparent of the guard span; "" before entering, and when nothing records the span."""
    anchor: str
    """What the run's later steps pass as `anchor`: the one given, the live parent, or a new run span; "" if none."""

    def __init__(
        self,
        sink: Sink,
        *,
        index: int,
        attempt: int,
        anchor: str | None,
        attributes: Mapping[str, str | int] | None,
    ) -> None:
        self.traceparent = ""
        self.anchor = ""
        self._sink = sink
        self._anchor = anchor
        self._given = attributes
        self._place: Attributes = {names.STEP_INDEX: index, names.STEP_ATTEMPT: attempt}
        self._run: Attributes = {}
        """What tells this run from others, on every span of it."""
        self._span: trace.Span = trace.INVALID_SPAN
        self._provider: trace.TracerProvider | None = None
        self._tracer: trace.Tracer = _NO_TRACER
        """The one that started the guard span."""
        self._inside: Context | None = None
        self._token: Token[Context] | None = None
        self._previous: trace.SpanContext | None = None
        self._entered = time.perf_counter()

    def __enter__(self) -> StepSpan:
        """Start the guard span below the parent it should have, and make it current."""
        self._entered = time.perf_counter()
        with self._sink.quiet:
            self._start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        """End the guard span, whatever left the block."""
        with self._sink.quiet:
            if self._token is not None:
                otel_context.detach(self._token)
        with self._sink.quiet:
            self._span.end()

    def candidate(
        self,
        index: int,
        score: CandidateScore | None,
        *,
        label: str,
        threshold: float | None = None,
        message: AIMessage | None = None,
        response_id: str | None = None,
        error: BaseException | None = None,
        started_ns: int | None = None,
        same_as: int | None = None,
        action_kind: str = "",
        least_margin: float | None = None,
    ) -> None:
        """Tell one candidate: a finished score span below the guard span, and the evaluation event in its context.

        `label` is "pass" or "fail" ("" if not judged). `score` is None when scoring failed with `error`; a score that
        is not finite counts as a failure too and is not written. `started_ns` is when its scoring began (time_ns).
        `same_as` is the index of an earlier candidate with the same action, which was scored for both. Scores that
        differ by no more than `least_margin` are equal but for rounding.
        """
        with self._sink.quiet:
            value = score.score if score is not None else None
            failure = make.error_type(error, value)
            attributes: Attributes = make.evaluation(value, label, threshold, score.token_count if score else None)
            attributes |= self._place
            attributes[names.CANDIDATE_INDEX] = index
            if same_as is not None:
                attributes[names.CANDIDATE_SAME_AS] = same_as
            if response_id is not None:
                attributes[names.RESPONSE_ID] = make.text(response_id)
            if failure is not None:
                attributes[names.ERROR_TYPE] = failure
            context = self._inside
            if self._span.is_recording():
                with self._sink.quiet:
                    numbers = make.numbers({names.THRESHOLD: threshold, names.LEAST_MARGIN: least_margin})
                    span = self._score_span(attributes | numbers, started_ns)
                    context = trace.set_span_in_context(span)
                    try:
                        self._describe(span, score, message, action_kind)
                        self._sink.failed(span, failure, error)
                    finally:
                        span.end()
            self._sink.evaluated(attributes, failed=failure is not None, context=context or otel_context.get_current())

    def shown(self, messages: Callable[[], Sequence[BaseMessage]], tools: Sequence[Tool]) -> None:
        """Tell what the model was shown, if content is switched on; else `messages` is not called."""
        with self._sink.quiet:
            if self._sink.content and self._provider is not None and self._span.is_recording():
                run = self._span.get_span_context().trace_id, self._run.get(names.CONVERSATION_ID)
                self._span.set_attributes(self._sink.told(self._provider).attributes(run, messages(), tools))

    def decided(
        self,
        *,
        decision: str,
        reason: str,
        score: float | None,
        threshold: float | None,
        aggregation: str,
        candidate_count: int,
        selected_index: int,
        action_kind: str,
        tool_names: Sequence[str],
        tool_call_ids: Sequence[str | None],
        response_id: str | None = None,
        error: BaseException | None = None,
        mode: str = "",
        tiers: Sequence[str] = (),
        p_success: float | None = None,
    ) -> None:
        """Tell the decision, once: the guard span's attributes, and the metrics.

        `error` is what made scoring fail: it sets `error.type` and the status. A decision against an action is no
        error. A score that is not finite counts as a failure and is not written. `tiers` are one for each tool call.
        """
        seconds = time.perf_counter() - self._entered
        failure = make.error_type(error, score)
        with self._sink.quiet:
            if self._span.is_recording():
                attributes: Attributes = {
                    **make.numbers({names.SCORE: score, names.THRESHOLD: threshold, names.P_SUCCESS: p_success}),
                    **(make.evaluation(score, make.label(score, threshold), threshold) if score is not None else {}),
                    names.DECISION: make.text(decision),
                    names.DECISION_REASON: make.text(reason),
                    names.NORMALIZATION: make.text(aggregation),
                    names.CANDIDATE_COUNT: candidate_count,
                    names.CANDIDATE_SELECTED: selected_index,
                    names.ACTION_KIND: make.text(action_kind),
                    names.ACTION_TOOL_NAMES: make.texts(tool_names),
                    names.ACTION_TOOL_CALL_IDS: make.texts(tool_call_ids),
                }
                if response_id is not None:
                    attributes[names.RESPONSE_ID] = make.text(response_id)
                if mode:
                    attributes[names.MODE] = make.text(mode)
                if tiers:
                    attributes[names.ACTION_TIERS] = make.texts(tiers)
                self._span.set_attributes(attributes)
                self._sink.failed(self._span, failure, error)
        with self._sink.quiet:
            tags = {names.DECISION: decision, names.ACTION_KIND: action_kind, names.SCORER_NAME: self._sink.scorer}
            if mode:
                tags[names.MODE] = mode
            if failure is not None:
                tags[names.ERROR_TYPE] = failure
            self._sink.instruments().decided(
                tags, seconds=seconds, candidates=candidate_count, score=make.finite(score)
            )

    def _start(self) -> None:
        live, anchored = parent.live_parent(), parent.anchored(self._anchor)
        provider = self._sink.provider()
        if provider is None:
            self.anchor = parent.traceparent(anchored or live or trace.INVALID_SPAN)
            return
        self._provider = provider
        self._tracer = provider.get_tracer(names.SCOPE)
        given = make.given(self._given)
        if names.CONVERSATION_ID in given:
            self._run[names.CONVERSATION_ID] = given[names.CONVERSATION_ID]
        above = live or anchored or self._run_span(given)
        self.anchor = parent.traceparent(anchored or above)
        if anchored is not None and live is not None and parent.trace_of(anchored) != parent.trace_of(live):
            self._run[names.RUN_TRACE] = parent.trace_of(anchored)
        span = self._tracer.start_span(
            names.GUARD_SPAN,
            context=trace.set_span_in_context(above),
            attributes={
                **given,
                **self._run,
                **self._place,
                names.SPAN_KIND: names.SPAN_KIND_GUARDRAIL,
                **self._sink.described,
            },
        )
        self._span = span
        if span.get_span_context().is_valid:
            self._inside = trace.set_span_in_context(span)
            self._token = otel_context.attach(self._inside)
        if span.is_recording():
            self.traceparent = parent.traceparent(span)
            span.set_attributes(self._sink.identity())  # last: it may fail

    def _run_span(self, given: Attributes) -> trace.Span:
        """The anchor of a run that nothing else traces. It ends at once, and so survives the death of the process."""
        kept: Attributes = {name: given[name] for name in (names.AGENT_NAME, names.CONVERSATION_ID) if name in given}
        span = self._tracer.start_span(names.RUN_SPAN, attributes=kept)
        with self._sink.quiet:
            span.end()
        return span

    def _score_span(self, attributes: Attributes, started_ns: int | None) -> trace.Span:
        attributes |= self._run
        attributes[names.SPAN_KIND] = names.SPAN_KIND_EVALUATOR
        links = []
        if self._previous is not None:
            attributes[names.CANDIDATE_RESAMPLED_FROM] = f"{self._previous.span_id:016x}"
            links.append(trace.Link(self._previous, {names.LINK_KIND: names.LINK_RESAMPLED_FROM}))
        span = self._tracer.start_span(
            names.SCORE_SPAN, context=self._inside, attributes=attributes, links=links, start_time=started_ns
        )
        self._previous = span.get_span_context()
        return span

    def _describe(
        self, span: trace.Span, score: CandidateScore | None, message: AIMessage | None, action_kind: str
    ) -> None:
        """What needs work to build, and so is built for spans that are recorded only."""
        if not span.is_recording():
            return
        if message is not None:
            span.set_attributes(make.action(message, action_kind))
            if self._sink.content:
                span.set_attributes(make.content(message))
        if score is not None:
            span.set_attributes(make.composition(score, log_ratios=self._sink.token_log_ratios))
            span.set_attributes(self._sink.token_texts_of(score))
