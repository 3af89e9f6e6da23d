"""Which form a file of runs has, found by looking into it, and its runs one after the other."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Literal, get_args

from pa_middleware.calibration.labels import Label
from pa_middleware.evaluation.errors import EvaluationError
from pa_middleware.evaluation.reading.benchmarks import tau, tau2
from pa_middleware.evaluation.reading.chats import chat
from pa_middleware.evaluation.reading.checkpoints import POSTGRES, SQLITE, checkpoints
from pa_middleware.evaluation.reading.labelling import label_trajectories
from pa_middleware.evaluation.reading.langsmith import langsmith
from pa_middleware.evaluation.reading.openinference import openinference, phoenix_span
from pa_middleware.evaluation.reading.traces import traces
from pa_middleware.evaluation.reading.who_and_when import who_and_when
from pa_middleware.evaluation.trajectory import Trajectory
from pa_middleware.tracing import conventions as names
from pa_middleware.tracing.otlp import parse, spans

Source = Literal["tau", "tau2", "who_and_when", "messages", "checkpoints", "traces", "langsmith", "openinference"]
"""Forms that runs are read in."""
SOURCES: tuple[Source, ...] = get_args(Source)
_ENDINGS = (".json", ".jsonl", ".sqlite", ".sqlite3", ".db")


def read_trajectories(
    paths: Sequence[str | os.PathLike[str]], *, source: Source | None = None, labels: Sequence[Label] = ()
) -> Iterator[Trajectory]:
    """The runs of files, of folders of them, or of a PostgreSQL database's URI, in order.

    One file is in memory at a time; of JSONL, checkpoints and traces one run.

    Args:
        paths: at least one. Of a folder our traces are read if it holds any, else all files that may hold runs, by
            their names, 2.json before 10.json.
        source: the form; None: each file's is found out.
        labels: success and task of runs, by their ids; see `label_trajectories`.

    Raises:
        EvaluationError: nothing to read, a form that is not known, a file that is not in it, or a label of no run.
        OSError: a file cannot be read.
    """
    if source is not None and source not in SOURCES:
        raise EvaluationError(f"source is {source!r}; allowed: {', '.join(SOURCES)}")
    if not paths:
        raise EvaluationError("there is nothing to read; give at least one file or folder of runs")
    runs = (run for path in paths for run in _of_path(os.fspath(path), source))
    return label_trajectories(runs, labels) if labels else runs


def _of_path(path: str, source: Source | None) -> Iterator[Trajectory]:
    if path.startswith(POSTGRES):
        if source not in (None, "checkpoints"):
            raise EvaluationError(f"a database holds checkpoints, not {source!r}; leave the source out")
        yield from checkpoints(path)
        return
    place = Path(path)
    if not place.exists():
        raise FileNotFoundError(f"{path!r} does not exist; give a file of runs, or a folder of them")
    if not place.is_dir():
        yield from _of_file(place, place.stem, source)
        return
    files = sorted(
        (file for file in place.rglob("*") if file.suffix in _ENDINGS and file.is_file()),
        key=lambda file: [(len(part), part) for part in file.parts],
    )
    if not files:
        raise EvaluationError(f"{path!r} holds no file that ends in {', '.join(_ENDINGS)}")
    ours = [file for file in files if source in (None, "traces") and _ours(file)]
    if ours:  # with rules and labels beside them, as a recorded demo leaves them
        yield from traces(ours)  # together: a run that was resumed may go on in another file
        return
    for file in files:
        yield from _of_file(file, file.relative_to(place).with_suffix("").as_posix(), source)


def _of_file(file: Path, name: str, source: Source | None) -> Iterator[Trajectory]:
    with file.open("rb") as opened:
        begin = opened.read(len(SQLITE))
    if begin == SQLITE:
        _check(file, source, "checkpoints")
        yield from checkpoints(str(file))
    elif _in_lines(file):
        yield from _of_lines(file, name, source)
    else:
        yield from _of_json(file, name, _json(file, None, file.read_bytes()), source)


def _in_lines(file: Path) -> bool:
    """Whether each line is a value of its own, whatever the file is called."""
    if file.suffix == ".jsonl":
        return True
    first = [line for _, line in islice(_lines(file), 2)]
    if len(first) < 2:
        return False
    try:
        json.loads(first[0].decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return False
    return True


def _of_lines(file: Path, name: str, source: Source | None) -> Iterator[Trajectory]:
    first = next((line for _, line in _lines(file)), b"")
    if parse(first):
        if source in (None, "traces") and _ours(file):
            yield from traces([file])
        else:
            _check(file, source, "openinference")
            yield from openinference(repr(str(file)), _otlp(file))
        return
    told = _json(file, 1, first)
    if isinstance(told, Mapping) and "run_type" in told:
        _check(file, source, "langsmith")
        yield from langsmith(repr(str(file)), _objects(file))
    elif isinstance(told, Mapping) and phoenix_span(told) is not None:
        _check(file, source, "openinference")
        yield from openinference(repr(str(file)), (span for each in _objects(file) if (span := phoenix_span(each))))
    else:
        _check(file, source, "messages")
        for number, line in _lines(file):
            yield chat(f"{str(file)!r}, line {number}", _json(file, number, line), f"{name}/{number}")


def _of_json(file: Path, name: str, told: Any, source: Source | None) -> Iterator[Trajectory]:
    where = repr(str(file))
    first = told[0] if isinstance(told, list) and told else None
    match told:
        case {"simulations": list()}:
            _check(file, source, "tau2")
            folder = file.parent.name
            trial = folder.removeprefix("trial_") if folder.startswith("trial_") else None
            yield from tau2(where, told, file.stem, trial)
        case {"history": list(), "mistake_step": _}:
            _check(file, source, "who_and_when")
            yield who_and_when(file, told, name)
        case {"messages": list()}:
            _check(file, source, "messages")
            yield chat(where, told, name)
        case {"resourceSpans": list()}:
            _check(file, source, "openinference")
            yield from openinference(where, ((span.trace_id, span.attributes) for span in spans(told)))
        case list() if isinstance(first, Mapping):
            yield from _of_list(file, name, told, first, source)
        case _:
            raise _unknown(file)


def _of_list(
    file: Path, name: str, told: list[Any], first: Mapping[str, Any], source: Source | None
) -> Iterator[Trajectory]:
    where = repr(str(file))
    if any(not isinstance(each, Mapping) for each in told):
        raise EvaluationError(f"{where}: an entry of its list is no object")
    if "traj" in first:
        _check(file, source, "tau")
        yield from tau(where, told, file.stem)
    elif "run_type" in first:
        _check(file, source, "langsmith")
        yield from langsmith(where, told)
    elif phoenix_span(first) is not None:
        _check(file, source, "openinference")
        yield from openinference(where, (span for each in told if (span := phoenix_span(each))))
    elif "messages" in first:
        _check(file, source, "messages")
        for number, run in enumerate(told):
            yield chat(f"{where}, run {number}", run, f"{name}/{number}")
    elif "role" in first:
        _check(file, source, "messages")
        yield chat(where, told, name)
    else:
        raise _unknown(file)


def _check(file: Path, given: Source | None, found: Source) -> None:
    if given not in (None, found):
        raise EvaluationError(f"{str(file)!r} is {found!r}, and the source is said to be {given!r}; leave it out")


def _unknown(file: Path) -> EvaluationError:
    return EvaluationError(f"{str(file)!r} holds no runs in a form that is known; known are: {', '.join(SOURCES)}")


def _json(file: Path, line: int | None, text: bytes) -> Any:
    where = repr(str(file)) if line is None else f"{str(file)!r}, line {line}"
    try:
        return json.loads(text.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise EvaluationError(f"{where} is no JSON: {error}") from error


def _lines(file: Path) -> Iterator[tuple[int, bytes]]:
    with file.open("rb") as opened:
        for number, line in enumerate(opened, start=1):
            if line.strip():
                yield number, line


def _objects(file: Path) -> Iterator[Mapping[str, Any]]:
    for number, line in _lines(file):
        told = _json(file, number, line)
        if not isinstance(told, Mapping):
            raise EvaluationError(f"{str(file)!r}, line {number} is no object")
        yield told


def _otlp(file: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for _, line in _lines(file):
        for span in spans(parse(line)):
            yield span.trace_id, span.attributes


def _ours(file: Path) -> bool:
    """Whether it is a trace file in which a step of a guarded agent is told."""
    if not parse(next((line for _, line in _lines(file)), b"")):
        return False
    return any(span.name == names.GUARD_SPAN for _, line in _lines(file) for span in spans(parse(line)))
