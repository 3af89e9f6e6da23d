"""What a decision adds to the metrics. Attributes are few and low in cardinality; no id and no content among them."""

from __future__ import annotations

from collections.abc import Sequence

from opentelemetry.metrics import Meter

from pa_middleware.tracing import conventions as names


class Instruments:
    """The instruments of one meter.

    A histogram of OpenTelemetry drops negative values without an error, and a progress advantage is signed: the score
    is therefore written as its magnitude, with the sign as an attribute.
    """

    def __init__(self, meter: Meter) -> None:
        self._decisions = meter.create_counter(names.DECISIONS_METRIC, "{decision}", "Decisions made by the guard")
        self._reviews = meter.create_counter(
            names.REVIEWS_METRIC, "{call}", "Tool calls of escalated actions that a human answered"
        )
        self._duration = meter.create_histogram(
            names.DURATION_METRIC, "s", "Time from the start of a step to its decision, draws included"
        )
        self._candidates = meter.create_histogram(names.CANDIDATES_METRIC, "{candidate}", "Actions drawn for a step")
        self._magnitude = meter.create_histogram(
            names.MAGNITUDE_METRIC, "1", "Absolute value of the decided action's score; its sign is an attribute"
        )

    def decided(self, attributes: dict[str, str], *, seconds: float, candidates: int, score: float | None) -> None:
        """Count one decision. `score` is finite, or None when the step was not scored."""
        self._decisions.add(1, attributes)
        self._duration.record(max(seconds, 0.0), attributes)
        self._candidates.record(max(candidates, 0), attributes)
        if score is not None:
            sign = names.SIGN_NEGATIVE if score < 0 else names.SIGN_NONNEGATIVE
            self._magnitude.record(abs(score), {**attributes, names.SCORE_SIGN: sign})

    def reviewed(self, decisions: Sequence[str]) -> None:
        """Count a human's answers, one for each tool call."""
        for decision in decisions:
            self._reviews.add(1, {names.REVIEW_DECISION: decision})
