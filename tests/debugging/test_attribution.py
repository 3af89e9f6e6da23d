from __future__ import annotations

import math
from itertools import pairwise
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pa_middleware.debugging import RULES, AttributionError, Rule, Suspect, attribute, decisive

_SCORES = st.lists(st.one_of(st.integers(-4, 4).map(float), st.floats(-50, 50, width=32)), min_size=1, max_size=30)
_GAPPED = st.lists(st.one_of(st.none(), st.integers(-4, 4).map(float)), min_size=1, max_size=30).filter(
    lambda scores: any(score is not None for score in scores)
)
_LIMIT = -0.5


def _attribute(scores: list[float | None], rule: Rule) -> tuple[Suspect, ...]:
    return attribute(scores, rule, threshold=_LIMIT if rule == "first_below" else None)


def _steps(suspects: tuple[Suspect, ...]) -> list[int]:
    return [suspect.step for suspect in suspects]


def test_lowest_suspects_the_lowest_score() -> None:
    assert attribute([1.0, -2.0, 0.5, -1.0], "lowest") == (
        Suspect(1, -2.0, 1.0),
        Suspect(3, -1.0, 1.5),
        Suspect(2, 0.5, 0.5),
        Suspect(0, 1.0, 0.0),
    )


def test_lowest_is_the_default_rule() -> None:
    assert attribute([1.0, -2.0]) == attribute([1.0, -2.0], "lowest")


def test_lowest_sum_suspects_where_the_sum_so_far_is_lowest() -> None:
    assert attribute([-1.0, 2.0, -2.5, -0.5, 3.0], "lowest_sum") == (
        Suspect(3, -2.0, 0.5),
        Suspect(2, -1.5, 0.5),
        Suspect(0, -1.0, 2.0),
        Suspect(1, 1.0, 0.0),
        Suspect(4, 1.0, 0.0),
    )


def test_sharpest_fall_suspects_the_step_that_a_score_fell_to_and_never_the_first() -> None:
    assert attribute([-9.0, 4.0, 1.0, 0.5, 2.0, -2.0], "sharpest_fall") == (
        Suspect(5, 4.0, 1.0),
        Suspect(2, 3.0, 2.5),
        Suspect(3, 0.5, 0.0),
    )


def test_first_below_suspects_the_earliest_score_below_the_threshold() -> None:
    assert attribute([0.0, -0.5, -0.6, 1.0, -9.0], "first_below", threshold=-0.5) == (
        Suspect(2, 2.0, 2.0),
        Suspect(4, 4.0, 0.0),
    )


@given(_SCORES)
@settings(max_examples=300, deadline=None)
def test_the_first_suspect_of_each_rule_is_the_naive_one(scores: list[float]) -> None:
    steps = range(len(scores))
    given: list[float | None] = [*scores]
    assert decisive(given, "lowest").step == min(steps, key=lambda t: scores[t])
    # Left to right from 0.0, as the rule adds; the builtin sum compensates for rounding from Python 3.12 on.
    sums, total = [], 0.0
    for score in scores:
        total += score
        sums.append(total)
    assert decisive(given, "lowest_sum").step == min(steps, key=lambda t: sums[t])
    falls = {t: scores[t - 1] - scores[t] for t in steps[1:] if scores[t - 1] > scores[t]}
    assert _steps(attribute(given, "sharpest_fall"))[:1] == ([max(falls, key=lambda t: falls[t])] if falls else [])
    below = [t for t in steps if scores[t] < _LIMIT]
    assert _steps(_attribute(given, "first_below")) == below


