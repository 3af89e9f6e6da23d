"""Recorded runs with their labels: whether each succeeded, and at which task."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from pa_middleware.calibration.errors import CalibrationError
from pa_middleware.calibration.labels import Label
from pa_middleware.tracing.runs import Run


def label_runs(runs: Iterable[Run], labels: Sequence[Label]) -> Iterator[Run]:
    """The runs, one after the other, with the labels that name them; a run without a label stays as it is.

    A label names a run by its trace id, or by its conversation id, and then every run of that conversation.

    Raises:
        CalibrationError: two labels name the same run, which is found before the first run is asked for.
    """
    by_name: dict[str, Label] = {}
    for label in labels:
        if label.run in by_name:
            raise CalibrationError(
                f"line {label.line}: run {label.run!r} has a label already, in line {by_name[label.run].line}; give one"
            )
        by_name[label.run] = label
    return (_labelled(run, by_name.get(run.trace_id) or by_name.get(run.conversation_id or "")) for run in runs)


def _labelled(run: Run, label: Label | None) -> Run:
    return run if label is None else replace(run, success=label.success, task=label.task)
