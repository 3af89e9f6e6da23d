"""The file of a stored scoring pass: written so that it can go on after a crash, read so that nothing is lost silently.

One JSON object a line: a header, then the runs. `position` is a run's place in its source, whatever order it was scored
in.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from pa_middleware.evaluation.errors import EvaluationError
from pa_middleware.evaluation.stored import VERSION, Floats, StoredRun, StoredScores, StoredStep

FORMAT = "pa_middleware_scores"
"""Key of the header that tells the file from any other; its value is the version."""
REWARD_MODEL = "reward_model"
"""Key of the header of another reward model's scores."""
SHARD = "shard"
LARGEST = 1e100
"""Of another reward model's scores, so that sums of them stay in the float range."""
_Scores = tuple[float | None, ...] | float | None
"""Of each step of a run, or of the whole run; None where there is none."""
_ARRAYS = ("policy", "reference", "top_mean", "entropy", "self_certainty")


def header_line(header: Mapping[str, object]) -> str:
    """The first line of a file."""
    return json.dumps({FORMAT: VERSION, **header}, allow_nan=False) + "\n"


def run_line(run: StoredRun, position: int) -> str:
    """A run's line."""
    told = {
        "run": run.id,
        "position": position,
        "task": run.task,
        "reward": run.reward,
        "mistake_step": run.mistake_step,
        "characters": run.characters,
        "steps": [_told(step) for step in run.steps],
    }
    return json.dumps(told, allow_nan=False) + "\n"


def external_line(run: str, scores: Sequence[float | None] | float) -> str:
    """The line of a run that another reward model scored: a number for each step, or one for the whole run."""
    given = scores if isinstance(scores, int | float) else list(scores)
    return json.dumps({"run": run, "scores": given}, allow_nan=False) + "\n"


def read_scores(paths: Sequence[str | os.PathLike[str]]) -> StoredScores:
    """The runs of one pass, in the order of their source: one file, or its shards, and other reward models' scores.

    A pass need not be whole; `StoredScores.missing` counts what is not there.

    Raises:
        EvaluationError: no such file's contents, a line that is wrong, shards of different passes, a run twice, or
            another reward model's scores that do not fit the runs.
        OSError: a file cannot be read.
    """
    header: dict[str, Any] | None = None
    first = ""
    runs: dict[str, tuple[int, StoredRun]] = {}
    external: dict[str, dict[str, _Scores]] = {}
    for file in map(Path, paths):
        lines = _lines(file)
        told = header_of(file, lines)
        if REWARD_MODEL in told:
            _external(file, lines, external.setdefault(str(told[REWARD_MODEL]), {}))
            continue
        told.pop(SHARD, None)
        if header is None:
            header, first = told, str(file)
        elif differing := differences(header, told):
            raise EvaluationError(
                f"{str(file)!r} is of another pass than {first!r}: they differ in {', '.join(differing)}; give the "
                "shards of one pass"
            )
        for number, line in lines:
            position, run = _run(file, number, line)
            if run.id in runs:
                raise EvaluationError(f"{str(file)!r}, line {number}: the run {run.id!r} was told before; give it once")
            runs[run.id] = position, run
    if header is None:
        raise EvaluationError("there is no scoring pass among the files; give a file that `pa-middleware score` wrote")
    for name, scores in external.items():
        if left := [run for run in runs if run not in scores]:
            raise EvaluationError(
                f"{name!r} has no score of {len(left)} runs, {left[0]!r} among them; score all with it, or leave it out"
            )
        if len({isinstance(scores[run], tuple) for run in runs}) > 1:
            raise EvaluationError(
                f"{name!r} has a score of each step of some runs and one for the whole of others; score all runs alike"
            )
    ordered = [_joined(run, external) for _, run in sorted(runs.values(), key=lambda each: each[0])]
    return StoredScores(header=header, runs=tuple(ordered))


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """What two headers disagree about."""
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))


def _told(step: StoredStep) -> dict[str, object]:
    told: dict[str, object] = {"index": step.index}
    if step.agent:
        told["agent"] = step.agent
    if step.unscored:
        told["unscored"] = step.unscored
    if step.truncated:
        told["truncated"] = True
    for name in _ARRAYS:
        values: Floats = getattr(step, name)
        if values.size:
            # The shortest text that gives the same float32 again.
            told[name] = [float(text) for text in values.astype(np.float32).astype(str)]
    return told


def _lines(file: Path) -> Iterator[tuple[int, str]]:
    with file.open("rb") as opened:
        for number, line in enumerate(opened, start=1):
            if line.endswith(b"\n"):
                try:
                    yield number, line.decode()
                except UnicodeDecodeError as error:
                    raise EvaluationError(f"{str(file)!r}, line {number} is no text in UTF-8: {error}") from error
            elif line.strip():
                raise EvaluationError(
                    f"{str(file)!r}, line {number} is torn: the pass was interrupted; run the same `pa-middleware "
                    "score` again, which goes on where it stopped"
                )


