"""Labels put to the runs that they name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from pa_middleware.calibration.errors import CalibrationError
from pa_middleware.calibration.labels import Label, labels_by_name
from pa_middleware.evaluation.errors import EvaluationError
from pa_middleware.evaluation.trajectory import Trajectory

_TRACED = re.compile(r"([0-9a-f]{32})\.(.+)", re.DOTALL)
"""Id of a run of our own traces that has a conversation."""


def label_trajectories(runs: Iterable[Trajectory], labels: Sequence[Label]) -> Iterator[Trajectory]:
    """The runs with their labels; those that have none stay as they are.

    A label names a run by its id. A run of our own traces may also be called by its trace, if no other of the runs
    began in it, or by its conversation, and then every run of that conversation. The first of these ways counts.

    Raises:
        EvaluationError: two labels give the same name, which is found at once; one gives the trace of several runs, or,
            which is found at the end, names none.
    """
    try:
        by_name = labels_by_name(labels)
    except CalibrationError as error:
        raise EvaluationError(str(error)) from error
    return _labelled(runs, by_name)


def _labelled(runs: Iterable[Trajectory], by_name: Mapping[str, Label]) -> Iterator[Trajectory]:
    used: dict[str, str] = {}
    """Name that a label gives -> id of the first run that has it."""
    for run in runs:
        traced = _TRACED.fullmatch(run.id)
        names = (run.id, traced[1], traced[2]) if traced else (run.id,)
        name = next((each for each in names if each in by_name), None)
        if name is None:
            yield run
            continue
        label = by_name[name]
        other = used.setdefault(name, run.id)
        if traced and name == traced[1] and other != run.id:
            raise EvaluationError(
                f"line {label.line}: the trace {name!r} holds more than one run, such as {other!r} and {run.id!r}; "
                "label each of them by such an id, or by its conversation"
            )
        yield replace(run, reward=float(label.success), task=label.task or run.task)
    if left := [label for name, label in by_name.items() if name not in used]:
        raise EvaluationError(
            f"line {left[0].line}: run {left[0].run!r} is not among the runs ({len(left)} such labels); give ids of "
            "runs that are read"
        )
