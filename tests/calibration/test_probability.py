from __future__ import annotations

import sys
from typing import get_args

import numpy as np
import pytest
from calibration.made import a_run, failures, fit, good_runs
from hypothesis import given, settings
from hypothesis import strategies as st

from pa_middleware.calibration import CalibrationError, CalibrationReport, ScoredRun
from pa_middleware.calibration.probability import ProbabilityCheck, fit_and_check, prefix_scores
from pa_middleware.guard.success import MapKind, SuccessMap
from pa_middleware.scoring.advantage import StepAggregation, run_score

_KINDS: tuple[MapKind, ...] = get_args(MapKind)


def _found(report: CalibrationReport) -> tuple[SuccessMap, ProbabilityCheck]:
    assert report.rules.calibration is not None
    assert report.rules.calibration.success is not None
    assert report.probability is not None
    return report.rules.calibration.success, report.probability


def _logistic_runs(count: int, seed: int) -> list[ScoredRun]:
    """Runs of one step, whose success has the probability 1 / (1 + exp(-(2 * score + 1)))."""
    random = np.random.default_rng(seed)
    scores = random.normal(size=count)
    success = random.random(count) < 1 / (1 + np.exp(-(2 * scores + 1)))
    return [a_run(place, [float(scores[place])], bool(success[place])) for place in range(count)]


@given(
    st.lists(st.floats(-1e6, 1e6, allow_subnormal=False), min_size=1, max_size=30),
    st.sampled_from(get_args(StepAggregation)),
)
@settings(max_examples=200, deadline=None)
def test_scores_so_far_are_the_run_score_of_every_prefix(scores: list[float], of: StepAggregation) -> None:
    naive = [run_score(scores[: end + 1], of) for end in range(len(scores))]
    assert prefix_scores(scores, of).tolist() == pytest.approx(naive, rel=1e-9, abs=1e-6)


@pytest.mark.parametrize("kind", _KINDS)
def test_the_map_finds_the_probabilities_that_made_the_data(kind: MapKind) -> None:
    success, check = _found(fit(_logistic_runs(4000, 0), probability=kind))
    assert (success.kind, success.of) == (kind, "min")
    for score in (-1.5, -0.5, 0.0, 0.7):
        assert success.probability([score]) == pytest.approx(1 / (1 + np.exp(-(2 * score + 1))), abs=0.08)
    assert check.brier < 0.75 * check.base_rate_brier
    assert all(abs(each.predicted - each.observed) < 0.1 for each in check.reliability if each.count > 100)
    assert sum(each.count for each in check.reliability) == 4000


@pytest.mark.parametrize("kind", _KINDS)
def test_scores_that_fall_with_success_give_the_base_rate_everywhere(kind: MapKind) -> None:
    random = np.random.default_rng(1)
    success = np.arange(400) % 4 > 0
    scores = [[float(random.normal() - 2 * good)] for good in success]
    found, _ = fit_and_check(scores, success, np.arange(400) % 10, kind=kind, of="mean")
    assert found.probability([-3.0]) == pytest.approx(0.75, abs=0.01)
    assert found.probability([3.0]) == pytest.approx(0.75, abs=0.01)


@pytest.mark.parametrize("kind", _KINDS)
def test_a_run_counts_once_however_long_it_is(kind: MapKind) -> None:
    success = np.arange(200) % 2 > 0
    # Short runs that succeed and long ones that fail, all with the same score: the share of runs is one half.
    scores = [[1.0] * (1 if good else 25) for good in success]
    found, check = fit_and_check(scores, success, np.arange(200) // 20, kind=kind, of="mean")
    assert found.probability([1.0]) == pytest.approx(0.5, abs=0.01)
    assert check.brier == pytest.approx(0.25, abs=0.01)
    assert check.reliability[0].observed == pytest.approx(0.5, abs=0.01)


def test_a_score_that_says_nothing_does_not_beat_the_base_rate_on_other_runs() -> None:
    random = np.random.default_rng(2)
    success = random.random(600) < 0.7
    scores = random.normal(size=(600, 4)).tolist()
    _, check = fit_and_check(scores, success, np.arange(600) % 10, kind="isotonic", of="min")
    assert check.brier >= check.base_rate_brier - 0.002


def test_separated_runs_give_a_finite_map_and_folds_that_all_end_alike_are_fine() -> None:
    success = np.array([True] * 5 + [False] * 5)
    scores = [[1.0 if good else -1.0] for good in success]
    found, check = fit_and_check(scores, success, np.array([0] * 5 + [1] * 5), kind="platt", of="min")
    assert np.isfinite([*found.x, *found.y]).all()
    assert found.probability([1.0]) > 0.5 > found.probability([-1.0])
    assert check.brier == 1.0  # each half was only told of the other outcome


def test_the_map_does_not_change_the_threshold() -> None:
    runs = good_runs(39) + failures(6)
    assert fit(runs, probability="platt", of="mean").thresholds == fit(runs).thresholds


def test_without_scikit_learn_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.isotonic", None)
    with pytest.raises(CalibrationError, match=r"pip install 'pa-middleware\[calibration\]'"):
        fit(good_runs(39) + failures(6), probability="isotonic")
    assert fit(good_runs(39) + failures(6)).probability is None
