"""Recorded runs with their labels: whether each succeeded, and at which task."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from pa_middleware.calibration.errors import CalibrationError
from pa_middleware.calibration.labels import Label, labels_by_name
from pa_middleware.tracing.runs import Run


def label_runs(runs: Iterable[Run], labels: Sequence[Label]) -> Iterator[Run]:
    """The runs, one after the other, with the labels that name them; a run without a label stays as it is.

    A label names a run by its id, or by its trace id, if no other run began in that trace, or by its conversation id,
    and then every run of that conversation. If several name a run, the first of these ways counts.

    Raises:
        CalibrationError: two labels give the same name, which is found before the first run is asked for; or one gives
            the id of a trace that several runs began in, which is found at the second of them.
    """
    return _labelled(runs, labels_by_name(labels))


def _labelled(runs: Iterable[Run], by_name: Mapping[str, Label]) -> Iterator[Run]:
    began: dict[str, str] = {}
    """Id of the run in each trace that a label names."""
    for run in runs:
        if run.trace_id in by_name and (other := began.setdefault(run.trace_id, run.id)) != run.id:
            raise CalibrationError(
                f"line {by_name[run.trace_id].line}: the trace {run.trace_id!r} holds more than one run, such as "
                f"{other!r} and {run.id!r}; label each of them by such an id, or by its conversation id"
            )
        label = by_name.get(run.id) or by_name.get(run.trace_id) or by_name.get(run.conversation_id or "")
        yield run if label is None else replace(run, success=label.success, task=label.task)
