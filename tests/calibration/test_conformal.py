from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from calibration.made import a_run, failures, fit
from hypothesis import given, settings
from hypothesis import strategies as st

from pa_middleware.calibration.conformal import conformal_threshold, equal_weights, tasks_needed

_RUNS = st.lists(st.tuples(st.integers(-4, 4), st.integers(0, 9)), min_size=1, max_size=40)
_ALPHAS = st.fractions(min_value=Fraction(1, 40), max_value=Fraction(39, 40), max_denominator=40)


def _naive(runs: list[tuple[int, int]], alpha: Fraction) -> tuple[int, Fraction] | None:
    """The definition in exact arithmetic: the largest statistic that few enough lie below, each task counted once."""
    tasks = {task for _, task in runs}
    best = None
    for candidate in sorted({score for score, _ in runs}):
        below = Fraction(0)
        for task in tasks:
            own = [score for score, its in runs if its == task]
            below += Fraction(sum(score < candidate for score in own), len(own))
        bound = (1 + below) / (len(tasks) + 1)
        if bound <= alpha:
            best = candidate, bound
    return best


@given(_RUNS, _ALPHAS)
@settings(max_examples=300, deadline=None)
def test_the_threshold_is_the_largest_statistic_that_the_definition_allows(
    runs: list[tuple[int, int]], alpha: Fraction
) -> None:
    weights = equal_weights(np.array([task for _, task in runs]))
    found = conformal_threshold(np.array([float(score) for score, _ in runs]), weights, float(alpha))
    expected = _naive(runs, alpha)
    assert (found is None) == (expected is None)
    if found is not None and expected is not None:
        assert found.value == expected[0]
        assert found.bound == pytest.approx(float(expected[1]))
        assert found.bound <= float(alpha)


@given(_RUNS, _ALPHAS)
@settings(max_examples=200, deadline=None)
def test_there_is_a_threshold_exactly_if_there_are_enough_tasks(runs: list[tuple[int, int]], alpha: Fraction) -> None:
    tasks = np.array([task for _, task in runs])
    found = conformal_threshold(np.array([float(score) for score, _ in runs]), equal_weights(tasks), float(alpha))
    assert (found is not None) == (len(set(tasks.tolist())) >= math.ceil(1 / alpha) - 1)
    assert tasks_needed(float(alpha)) == max(1, math.ceil(1 / alpha) - 1)


@pytest.mark.parametrize("divided", [2, 3, 4, 7])
def test_rounding_of_a_divided_alpha_asks_for_no_extra_task(divided: int) -> None:
    assert tasks_needed(0.1 / divided) == 10 * divided - 1


@pytest.mark.parametrize("tasks", [9, 19, 20, 57])
def test_exchangeable_runs_are_stopped_as_often_as_the_bound_says(tasks: int) -> None:
    # For distinct scores the rate is the bound itself, for every number of runs: here within four standard errors.
    random, alpha, trials = np.random.default_rng(tasks), 0.1, 20_000
    stopped = 0
    bound = 0.0
    for _ in range(trials):
        *known, new = random.normal(size=tasks + 1)
        found = conformal_threshold(np.array(known), np.ones(tasks), alpha)
        assert found is not None
        bound = found.bound
        stopped += new < found.value
    assert alpha - 1 / (tasks + 1) < bound <= alpha
    assert stopped / trials == pytest.approx(bound, abs=4 * math.sqrt(bound / trials))


def test_runs_of_one_task_that_resemble_each_other_keep_the_bound_for_a_new_task() -> None:
    random, alpha, trials = np.random.default_rng(0), 0.1, 5000
    stopped = 0
    for _ in range(trials):
        sizes = random.integers(1, 8, 20)
        levels = 5 * random.normal(size=21)
        tasks = np.repeat(np.arange(20), sizes)
        found = conformal_threshold(levels[tasks] + random.normal(size=len(tasks)), equal_weights(tasks), alpha)
        assert found is not None
        stopped += levels[20] + random.normal() < found.value
    assert stopped / trials <= alpha + 3 * math.sqrt(alpha * (1 - alpha) / trials)


def test_the_same_run_of_a_task_over_and_over_changes_no_threshold() -> None:
    scores = np.random.default_rng(3).normal(size=30)
    once = [a_run(place, [score], task=f"task {place}") for place, score in enumerate(scores)]
    often = once + [a_run(f"0 again {again}", [scores[0]], task="task 0") for again in range(50)]
    reports = [fit(runs + failures(6)) for runs in (once, often)]
    assert reports[0].rules.threshold == reports[1].rules.threshold
    assert reports[0].bound == pytest.approx(reports[1].bound)
    assert [report.calibrating_tasks for report in reports] == [30, 30]


def test_a_run_at_the_threshold_is_not_stopped() -> None:
    scores = [float(score) for score in range(19)]
    report = fit([a_run(score, [score]) for score in scores] + failures(6, -1.0))
    assert report.rules.threshold == 1.0
    assert report.bound == 0.1
    assert report.thresholds[0].below == pytest.approx(1 / 19)
