"""The way in: `Telemetry`, which a guard holds, and the span it opens for every step.

Knows no graph, no rule and no SDK. Without a configured provider every call is a cheap no-op. Nothing here raises: a
failing provider, processor or exporter costs telemetry, never the step.

A guard enters `telemetry.step(...)`, tells each candidate and the decision to the span it gets, and keeps the span's
`anchor` in the run's state for the next step.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence

from opentelemetry._logs import LoggerProvider
from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import TracerProvider

from pa_middleware.tracing import attributes as make
from pa_middleware.tracing import conventions as names
from pa_middleware.tracing.review import tell_review
from pa_middleware.tracing.sink import Sink
from pa_middleware.tracing.step import StepSpan


class Telemetry:
    """Where the steps of one guard are told to; usable from several threads and tasks at once.

    `scorer`, `scorer_version`, `policy_model` and `reference_model` go onto every guard span as they are, and so does
    what `fingerprint` answers (at most 16 parts). It is called once, when a guard span is first recorded.

    A provider that is not given is looked up at each step: for spans an open `record`ing, then the global provider,
    which may be set later; for metrics and events the global one. `token_log_ratios` adds the log-ratio of each token
    (at most 1,024 for a candidate). `content` adds what the model was shown and what it said: messages, tool
    definitions, action text, reasoning and arguments, and with `token_log_ratios` the text of each token, as
    `token_texts` answers it for ids; None reads OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT, where SPAN_ONLY and
    SPAN_AND_EVENT mean yes.
    """

    def __init__(
        self,
        *,
        scorer: str = "",
        scorer_version: str = "",
        policy_model: str = "",
        reference_model: str = "",
        fingerprint: Callable[[], Mapping[str, str] | None] | None = None,
        token_texts: Callable[[Sequence[int]], Sequence[str]] | None = None,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        logger_provider: LoggerProvider | None = None,
        token_log_ratios: bool = False,
        content: bool | None = None,
    ) -> None:
        if content is None:
            content = os.environ.get(names.CONTENT_VARIABLE, "").strip().upper() in names.CONTENT_ON
        described = {
            names.SCORER_NAME: scorer,
            names.SCORER_VERSION: scorer_version,
            names.POLICY_MODEL: policy_model,
            names.REFERENCE_MODEL: reference_model,
        }
        self._sink = Sink(
            scorer=scorer,
            described={name: make.text(value) for name, value in described.items()},
            content=content,
            token_log_ratios=token_log_ratios,
            tracer_provider=tracer_provider,
            meter_provider=meter_provider,
            logger_provider=logger_provider,
            fingerprint=fingerprint,
            token_texts=token_texts,
        )

    @property
    def content(self) -> bool:
        """True if what the model was shown and what it said is written."""
        return self._sink.content

    def step(
        self,
        *,
        index: int,
        attempt: int = 1,
        anchor: str | None = None,
        attributes: Mapping[str, str | int] | None = None,
    ) -> StepSpan:
        """Context manager for one step of an agent; its guard span is the current one inside.

        `anchor` is what the run's earlier steps answered as `StepSpan.anchor`; it is the parent when no span is live.
        `attributes` (at most 64) go onto the span as they are: conversation id, agent name, LangGraph's ids.
        """
        return StepSpan(self._sink, index=index, attempt=attempt, anchor=anchor, attributes=attributes)

    def review(
        self,
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
        """Tell that a human answered an escalated step: a finished span, linked to the step's, and the metric.

        `of` is the `StepSpan.traceparent` of the step, `index`, `anchor` and `attributes` as in `step`. `decisions` are
        approve, edit, reject or respond, one for each tool call; what was edited or said is not told.
        """
        tell_review(
            self._sink,
            index=index,
            of=of,
            anchor=anchor,
            decisions=decisions,
            tool_names=tool_names,
            tool_call_ids=tool_call_ids,
            response_id=response_id,
            attributes=attributes,
        )
