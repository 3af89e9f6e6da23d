"""Labels of recorded runs: a CSV or JSONL file that says of each run whether it succeeded."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

from pa_middleware.calibration.errors import CalibrationError
from pa_middleware.calibration.recorded import RecordedRun, labelled
from pa_middleware.calibration.runs import ScoredRun

_COLUMNS = ("run", "success", "task")
_WORDS = {"1": True, "true": True, "0": False, "false": False}


@dataclass(frozen=True, slots=True)
class Label:
    """What is known of one run."""

    line: int
    """Of the file, from 1."""
    run: str
    """Its conversation id or trace id."""
    success: bool
    task: str | None


def read_labels(path: str | os.PathLike[str]) -> list[Label]:
    """Labels from a file whose name ends in .csv, with a header, or .jsonl, with one object a line.

    Columns: `run`, `success` (1, 0, true or false) and, if wanted, `task`.

    Raises:
        CalibrationError: the file is neither, cannot be parsed, or a line is wrong; the message names the line.
        OSError: the file cannot be read.
    """
    file = Path(path)
    readers = {".csv": _csv, ".jsonl": _jsonl}
    if file.suffix not in readers:
        raise CalibrationError(f"the file of labels is {str(file)!r}; allowed: a name that ends in .csv or .jsonl")
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise CalibrationError(f"{file} is not UTF-8: {error}") from error
    labels = [_label(file, line, row) for line, row in readers[file.suffix](file, text)]
    if not labels:
        raise CalibrationError(f"{file} holds no label; give a line for each run, with {', '.join(_COLUMNS)}")
    return labels


def labels_by_name(labels: Sequence[Label]) -> dict[str, Label]:
    """The labels by the names that they give to runs.

    Raises:
        CalibrationError: two give the same.
    """
    by_name: dict[str, Label] = {}
    for label in labels:
        if label.run in by_name:
            raise CalibrationError(
                f"line {label.line}: run {label.run!r} has a label already, in line {by_name[label.run].line}; give one"
            )
        by_name[label.run] = label
    return by_name


def apply_labels(
    recorded: Sequence[RecordedRun], labels: Sequence[Label], *, file: str | os.PathLike[str] = "labels"
) -> list[ScoredRun]:
    """The runs with their labels; those that have none stay as they are.

    Raises:
        CalibrationError: a label names no run, or one that an earlier label named.
    """
    places = {name: place for place, run in enumerate(recorded) for name in run.names}
    runs = [each.run for each in recorded]
    lines: dict[int, int] = {}
    for label in labels:
        where = f"{os.fspath(file)}, line {label.line}: "
        if label.run not in places:
            raise CalibrationError(
                f"{where}run {label.run!r} is not among the {len(recorded)} recorded runs, such as "
                f"{', '.join(repr(each.run.id) for each in recorded[:3])}; give a conversation id that names one "
                "run, or a trace id"
            )
        place = places[label.run]
        if place in lines:
            raise CalibrationError(f"{where}run {label.run!r} has a label already, in line {lines[place]}; give one")
        lines[place] = label.line
        runs[place] = labelled(runs[place], label.success, label.task)
    return runs


def _csv(file: Path, text: str) -> Iterator[tuple[int, Mapping[str, object]]]:
    reader = csv.DictReader(StringIO(text, newline=""), skipinitialspace=True, strict=True)
    try:
        header = [name.strip() for name in reader.fieldnames or ()]
        if not {"run", "success"} <= set(header) <= set(_COLUMNS) or len(set(header)) < len(header):
            first = next(iter(text.splitlines()), "")
            hint = "; separate the columns with commas" if ";" in first or "\t" in first else ""
            raise CalibrationError(
                f"{file}, line 1 must be the header run,success or run,success,task; it is {first!r:.100}{hint}"
            )
        reader.fieldnames = header
        for row in reader:
            given = sum(value is not None for name, value in row.items() if name is not None) + len(row.get(None, ()))
            if given != len(header):
                raise CalibrationError(
                    f"{file}, line {reader.line_num}: {given} {'value' if given == 1 else 'values'} given; needed are "
                    f"{len(header)}, one a column"
                )
            yield reader.line_num, row
    except csv.Error as error:
        raise CalibrationError(f"{file}, line {reader.reader.line_num}: no CSV: {error}") from error


def _jsonl(file: Path, text: str) -> Iterator[tuple[int, Mapping[str, object]]]:
    for line, told in enumerate(text.split("\n"), start=1):
        if not told.strip():
            continue
        try:
            row = json.loads(told)
        except ValueError as error:
            raise CalibrationError(f"{file}, line {line}: no JSON: {error}") from error
        if not isinstance(row, dict) or not {"run", "success"} <= set(row) <= set(_COLUMNS):
            raise CalibrationError(
                f"{file}, line {line}: {told.strip()!r:.100}; allowed: an object with run, success, and task if wanted"
            )
        yield line, row


def _label(file: Path, line: int, row: Mapping[str, object]) -> Label:
    run, told, task = (_word(row.get(name)) for name in _COLUMNS)
    if not run:
        raise CalibrationError(
            f"{file}, line {line}: run is {row.get('run')!r}; allowed: a conversation id or trace id"
        )
    if told.lower() not in _WORDS:
        raise CalibrationError(
            f"{file}, line {line}: success is {row.get('success')!r}; allowed: 1 or true, 0 or false"
        )
    return Label(line, run, _WORDS[told.lower()], task or None)


def _word(value: object) -> str:
    """A CSV field or a JSON value as text; "" for none."""
    return "" if value is None else str(value).strip()
