from __future__ import annotations

import dataclasses
import re
from typing import Any

import pytest
from calibration.made import a_run, failures, fit, good_runs

from pa_middleware.calibration import CalibrationError
from pa_middleware.calibration.recorded import RecordedRun
from pa_middleware.calibration.usable import refuse_few


def test_runs_that_cannot_be_used_are_left_out_and_counted() -> None:
    runs = good_runs(39) + failures(6)
    extra = [
        a_run("shaped", [-50.0], shaped=True),
        a_run("unscored", [-50.0, None]),
        a_run("unscored too", [None]),
        a_run("unlabelled", [-50.0], success=None),
    ]
    report = fit(runs + extra)
    assert report.left_out == {
        "shaped by a guard": 1,
        "without a score for every step": 2,
        "without a label": 1,
    }
    assert report.rules == fit(runs).rules


def test_what_a_guard_let_through_is_a_selection_and_left_out_if_it_stopped_any() -> None:
    shadow, bad = good_runs(39), failures(6)
    passed = [dataclasses.replace(a_run(f"passed {place}", [5.0]), guarded=True) for place in range(20)]
    assert fit(shadow + passed + bad).successes == 59
    report = fit([*shadow, *passed, *bad, a_run("stopped", [-50.0], guarded=True, shaped=True)])
    assert report.left_out == {"shaped by a guard": 1, "let through by that guard": 20}
    assert report.rules == fit(shadow + bad).rules


def test_without_a_usable_run_the_refusal_says_to_record_in_shadow_mode() -> None:
    with pytest.raises(CalibrationError, match=r"none of 1 runs can be used \(1 shaped by a guard\); .*shadow mode"):
        fit([a_run("shaped", [0.0], shaped=True)])


def test_too_few_tasks_are_refused_with_what_there_is_and_what_it_takes() -> None:
    runs = [a_run(place, [0.0], task=f"task {place % 8}") for place in range(20)]
    with pytest.raises(CalibrationError) as refusal:
        fit([*runs, *failures(6), a_run("shaped", [0.0], shaped=True)])
    assert str(refusal.value) == (
        "alpha=0.1 needs 10 tasks with a successful run (9 to calibrate and the rest held out to check); there are 8 "
        "(left out: 1 shaped by a guard). Record more, or use alpha 0.13 or larger"
    )
    report = fit(runs + failures(12), alpha=0.13)
    assert report.calibrating_tasks == 8
    assert report.bound == pytest.approx(1 / 9)


def test_too_few_runs_without_labels_are_refused() -> None:
    with pytest.raises(
        CalibrationError, match=r"needs 9 tasks with a run; there are 8. Record more, or use alpha 0.12 or larger$"
    ):
        fit([dataclasses.replace(run, success=None) for run in good_runs(8)])


@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize("count", range(1, 60))
def test_what_the_refusal_of_few_tasks_asks_for_is_enough_and_no_less(count: int, labelled: bool) -> None:
    def told(count: int, alpha: float) -> str:
        try:
            refuse_few(good_runs(count), alpha, {}, labelled=labelled)
        except CalibrationError as refusal:
            return str(refusal)
        return ""

    message = told(count, 0.01)
    needed = re.search(r"needs (\d+) tasks", message)
    assert needed is not None
    assert not told(int(needed[1]), 0.01)
    assert told(int(needed[1]) - 1, 0.01)
    alpha = re.search(r"use alpha (\S+) or larger", message)
    if count == 1 and labelled:
        assert alpha is None
    else:
        assert alpha is not None
        assert not told(count, float(alpha[1]))
        assert told(count, 0.9 * float(alpha[1]))


def test_the_same_run_twice_is_refused() -> None:
    with pytest.raises(CalibrationError, match="1 run ids are there more than once, 'good 0'"):
        fit(good_runs(39) + failures(6) + good_runs(1))


def test_what_is_no_scored_run_is_refused_with_what_to_do_about_it() -> None:
    recorded: Any = [RecordedRun(run, (run.id,)) for run in good_runs(39)]
    with pytest.raises(CalibrationError, match=r"runs hold RecordedRun; pass them through apply_labels"):
        fit(recorded)
    with pytest.raises(CalibrationError, match="runs hold 7; allowed: ScoredRun"):
        fit([*good_runs(39), 7])  # type: ignore[list-item]
