"""Recorded runs with their labels."""

from __future__ import annotations

import pytest

from pa_middleware.calibration.errors import CalibrationError
from pa_middleware.calibration.labels import Label
from pa_middleware.debugging.labelled import label_runs
from pa_middleware.tracing.runs import Run

RUNS = [Run("t1", "thread", ()), Run("t2", "thread", ()), Run("t3", None, ())]


def test_a_label_names_the_run_of_a_trace_or_every_run_of_a_conversation() -> None:
    labels = [Label(2, "thread", True, "a"), Label(3, "t2", False, None), Label(4, "elsewhere", True, None)]
    found = [(run.success, run.task) for run in label_runs(RUNS, labels)]
    assert found == [(True, "a"), (False, None), (None, None)]


def test_two_labels_of_one_run_are_refused_before_anything_is_read() -> None:
    with pytest.raises(CalibrationError, match=r"line 3: run 't1' has a label already, in line 2; give one"):
        label_runs(iter(RUNS), [Label(2, "t1", True, None), Label(3, "t1", True, None)])


def test_a_label_by_trace_id_is_refused_where_the_trace_holds_several_runs() -> None:
    runs = [Run("t1", "one", ()), Run("t2", None, ()), Run("t1", "other", ())]
    found = label_runs(runs, [Label(2, "t1", True, None)])
    assert [next(found).success, next(found).success] == [True, None]
    with pytest.raises(CalibrationError, match=r"the trace 't1' holds .* each"):
        next(found)


def test_the_id_of_a_run_names_it_before_all_else() -> None:
    labels = [Label(2, "t1.thread", True, None), Label(3, "t1", False, None), Label(4, "thread", False, "a")]
    assert [(run.success, run.task) for run in label_runs(RUNS, labels)] == [(True, None), (False, "a"), (None, None)]
