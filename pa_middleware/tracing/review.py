"""A human's answer to an escalated step, told: one finished span, linked to the step's guard span, and the metric."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from opentelemetry import trace

from pa_middleware.tracing import attributes as make
from pa_middleware.tracing import conventions as names
from pa_middleware.tracing import parent
from pa_middleware.tracing.attributes import Attributes
from pa_middleware.tracing.sink import Sink


def tell_review(
    sink: Sink,
    *,
    index: int,
    of: str,
    anchor: str | None,
    decisions: Sequence[str],
    tool_names: Sequence[str],
    tool_call_ids: Sequence[str | None],
    response_id: str | None,
    attributes: Mapping[str, str | int] | None,
) -> None:
    """Write the span and count the answers; arguments as in `Telemetry.review`. Never raises.

    The answer comes in another call of the graph than the question, hours later maybe, and so has a span of its own.
    """
    with sink.quiet:
        told: Attributes = {
            **make.given(attributes),
            names.SPAN_KIND: names.SPAN_KIND_GUARDRAIL,
            names.STEP_INDEX: index,
            names.REVIEW_DECISIONS: make.texts(decisions),
            names.ACTION_TOOL_NAMES: make.texts(tool_names),
            names.ACTION_TOOL_CALL_IDS: make.texts(tool_call_ids),
        }
        if response_id is not None:
            told[names.RESPONSE_ID] = make.text(response_id)
        links = []
        if (reviewed := parent.anchored(of)) is not None:
            guard = reviewed.get_span_context()
            told[names.REVIEW_OF] = f"{guard.span_id:016x}"
            links.append(trace.Link(guard, {names.LINK_KIND: names.LINK_REVIEWS}))
        live, anchored = parent.live_parent(), parent.anchored(anchor)
        above = live or anchored or trace.INVALID_SPAN
        if anchored is not None and parent.trace_of(anchored) != parent.trace_of(above):
            told[names.RUN_TRACE] = parent.trace_of(anchored)
        if (provider := sink.provider()) is not None:
            tracer, context = provider.get_tracer(names.SCOPE), trace.set_span_in_context(above)
            tracer.start_span(names.REVIEW_SPAN, context=context, attributes=told, links=links).end()
    with sink.quiet:
        sink.instruments().reviewed(make.texts(decisions))