def json_line(file: Path, number: int, line: str) -> dict[str, Any]:
    """The object of a line, or an EvaluationError that names it."""
    try:
        told = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise EvaluationError(f"{str(file)!r}, line {number}: no JSON: {error}") from error
    if not isinstance(told, dict):
        raise EvaluationError(f"{str(file)!r}, line {number}: {line.strip()!r:.80} is no JSON object")
    return told


def header_of(file: Path, lines: Iterator[tuple[int, str]]) -> dict[str, Any]:
    """What the first line says, but for the format; an EvaluationError if the file is no file of scores."""
    number, line = next(lines, (1, "{}"))
    told = json_line(file, number, line)
    version = told.pop(FORMAT, None)
    if version is None:
        raise EvaluationError(f"{str(file)!r} is no file of scores; give one that `pa-middleware score` wrote")
    if version != VERSION:
        raise EvaluationError(f"{str(file)!r} has version {version!r}; this release reads {VERSION}")
    return told


def _run(file: Path, number: int, line: str) -> tuple[int, StoredRun]:
    told = json_line(file, number, line)
    try:
        reward = None if told["reward"] is None else float(told["reward"])
        if reward is not None and not math.isfinite(reward):
            raise ValueError(f"its reward is {reward}")  # noqa: TRY301 - told with the line below
        characters = tuple(int(each) for each in told["characters"])
        steps = tuple(_step(each) for each in told["steps"])
        places = [-1, *(step.index for step in steps), len(characters)]
        if any(one >= other for one, other in pairwise(places)):
            raise ValueError(f"its steps are {places[1:-1]}, of {len(characters)} messages")  # noqa: TRY301 - likewise
        run = StoredRun(
            id=str(told["run"]),
            task=str(told["task"]),
            reward=reward,
            mistake_step=None if told["mistake_step"] is None else int(told["mistake_step"]),
            characters=characters,
            steps=steps,
        )
        return int(told["position"]), run
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise EvaluationError(f"{str(file)!r}, line {number} is no scored run: {error!r}") from error


def _step(told: Mapping[str, Any]) -> StoredStep:
    with np.errstate(over="ignore"):  # told below
        arrays = {name: np.array(told.get(name, ()), dtype=np.float32) for name in _ARRAYS}
    if len({array.shape for array in arrays.values()}) > 1 or arrays["policy"].ndim != 1:
        raise ValueError("its values are not of the same tokens")
    if not all(np.isfinite(array).all() for array in arrays.values()):
        raise ValueError("a value is not finite")
    if any(arrays[name].max(initial=0.0) > 0 for name in ("policy", "reference")):
        raise ValueError("a log-prob is above 0")
    return StoredStep(
        index=int(told["index"]),
        agent=str(told.get("agent", "")),
        truncated=bool(told.get("truncated", False)),
        unscored=str(told.get("unscored", "")),
        **arrays,
    )


def _external(file: Path, lines: Iterator[tuple[int, str]], found: dict[str, _Scores]) -> None:
    for number, line in lines:
        told = json_line(file, number, line)
        given = told.get("scores")
        scores: _Scores = tuple(given) if isinstance(given, list) else given
        if "run" not in told or "scores" not in told or not all(map(_score_or_none, _each(scores))):
            raise EvaluationError(
                f"{str(file)!r}, line {number}: allowed: run, and scores, a number for each step or one for the run, "
                f"none beyond {LARGEST:g}"
            )
        if str(told["run"]) in found:
            raise EvaluationError(f"{str(file)!r}, line {number}: the run {told['run']!r} was told before")
        found[str(told["run"])] = scores


def _score_or_none(given: object) -> bool:
    if isinstance(given, bool) or not isinstance(given, int | float):
        return given is None
    return abs(given) <= LARGEST  # not so for NaN


def _joined(run: StoredRun, external: Mapping[str, Mapping[str, _Scores]]) -> StoredRun:
    for name, of_runs in external.items():
        scores = of_runs[run.id]
        if isinstance(scores, tuple) and len(scores) != len(run.steps):
            raise EvaluationError(
                f"{name!r} has {len(scores)} scores of the run {run.id!r}, which has {len(run.steps)} actions; "
                "allowed: one for each, or a single number for the run"
            )
    return replace(run, external={name: _each(scores[run.id]) for name, scores in external.items()})


def _each(scores: _Scores) -> tuple[float | None, ...]:
    return scores if isinstance(scores, tuple) else (scores,)
