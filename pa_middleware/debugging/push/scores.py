"""What a backend is told about a span beside the span: a candidate's score, a step's score and its decision."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from pa_middleware.tracing import conventions as names
from pa_middleware.tracing.otlp import SpanRecord

DECISION = f"{names.EVALUATION}_decision"
"""Name of the score that holds a step's decision."""
LONGEST = 500
"""Characters of a label or an explanation; more is cut off. It is the shortest limit of the backends."""
_OURS = uuid.uuid5(uuid.NAMESPACE_DNS, names.SCOPE)


@dataclass(frozen=True, slots=True)
class Score:
    """A judgement of one span. `value` is None for a decision, which is its `label`; "" is nothing to say."""

    trace_id: str
    span_id: str
    name: str
    value: float | None
    label: str
    explanation: str
    start_ns: int
    """When the span started."""
    made_ns: int
    """When it ended: a time that is the same whenever it is pushed."""

    @property
    def id(self) -> str:
        """A UUID that only this score has, the same whenever it is pushed."""
        return str(uuid.uuid5(_OURS, f"{self.trace_id}/{self.span_id}/{self.name}"))

    @property
    def started(self) -> str:
        """When the span started, as ISO 8601 in UTC."""
        return _iso(self.start_ns)

    @property
    def made(self) -> str:
        """When the score was made, as ISO 8601 in UTC."""
        return _iso(self.made_ns)


def scores(span: SpanRecord) -> Iterator[Score]:
    """The scores of a span: of a candidate its own, of a step that of the selected candidate and the decision.

    Other spans, a candidate that could not be scored, and a step without a decision have none.
    """
    if span.name not in (names.GUARD_SPAN, names.SCORE_SPAN):
        return
    value = span.real(names.EVALUATION_SCORE)
    if value is not None:
        told = span.text(names.EVALUATION_LABEL), span.text(names.EVALUATION_EXPLANATION)
        yield _score(span, names.EVALUATION, value, *told)
    decision = span.text(names.DECISION)
    if span.name == names.GUARD_SPAN and decision:
        reason = span.text(names.DECISION_REASON).replace("_", " ")
        if span.text(names.MODE) == names.MODE_SHADOW:
            reason += f"; {names.MODE_SHADOW} mode, nothing was changed"
        yield _score(span, DECISION, None, decision, reason)


def _score(span: SpanRecord, name: str, value: float | None, label: str, explanation: str) -> Score:
    made_ns = span.start_ns if span.end_ns is None else span.end_ns
    trace_id, span_id = span.trace_id.lower(), span.span_id.lower()
    return Score(trace_id, span_id, name, value, label[:LONGEST], explanation[:LONGEST], span.start_ns, made_ns)


def _iso(time_ns: int) -> str:
    seconds, nanoseconds = divmod(time_ns, 1_000_000_000)
    moment = datetime.fromtimestamp(seconds, UTC).replace(microsecond=nanoseconds // 1000)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")
