from __future__ import annotations

import numpy as np
import pytest
from calibration.made import a_run, failures, fit, good_runs

from pa_middleware.calibration import CalibrationError, ScoredRun
from pa_middleware.calibration.conformal import conformal_threshold, equal_weights
from pa_middleware.calibration.held_out import Comparison, deal_folds
from pa_middleware.calibration.pools import one_pool
from pa_middleware.calibration.runs import task_numbers
from pa_middleware.calibration.signals import score_signal
from pa_middleware.intervals import Estimate


def _held_out(runs: list[ScoredRun], **settings: object) -> Comparison:
    found = fit(runs, **settings).held_out
    assert found is not None
    return found


def _row(comparison: Comparison, name: str) -> dict[str, Estimate | float | None]:
    (row,) = (row for row in comparison.rows if row.name == name)
    return {"alarms": row.false_alarms, "power": row.power, "early": row.early, "lead": row.lead}


def test_all_runs_of_a_task_are_in_one_fold_and_successes_are_spread_evenly() -> None:
    random = np.random.default_rng(0)
    tasks = np.concatenate([np.arange(47), random.integers(0, 47, 100)])
    success = np.isin(tasks, np.arange(23))
    folds = deal_folds(tasks, success, random)
    assert len({(task, fold) for task, fold in zip(tasks.tolist(), folds.tolist(), strict=True)}) == 47
    held = [len(set(tasks[success & (folds == fold)].tolist())) for fold in range(10)]
    assert max(held) - min(held) <= 1
    assert deal_folds(np.array([0, 1, 1]), np.array([True, True, False]), random).max() == 1


def test_first_stops_are_those_of_walking_through_each_run() -> None:
    random = np.random.default_rng(1)
    runs = [a_run(place, random.normal(size=random.integers(1, 9)).tolist()) for place in range(50)]
    thresholds = random.normal(size=(50, 1)) - 0.5
    found = score_signal(runs, one_pool(()), each_call=False).first_stops(thresholds)
    for run, threshold, stop in zip(runs, thresholds[:, 0], found.tolist(), strict=True):
        low = [place for place, step in enumerate(run.steps) if step.score is not None and step.score < threshold]
        assert stop == (low[0] if low else -1)


def test_each_run_is_judged_by_a_threshold_from_other_tasks_only() -> None:
    random = np.random.default_rng(2)
    runs = [
        a_run(f"{task} {again}", (random.normal(size=3) - 2 * (again % 3 == 0)).tolist(), again % 3 > 0, task=str(task))
        for task in range(40)
        for again in range(int(random.integers(1, 6)))
    ]
    found = _held_out(runs, seed=3)
    # The same by hand: folds are dealt after the random baselines were drawn.
    twin, steps = np.random.default_rng(3), sum(len(run.steps) for run in runs)
    for _ in range(20):
        twin.random(steps)
    tasks, success = task_numbers(runs), np.array([run.success for run in runs])
    folds = deal_folds(tasks, success, twin)
    lowest = np.array([min(step.score for step in run.steps if step.score is not None) for run in runs])
    stopped = np.zeros(len(runs), dtype=bool)
    for fold in range(10):
        known = success & (folds != fold)
        threshold = conformal_threshold(lowest[known], equal_weights(tasks[known]), 0.1)
        assert threshold is not None
        stopped |= (folds == fold) & (lowest < threshold.value)

    def rate(among: np.ndarray) -> float:
        by_task = [stopped[among & (tasks == task)].mean() for task in sorted(set(tasks[among].tolist()))]
        return float(np.mean(by_task))

    assert found.rows[0].false_alarms.value == pytest.approx(rate(success))
    assert found.rows[0].power.value == pytest.approx(rate(~success))


def test_a_perfect_scorer_catches_all_failures_at_once() -> None:
    found = _held_out(good_runs(60) + failures(20))
    row = _row(found, "score")
    assert (row["power"], row["early"], row["lead"]) == (Estimate(1.0, 1.0, 1.0), Estimate(1.0, 1.0, 1.0), 5.0)
    assert found.better_than_random.value > 0.5
    assert [each.name for each in found.rows] == ["score", "length", "random"]  # no policy log-probs were recorded


def test_a_stop_in_the_last_third_is_no_catch_in_time() -> None:
    for place, early in ((3, 1.0), (4, 0.0)):
        bad = [a_run(f"bad {n}", [0.0] * place + [-9.0] + [0.0] * (5 - place), success=False) for n in range(10)]
        row = _row(_held_out(good_runs(60) + bad), "score")
        assert (row["early"], row["lead"]) == (Estimate(early, early, early), 5.0 - place)


def test_length_alone_stops_long_runs_after_their_good_length() -> None:
    bad = [a_run(f"bad {place}", [-50.0] + [0.0] * 19, success=False) for place in range(10)]
    row = _row(_held_out(good_runs(60) + bad), "length")
    assert (row["alarms"], row["power"], row["lead"]) == (Estimate(0.0, 0.0, 0.0), Estimate(1.0, 1.0, 1.0), 13.0)


def test_intervals_hold_the_rate_and_narrow_with_more_tasks() -> None:
    widths = []
    for count in (30, 300):
        rate = _held_out(good_runs(count) + failures(10)).rows[0].false_alarms
        assert rate.low <= rate.value <= rate.high
        widths.append(rate.high - rate.low)
    assert widths[1] < widths[0] / 2


def test_more_runs_of_few_tasks_do_not_narrow_the_interval() -> None:
    once = good_runs(30) + failures(10)
    often = once + [
        a_run(f"{run.id} again {again}", [step.score for step in run.steps], run.success, task=run.id)
        for run in once
        for again in range(10)
    ]
    tasked = [a_run(run.id, [step.score for step in run.steps], run.success, task=run.id) for run in once]
    few, many = (_held_out(runs).rows[0].false_alarms for runs in (tasked, often[40:]))
    assert many.high - many.low == pytest.approx(few.high - few.low, rel=0.3)


def test_what_is_left_with_a_fold_held_out_must_be_enough_for_a_threshold() -> None:
    with pytest.raises(CalibrationError, match=r"needs 10 tasks .* there are 9\. Record more, or use alpha 0.12"):
        fit(good_runs(9) + failures(6))
    assert _held_out(good_runs(10) + failures(6)).folds == 10
