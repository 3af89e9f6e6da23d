"""The arithmetic of the attribution benchmark, and that its runs are the taxi's."""

from __future__ import annotations

import numpy as np
import pytest
from pa_demos.taxi.environment import HORIZON, STATE_COUNT, Taxi
from pa_demos.taxi.supervised import behaviour

from benchmarks import attribution_runs
from benchmarks.attribution_hits import (
    as_bad,
    best_threshold,
    by_chance,
    hits,
    in_any,
    ranking,
    reliability,
    row,
    worst,
)
from benchmarks.attribution_runs import Failures, exact, failures, traced
from benchmarks.selection_tables import Tables
from pa_middleware.debugging import explain
from pa_middleware.scoring.scorer import CandidateScore

# Three runs: a clear worst step; two that are equally bad; two that are nearly so.
EXACT = np.array([[0.0, -5.0, -1.0, -2.0], [-3.0, 0.0, -3.0, 1.0], [0.0, -2.95, -3.0, 1.0]])


def _tables() -> Tables:
    odds = behaviour()[:, :6]
    log = np.log(np.maximum(odds, 1e-6))[:, :, None]
    score = np.random.default_rng(0).normal(size=log.shape)
    return Tables(log, log, score, score, np.ones_like(log), score[:, :, 0])


def test_the_worst_step_is_the_first_of_equals_and_so_is_what_is_named() -> None:
    assert worst(EXACT).tolist() == [1, 0, 2]
    assert ranking(EXACT) == [[1, 3, 2, 0], [0, 2, 1, 3], [2, 1, 0, 3]]


def test_a_hit_is_the_worst_step_itself_among_so_many_named_and_no_name_is_a_miss() -> None:
    named = [[1], [2, 0], []]
    assert hits(named, worst(EXACT)).tolist() == [1, 0, 0]
    assert hits(named, worst(EXACT), 3).tolist() == [1, 1, 0]


def test_ties_are_forgiven_beside_the_strict_count() -> None:
    assert as_bad(EXACT).sum(axis=1).tolist() == [1, 2, 1]
    assert as_bad(EXACT, 0.1).sum(axis=1).tolist() == [1, 2, 2]
    named = [[1], [2], [1]]
    assert in_any(named, as_bad(EXACT)).tolist() == [1, 1, 0]
    found = row(named, EXACT)
    assert (found["top-1"].mean, found["any worst"].mean) == pytest.approx((1 / 3, 2 / 3))
    assert (found["nearly worst"].mean, found["top-1, clear-cut"].mean) == (1, 1)


def test_chance_is_the_mean_over_every_step_that_could_be_named() -> None:
    every = [row([[step]] * 3, EXACT) for step in range(4)]
    chance = by_chance(EXACT)
    for name in ("top-1", "any worst", "nearly worst"):
        assert chance[name].mean == pytest.approx(np.mean([each[name].mean for each in every]))
    assert chance["top-3"].mean == 0.75


def test_the_best_threshold_hits_most_of_the_runs_it_was_chosen_on() -> None:
    values = np.array([[0.0, -5.0, -9.0], [-1.0, -6.0, 0.0], [0.0, -1.0, -5.5]])
    truth = np.array([[0.0, -1.0, 0.0], [0.0, -1.0, 0.0], [0.0, 0.0, -1.0]])
    at = best_threshold(values, truth)
    assert hits(ranking(values, "first_below", threshold=at), worst(truth)).tolist() == [1, 1, 1]


def test_reliability_counts_each_run_in_the_bin_of_its_confidence() -> None:
    bins = reliability(np.array([0.0, 0.05, 0.95, 1.0]), np.array([0.0, 1.0, 1.0, 1.0]))
    assert [(each["confidence"], each["runs"], each["hits"].mean) for each in bins] == [
        ("0.0 to 0.1", 2, 0.5),
        ("0.9 to 1.0", 2, 1.0),
    ]


@pytest.fixture(scope="module")
def failed() -> Failures:
    return failures(_tables(), "reference", seeds=2, count=5)


def test_failed_runs_are_those_of_the_taxi_the_same_number_from_each_seed(failed: Failures) -> None:
    assert (failed.worlds < 10_000).tolist() == [True] * 5 + [False] * 5
    for world, states, actions in zip(failed.worlds, failed.states, failed.actions, strict=True):
        taxi = Taxi(int(world))
        for state, action in zip(states.tolist(), actions.tolist(), strict=True):
            assert taxi.state == state
            taxi.act(action)
        assert (taxi.steps, taxi.success) == (HORIZON, False)


def test_more_failed_runs_than_a_seed_has_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attribution_runs, "WORLDS_PER_SEED", 500)
    with pytest.raises(ValueError, match="501 failed runs a seed were asked for; 'reference' fails in"):
        failures(_tables(), "reference", seeds=1, count=501)


def test_a_failed_run_as_a_trace_is_explained_by_the_same_scores(failed: Failures) -> None:
    tables = _tables()
    told = {
        (state, action): CandidateScore(tables.score[state, action, 0], -1.0, -1.0, (tables.score[state, action, 0], 0))
        for state in range(STATE_COUNT)
        for action in range(6)
    }
    scores = tables.score[failed.states, failed.actions, 0]
    for place, steps in enumerate(ranking(scores)):
        found = explain(traced(told, 0.0, failed, place))
        assert [suspect.step for suspect in found.suspects] == steps
        assert found.stays_first is not None
    assert exact(tables, failed).tolist() == scores.tolist()
