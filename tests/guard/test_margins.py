"""Draws that differ by no more than rounding are even: which ones those are, and that no other draw has a say in it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from guard.agents import ByArgument, enforced, run, say, simple
from hypothesis import assume, given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage

from pa_middleware import Rules, Step, StepScore
from pa_middleware.guard.enough import chance_of_better
from pa_middleware.guard.judge import Draw, judge
from pa_middleware.scoring.composing import Composer
from pa_middleware.scoring.margins import log_prob_margin
from pa_middleware.scoring.scorer import CandidateScore

BEST = Rules(draws=8, select="best", stop_at=0.1, drawn_by="reference")


def draw(score: float, log_prob: float, margin: float = 0.0, log_prob_margin: float = 0.0) -> Draw:
    proposal: Any = SimpleNamespace(action=AIMessage("an answer"))
    scored = CandidateScore(score, log_prob, log_prob - score, (score,))
    return Draw(proposal, score=scored, least_margin=margin, log_prob_margin=log_prob_margin)


def taken(draws: Sequence[Draw]) -> int:
    return judge(draws, BEST, out_of_budget=False).selected


def test_a_low_draw_of_wide_margin_does_not_change_which_of_the_others_is_taken() -> None:
    two = [draw(1.0, -5.0, 0.001), draw(0.95, -1.0, 0.001)]
    assert taken(two) == 0
    assert taken([*two, draw(-3.0, -9.0, 0.1, 0.1)]) == 0
    assert taken([*two, draw(-3.0, -0.01, 0.1, 9.0)]) == 0


def test_the_margin_of_the_best_says_which_are_even_with_it() -> None:
    assert taken([draw(1.0, -5.0, 0.1), draw(0.95, -1.0, 0.001)]) == 1
    assert taken([draw(1.0, -5.0, 0.001), draw(0.95, -1.0, 0.1)]) == 0
    assert taken([draw(0.95, -1.0, 0.1), draw(1.0, -5.0, 0.001)]) == 1


def test_log_probs_are_even_within_their_own_margin_whatever_the_scale_of_the_scores() -> None:
    assert taken([draw(1.0, -1.004, 0.0, 0.01), draw(1.0, -1.0, 0.0, 0.01)]) == 0
    assert taken([draw(1.0, -1.004, 1.0, 0.0), draw(1.0, -1.0, 1.0, 0.0)]) == 1


draws = st.builds(draw, *[st.floats(-3, 3), st.floats(-9, -0.01), st.floats(0, 1), st.floats(0, 1)])


@given(st.lists(draws, min_size=1, max_size=5), draws)
def test_what_scores_below_the_best_by_more_than_its_margin_changes_nothing(made: list[Draw], more: Draw) -> None:
    best = max(made, key=lambda each: each.score.score if each.score else -math.inf)
    assert best.score is not None
    assert more.score is not None
    assume(more.score.score < best.score.score - best.least_margin)
    assert taken([*made, more]) == taken(made), "the bound on the chance of a better draw counts on it"


def test_the_bound_begins_where_the_best_draws_margin_ends() -> None:
    # Half of the policy's probability and most of the reference's are left.
    best, close = draw(3.0, math.log(0.3), 0.5), draw(2.9, math.log(0.2), 0.0)
    assert chance_of_better([best, close], 1, BEST) == pytest.approx(0.5 * math.exp(-2.5))
    assert chance_of_better([replace(best, least_margin=0.0), close], 1, BEST) == pytest.approx(0.5 * math.exp(-3.0))


@pytest.mark.parametrize("aggregation", ["sum", "mean", "last", "min", "max"])
@pytest.mark.parametrize("beta", [0.1, 1.0, 5.0])
def test_the_noise_of_log_probs_is_found_from_the_margin_of_any_score(aggregation: Any, beta: float) -> None:
    margin = Composer(beta, aggregation, "ratio_then_aggregate").least_margin(9, 0.001)
    found = log_prob_margin(margin, tokens=9, beta=beta, aggregation=aggregation)
    assert found == pytest.approx(Composer(1.0, "sum", "ratio_then_aggregate").least_margin(9, 0.001))


@pytest.mark.parametrize(("beta", "taken"), [(1.0, 0), (100.0, 1)])
def test_a_guard_takes_log_probs_apart_that_only_the_scale_of_the_scores_made_even(beta: float, taken: int) -> None:
    class Scaled(ByArgument):
        def score(self, steps: Sequence[Step]) -> list[StepScore]:
            return [replace(score, least_margin=0.5) for score in super().score(steps)]

    scorer = Scaled((-1.4, -1.0))
    vars(scorer)["beta"] = beta
    builder, _ = simple([say(1), say(1.1)], enforced(draws=2, select="best"), scorer)
    assert run(builder.compile())["pa"][0]["selected"] == taken
