from __future__ import annotations

from pathlib import Path

import pytest
from calibration.made import a_run

from pa_middleware.calibration import CalibrationError, apply_labels, read_labels
from pa_middleware.calibration.labels import Label
from pa_middleware.calibration.recorded import RecordedRun

_RECORDED = [RecordedRun(a_run(name, [0.0], success=None), (name, f"trace-{name}")) for name in ("a", "b", "c")]


def _file(folder: Path, name: str, text: str) -> Path:
    file = folder / name
    file.write_text(text, encoding="utf-8")
    return file


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("l.csv", "run,success,task\na,1,x\ntrace-b,false,\n"),
        ("l.csv", "\ufeffsuccess, run\nTrue, a\n 0 ,trace-b\n"),
        ("l.jsonl", '{"run": "a", "success": true, "task": "x"}\n\n{"run": "trace-b", "success": 0, "task": null}\n'),
        ("l.jsonl", '{"success": "1", "run": "a"}\n{"run": "trace-b", "success": "FALSE"}'),
    ],
)
def test_labels_are_read_from_csv_and_jsonl_and_name_runs_by_either_id(tmp_path: Path, name: str, text: str) -> None:
    runs = apply_labels(_RECORDED, read_labels(_file(tmp_path, name, text)))
    assert [(run.id, run.success) for run in runs] == [("a", True), ("b", False), ("c", None)]
    assert runs[0].task == ("x" if "task" in text else None)
    assert runs[1].task is None


def test_numbers_may_name_runs_and_tasks(tmp_path: Path) -> None:
    labels = read_labels(_file(tmp_path, "l.jsonl", '{"run": 7, "success": 1, "task": 3}\n'))
    assert labels == [Label(1, "7", True, "3")]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("l.csv", "run,success\na,1\nb,maybe\n", "line 3: success is 'maybe'; allowed: 1 or true, 0 or false"),
        ("l.csv", "run,success\na,1\nb,\n", "line 3: success is ''"),
        ("l.csv", "run,success\n,1\n", "line 2: run is ''"),
        ("l.csv", "run,success\na,1,x\n", "line 2: 3 values given; needed are 2, one a column"),
        ("l.csv", "run,success\na\n", "line 2: 1 value given; needed are 2"),
        ("l.csv", "run,success,task\na,1\n", "line 2: 2 values given; needed are 3"),
        ("l.csv", "a,1\nb,0\n", "line 1 must be the header run,success or run,success,task; it is 'a,1'$"),
        ("l.csv", "run;success\na;1\n", "it is 'run;success'; separate the columns with commas"),
        ("l.csv", "run\tsuccess\na\t1\n", "separate the columns with commas"),
        ("l.csv", "run,outcome\na,1\n", "line 1 must be the header .* it is 'run,outcome'$"),
        ("l.csv", "run,success,success\na,1,1\n", "line 1 must be the header"),
        ("l.csv", "", "line 1 must be the header run,success or run,success,task; it is ''$"),
        ("l.csv", "run,success\n", "holds no label"),
        ("l.csv", 'run,success\n"a,1\n', "line 2: no CSV"),
        ("l.jsonl", '{"run": "a", "success": 1}\n{"run"\n', "line 2: no JSON"),
        ("l.jsonl", '{"run": "a", "success": 1, "note": ""}\n', "line 1: .*allowed: an object with run, success"),
        ("l.jsonl", "[1]\n", "line 1: .*allowed: an object"),
        ("l.jsonl", '{"run": "a", "success": null}\n', "line 1: success is None"),
        ("l.jsonl", '{"run": "a", "success": 0.5}\n', "line 1: success is 0.5"),
        ("l.json", "[]", "allowed: a name that ends in .csv or .jsonl"),
    ],
)
def test_a_label_that_cannot_be_understood_is_refused_with_its_line(
    tmp_path: Path, name: str, text: str, message: str
) -> None:
    with pytest.raises(CalibrationError, match=message):
        read_labels(_file(tmp_path, name, text))


def test_a_file_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "l.csv"
    file.write_bytes(b"run,success\n\xff,1\n")
    with pytest.raises(CalibrationError, match="is not UTF-8"):
        read_labels(file)


def test_a_label_of_an_unknown_run_is_refused_with_its_line() -> None:
    with pytest.raises(CalibrationError, match=r"l.csv, line 9: run 'd' is not among the 3 recorded runs, such as 'a'"):
        apply_labels(_RECORDED, [Label(9, "d", True, None)], file="l.csv")


def test_two_labels_of_one_run_are_refused_with_both_lines() -> None:
    with pytest.raises(CalibrationError, match="line 5: run 'trace-a' has a label already, in line 2"):
        apply_labels(_RECORDED, [Label(2, "a", True, None), Label(5, "trace-a", True, None)])