@given(_GAPPED, st.sampled_from(RULES))
@settings(max_examples=300, deadline=None)
def test_suspects_are_ranked_by_value_and_margins_are_the_gaps(scores: list[float | None], rule: Rule) -> None:
    suspects = _attribute(scores, rule)
    sign = -1.0 if rule == "sharpest_fall" else 1.0
    keys = [(sign * suspect.value, suspect.step) for suspect in suspects]
    assert keys == sorted(keys)
    assert len(set(_steps(suspects))) == len(suspects)
    gaps = [abs(after.value - before.value) for before, after in pairwise(suspects)]
    assert [suspect.margin for suspect in suspects] == [*gaps, 0.0][: len(suspects)]
    if rule in ("lowest", "lowest_sum"):
        assert len(suspects) == sum(score is not None for score in scores)


@given(_GAPPED, st.sampled_from(RULES))
@settings(max_examples=300, deadline=None)
def test_a_step_without_a_score_changes_nothing_but_the_others_places(scores: list[float | None], rule: Rule) -> None:
    places = [step for step, score in enumerate(scores) if score is not None]
    without = _attribute([score for score in scores if score is not None], rule)
    assert _steps(_attribute(scores, rule)) == [places[step] for step in _steps(without)]


@pytest.mark.parametrize("rule", ["lowest", "lowest_sum", "sharpest_fall"])
def test_ties_go_to_the_earlier_step(rule: Rule) -> None:
    assert decisive([3.0, 0.0, 3.0, 0.0] if rule != "lowest_sum" else [2.0, -2.0, 0.0], rule).step == 1


def test_steps_that_all_score_above_zero_are_ranked_all_the_same() -> None:
    assert decisive([3.0, 1.0, 2.0], "lowest").step == 1
    assert decisive([3.0, 1.0, 2.0], "lowest_sum").step == 0


def test_where_nothing_falls_or_is_below_nothing_is_suspected() -> None:
    assert attribute([1.0, 1.0, 2.0], "sharpest_fall") == ()
    assert attribute([-5.0], "sharpest_fall") == ()
    assert attribute([1.0, 1.0], "first_below", threshold=1.0) == ()
    with pytest.raises(AttributionError, match="'sharpest_fall' suspects no step: no score is lower than the one"):
        decisive([1.0, 1.0, 2.0], "sharpest_fall")
    with pytest.raises(AttributionError, match=r"'first_below' suspects no step: no score is below 1\.0"):
        decisive([1.0, 1.0], "first_below", threshold=1.0)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("scores", [[], [None], [None, None]])
def test_without_any_scored_step_there_is_nothing_to_rank(scores: list[float | None], rule: Rule) -> None:
    with pytest.raises(AttributionError, match=f"none of the {len(scores)} steps has a score"):
        _attribute(scores, rule)


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_not_finite_is_refused(score: float) -> None:
    with pytest.raises(AttributionError, match=f"step 1 is {score!r}"):
        attribute([0.0, score])


@pytest.mark.parametrize(
    ("rule", "scores"),
    [("lowest", [1e308, -1e308]), ("lowest_sum", [1e308, 1e308]), ("sharpest_fall", [1e308, -1e308])],
)
def test_sums_and_differences_beyond_the_float_range_are_refused(rule: Rule, scores: list[float | None]) -> None:
    with pytest.raises(AttributionError, match="beyond the float range"):
        attribute(scores, rule)


def test_an_unknown_rule_is_refused_with_the_known_ones() -> None:
    with pytest.raises(AttributionError, match="'highest'; allowed: 'lowest', 'lowest_sum', 'sharpest_fall', 'first"):
        attribute([1.0], "highest")  # type: ignore[arg-type]
    assert get_args(Rule) == RULES


def test_a_threshold_goes_with_first_below_and_with_nothing_else() -> None:
    with pytest.raises(AttributionError, match="needs a threshold"):
        attribute([1.0], "first_below")
    with pytest.raises(AttributionError, match="threshold is nan; allowed: a finite number"):
        attribute([1.0], "first_below", threshold=math.nan)
    with pytest.raises(AttributionError, match=r"threshold=0\.0 has no effect with rule='lowest'"):
        attribute([1.0], "lowest", threshold=0.0)
