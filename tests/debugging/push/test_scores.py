"""The scores that spans hold."""

from __future__ import annotations

import uuid
from typing import Any

from debugging.push import recorded

from pa_middleware.debugging.push.scores import LONGEST, Score, scores
from pa_middleware.tracing.otlp import SpanRecord


def of(name: str, attributes: dict[str, Any], end_ns: int | None = recorded.END) -> list[Score]:
    span = SpanRecord(recorded.TRACE, recorded.FIRST, "", name, recorded.START, end_ns, attributes)
    return list(scores(span))


def test_a_candidate_has_its_score_with_label_and_explanation() -> None:
    (score,) = of("score progress_advantage", recorded.judged(-2.0, "fail", "because"))
    assert (score.name, score.value, score.label, score.explanation) == ("progress_advantage", -2.0, "fail", "because")
    assert (score.trace_id, score.span_id) == (recorded.TRACE, recorded.FIRST)


def test_a_step_has_the_selected_candidates_score_and_its_decision() -> None:
    told = {"pa_middleware.decision": "flag", "pa_middleware.decision.reason": "below_threshold"}
    score, decision = of("guard progress_advantage", recorded.judged(-2.0, "fail") | told)
    assert (score.name, score.value, score.label) == ("progress_advantage", -2.0, "fail")
    assert (decision.name, decision.value, decision.label) == ("progress_advantage_decision", None, "flag")
    assert decision.explanation == "below threshold"


def test_a_decision_in_shadow_mode_says_that_nothing_was_changed() -> None:
    told = {"pa_middleware.decision": "abstain", "pa_middleware.mode": "shadow"}
    (decision,) = of("guard progress_advantage", told)
    assert "nothing was changed" in decision.explanation


def test_what_was_not_scored_has_no_score() -> None:
    assert of("score progress_advantage", {"error.type": "TimeoutError"}) == []
    assert of("guard progress_advantage", {}) == []


def test_spans_of_others_have_no_scores() -> None:
    assert of("evaluate", recorded.judged(1.0, "pass")) == []


def test_a_score_has_the_same_id_and_time_whenever_it_is_made() -> None:
    first, second = (of("score progress_advantage", recorded.judged(1.0, "pass"))[0] for _ in range(2))
    assert first.id == second.id
    assert uuid.UUID(first.id).version == 5
    assert (first.started, first.made) == ("2026-11-24T20:08:36.712094Z", "2026-11-24T20:08:36.847507Z")


def test_scores_of_one_span_have_ids_of_their_own() -> None:
    both = of("guard progress_advantage", recorded.judged(1.0, "pass") | {"pa_middleware.decision": "pass"})
    assert len({score.id for score in both}) == 2


def test_a_span_without_an_end_is_judged_at_its_start() -> None:
    (score,) = of("score progress_advantage", recorded.judged(1.0, "pass"), end_ns=None)
    assert score.made == score.started


def test_endless_words_are_cut() -> None:
    (score,) = of("score progress_advantage", recorded.judged(1.0, "l" * 10_000, "e" * 10_000))
    assert (len(score.label), len(score.explanation)) == (LONGEST, LONGEST)
