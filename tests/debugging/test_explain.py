"""Which step of a recorded run went wrong, how sure that is, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
from guard.agents import ByArgument, Scripted, World, agent_node, build, enforced, run, say

from pa_middleware import Guard, record
from pa_middleware.debugging import AttributionError, Rule, attribute, explain
from pa_middleware.tracing import conventions as names
from pa_middleware.tracing import read
from pa_middleware.tracing.assembling import assemble_run
from pa_middleware.tracing.otlp import SpanRecord
from pa_middleware.tracing.runs import Run


def _run(
    scores: Sequence[float | None],
    *,
    tokens: Sequence[Sequence[float]] | None = None,
    margin: float = 0.0,
    aggregation: str = "sum",
    beta: str | None = None,
) -> Run:
    """A run of these scores, as its spans tell it; its steps count from 10."""
    spans = []
    for place, score in enumerate(scores):
        told: dict[str, Any] = {
            names.STEP_INDEX: 10 + place,
            names.DECISION: "pass",
            names.CANDIDATE_SELECTED: 0,
            names.NORMALIZATION: aggregation,
            names.ACTION_TOOL_CALL_IDS: (f"call-{place}",),
        }
        told |= {} if beta is None else {f"{names.SCORER_FINGERPRINT}.beta": beta}
        candidate: dict[str, Any] = {names.CANDIDATE_INDEX: 0, names.LEAST_MARGIN: margin}
        if score is not None:
            told[names.SCORE] = candidate[names.EVALUATION_SCORE] = score
            ratios = (score,) if tokens is None else tuple(tokens[place])
            candidate |= {names.TOKEN_LOG_RATIOS: ratios, names.TOKEN_COUNT: len(ratios)}
        spans.append(SpanRecord("t", f"{place}", "", names.GUARD_SPAN, place, place, told))
        spans.append(SpanRecord("t", f"{place}c", f"{place}", names.SCORE_SPAN, place, place, candidate))
    return assemble_run("t", spans)


CLEAR = (0.2, 0.1, -5.0, 0.3, 0.0, -0.2, 0.1)
CLOSE = (0.2, -4.6, -5.0, 0.3, -3.0, -0.2, 0.1)


def test_a_step_far_below_the_others_stands_out_and_is_called_by_the_agents_own_count() -> None:
    found = explain(_run(CLEAR))
    assert (found.suspects, found.stands_out) == (attribute(CLEAR), True)
    assert found.why == "step 12 scores -5; the next, step 15, is 4.8 away, a gap that chance seldom leaves"
    assert found.suspects[0].step == 2, "an index into the run's steps"


def test_no_step_stands_out_where_the_next_is_close() -> None:
    found = explain(_run(CLOSE))
    assert not found.stands_out
    assert found.why == "no step stands out: step 12 scores -5; the next, step 11, is only 0.4 away"
    assert found.suspects == attribute(CLOSE), "the ranking is there all the same"


def test_no_step_stands_out_by_no_more_than_rounding() -> None:
    found = explain(_run((0.0, 0.0, -0.2, 0.0, 0.0), margin=0.2))
    assert (found.stands_out, found.why) == (
        False,
        "no step stands out: step 12 scores -0.2; step 10 is equal but for rounding",
    )
    assert explain(_run((0.0, 0.0, -0.2, 0.0, 0.0), margin=0.19)).stands_out


def test_of_two_steps_none_stands_out() -> None:
    assert explain(_run((0.0, -9.0))).why == "no step stands out: step 11 scores -9; it takes 3 scores to tell"
    assert explain(_run((-9.0,))).why == "no step stands out: step 10 scores -9; it takes 3 scores to tell"
    assert explain(_run((0.0, 0.1, -9.0)), "sharpest_fall").why == (
        "no step stands out: step 12 scores 9.1 less than the step before; it takes 4 scores to tell"
    )


def test_a_rule_that_names_another_step_than_the_lowest_names_none_that_stands_out() -> None:
    found = explain(_run(CLEAR), "first_below", threshold=0.15)
    assert (found.suspects[0].step, found.stands_out) == (1, False)
    assert found.why == "no step stands out: step 12 scores -5, lower than step 11 with +0.1"
    assert explain(_run(CLEAR), "first_below", threshold=-1.0).stands_out
    assert not explain(_run((*CLEAR, -0.3)), "lowest_sum").stands_out


def test_a_fall_is_held_to_the_other_falls() -> None:
    found = explain(_run((3.0, 3.1, 3.0, -1.0, -1.1, -0.9, -1.2)), "sharpest_fall")
    assert (found.suspects[0].step, found.stands_out) == (3, True)
    assert found.why.startswith("step 13 scores 4 less than the step before; the next, step 16, is 3.7 away")
    assert explain(_run((0.0, 0.0, 1.0)), "sharpest_fall").why == (
        "no step stands out: no score is lower than the one before it"
    )


def test_steps_without_a_score_are_no_suspects() -> None:
    found = explain(_run((None, 0.2, 0.1, None, -5.0, 0.3, 0.0)))
    assert ([suspect.step for suspect in found.suspects], found.stands_out) == ([4, 6, 2, 1, 5], True)
    assert explain(_run((None, None))).why == "no step of this run has a score"
    assert explain(_run((0.0, 0.3)), "first_below", threshold=-1.0).why == (
        "no step stands out: no score is below the threshold"
    )


@pytest.mark.parametrize("scores", [CLEAR, (None, None)])
@pytest.mark.parametrize(("rule", "threshold"), [("worst", None), ("first_below", None), ("lowest", 1.0)])
def test_a_wrong_question_is_an_error_for_every_run(scores: Any, rule: Any, threshold: float | None) -> None:
    with pytest.raises(AttributionError):
        explain(_run(scores), rule, threshold=threshold)


def test_scores_beyond_the_float_range_are_said_to_be_so_and_stop_nothing() -> None:
    found = explain(_run((-1.7e308, 1.7e308)))
    assert (found.suspects, found.stands_out) == ((), False)
    assert "beyond the float range" in found.why


@pytest.mark.parametrize("rule", get_args(Rule))
def test_how_often_a_step_stays_first_is_the_share_of_resamples_whatever_steps_have_no_score(rule: Rule) -> None:
    threshold = -0.5 if rule == "first_below" else None
    tokens = [(0.1, 0.1), (0.0, 0.1), (-2.5, -2.5), (0.1, 0.2), (0.0, 0.0)]
    scores = [sum(each) for each in tokens]
    found = explain(_run(scores, tokens=tokens), rule, threshold=threshold)
    assert found.stays_first == 1.0
    gapped = explain(_run([None, *scores], tokens=[(0.0,), *tokens]), rule, threshold=threshold)
    assert gapped.stays_first == 1.0


def test_resamples_are_taken_on_the_scale_of_the_scores() -> None:
    tokens = [(0.2, -0.8), (-0.5, 0.1), (0.3, 0.3), (-0.2, -0.2)]
    at = [explain(_run([-0.5] * 4, tokens=tokens, beta=beta), "first_below", threshold=-0.4) for beta in ("0.5", "2.0")]
    assert at[0].stays_first != at[1].stays_first
    assert explain(_run([-0.5] * 4, tokens=tokens, beta="?")).stays_first is not None


def test_there_are_no_resamples_without_every_token_of_every_scored_step() -> None:
    run = _run(CLEAR)
    (first, *rest) = run.steps
    cut = replace(first, candidates=(replace(first.candidates[0], token_count=2),))
    assert explain(run).stays_first is not None
    assert explain(replace(run, steps=(cut, *rest))).stays_first is None
    assert explain(replace(run, steps=(replace(first, candidates=()), *rest))).stays_first is None
    assert explain(_run(CLEAR, aggregation="min")).stays_first is None


def test_a_single_score_is_not_resampled() -> None:
    assert explain(_run((None, -9.0))).stays_first is None
    assert explain(_run((0.0, -9.0))).stays_first == 1.0


def test_a_recorded_run_is_explained_from_its_file(tmp_path: Path) -> None:
    model = Scripted(replies=[say(number) for number in (5, 6, 7, 5)])
    guard = Guard(ByArgument(), enforced(threshold=-100.0), trace_tokens=True)
    with record(tmp_path / "run.jsonl"):
        run(build(guard, agent_node(model), World()).compile())
    (traced,) = read(tmp_path / "run.jsonl")
    found = explain(traced)
    assert found.suspects
    assert found.suspects[0].value == min(step.score for step in traced.steps if step.score is not None)
